//! DNS when agents end, begin and follow each other.

use std::net::Ipv4Addr;
use std::path::Path;

use sluice_tests::bed::Host;
use sluice_tests::cluster::{DNS_ADDRESSES, Options};
use sluice_tests::names_load::Outcome;
use sluice_tests::{Error, Result, programs, wait_for};

use crate::site::{LIMIT, Site, WEB};

const NAME: &str = "web.default.svc.cluster.local";

/// Asks at 10,000 queries a second while something happens to the agent.
fn load(client: &Host, milliseconds: u64, happens: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let program = programs::built("sluice-testbed")?;
    let server = format!("{}:53", DNS_ADDRESSES[0]);
    let time = milliseconds.to_string();
    let arguments = ["names-load", &server, NAME, WEB[0], "--milliseconds", &time];
    let mut running = client.start(&format!("load-{time}"), &program.to_string_lossy(), &arguments)?;
    happens()?;
    assert_eq!(running.wait(LIMIT * 3)?, Some(0), "{}", running.log());
    running.log().trim().parse()
}

#[test]
fn agents_follow_each_other_and_no_client_notices() -> Result<()> {
    let site = Site::usual(true)?;
    let node = site.cluster.node(1);
    assert!(WEB[0].parse::<Ipv4Addr>().is_ok());
    let outcome = load(site.client(), 6000, || {
        node.replace_agent()?;
        node.replace_agent()
    })
    .map_err(|error| site.with_logs(&error))?;
    assert_eq!((outcome.asked, outcome.lost, outcome.wrong), (60_000, 0, 0), "{outcome:?}");
    let log = node.agent_log();
    assert_eq!(log.matches("taking over from the agent before").count(), 2, "{log}");
    Ok(())
}

#[test]
fn an_agent_that_starts_again_serves_what_was_known_before_it_knows_the_cluster() -> Result<()> {
    let options = Options { nodes: 1, agent: "dnsLameduck: 0s\n".to_owned(), ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    let node = site.cluster.node(1);
    let expect = |name: &str, wanted: &str| {
        wait_for(&format!("{wanted} for {name}"), LIMIT, || {
            let text = site.client().run("dig", &["+tries=1", "+time=1", name])?.stdout;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if text.contains(wanted) { Ok(Some(())) } else { Err(Error::answer(name, text)) }
        })
    };
    expect(NAME, WEB[0])?;
    assert_eq!(node.stop_agent()?, Some(0));
    let zone = node.state().join("dns-zone.json");
    assert!(std::fs::read_to_string(&zone).unwrap().contains("\"web\""));

    // A manifest that nobody finishes writing: the cluster is never known as a whole.
    let endless = site.cluster.manifests().join("endless.yaml");
    node.host().succeed("mkfifo", &[&endless.display().to_string()])?;
    node.start_agent()?;
    expect(NAME, WEB[0])?;
    expect(NAME, "cluster.local. 0 IN A")?;
    expect("other.default.svc.cluster.local", "SERVFAIL")?;
    node.kill_agent()?;
    std::fs::remove_file(&endless).unwrap();

    // A damaged file is told and does no harm.
    std::fs::write(&zone, "{\"version\":1,").unwrap();
    node.start_agent()?;
    node.wait_ready()?;
    expect(NAME, WEB[0])?;
    let log = node.agent_log();
    assert!(log.contains("the zone of before is of no use"), "{log}");
    Ok(())
}

#[test]
fn an_agent_that_ends_is_a_lame_duck_for_a_while() -> Result<()> {
    let options = Options {
        agent: "dnsLameduck: 3s\ndnsReadyAddress: \"[::]:8181\"\n".to_owned(),
        ..Options::default()
    };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    let node = site.cluster.node(1);
    let get = |port: u16, path: &str| {
        let url = format!("http://127.0.0.1:{port}/{path}");
        node.host().run("curl", &["-s", "-m", "2", "-w", " %{http_code}", &url]).map(|output| output.stdout)
    };
    assert_eq!(get(10256, "health")?, "OK 200");
    assert_eq!(get(10256, "ready")?, "OK 200");
    assert_eq!(get(8181, "ready")?, "OK 200");
    assert_eq!(get(8080, "health")?, " 000", "the port is left to pods on the host's network");
    node.host().succeed("dig", &[&format!("@{}", DNS_ADDRESSES[0]), NAME])?;
    let metrics = get(9153, "metrics")?;
    for name in ["coredns_dns_requests_total", "coredns_plugin_enabled", "coredns_cache_misses_total"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    let outcome = load(site.client(), 1500, || {
        node.terminate_agent()?;
        wait_for("/ready to say no", LIMIT, || {
            Ok((get(8181, "ready")? == "Shutting down 503").then_some(()))
        })?;
        assert_eq!(get(10256, "ready")?, "Shutting down 503");
        assert_eq!(get(10256, "health")?, "OK 200");
        Ok(())
    })?;
    assert_eq!((outcome.asked, outcome.right), (15_000, 15_000), "{outcome:?}");
    assert_eq!(node.stop_agent()?, Some(0));
    Ok(())
}

/// Starts the agent by way of a service manager; gives the folder of what that says.
fn managed(site: &Site) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().map_err(Error::file("make", "a temporary folder"))?;
    let program = programs::built("sluice-testbed")?.display().to_string();
    let path = folder.path().display().to_string();
    let node = site.cluster.node(1);
    node.stop_agent()?;
    node.start_agent_by(&[&program, "manage", &path, "--milliseconds", "500", "--"])?;
    node.wait_ready()?;
    Ok(folder)
}

fn kill_managed(site: &Site, folder: &Path) -> Result<()> {
    let path = folder.join("pid");
    let pid = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    site.cluster.node(1).host().succeed("kill", &["-9", &pid]).map(drop)
}

/// How many sockets the service manager keeps.
fn stored(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("store")).unwrap_or_default().lines().count()
}

#[test]
fn what_is_asked_while_no_agent_lives_waits_for_the_next() -> Result<()> {
    let options = Options { nodes: 1, agent: "dnsLameduck: 0s\n".to_owned(), ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    let folder = managed(&site)?;
    // For each of the two addresses one socket of TCP and some of UDP.
    wait_for("the sockets to be kept", LIMIT, || Ok((stored(folder.path()) >= 4).then_some(())))?;
    let kept = stored(folder.path());
    for round in 0..2 {
        kill_managed(&site, folder.path())?;
        // Asked at once, and once: the answer is the next agent's.
        for protocol in ["+notcp", "+tcp"] {
            let asked = ["+short", "+tries=1", "+time=10", protocol, NAME];
            let answer = site.client().run("dig", &asked)?.stdout;
            assert_eq!(
                answer.trim(),
                WEB[0],
                "{protocol} in round {round}: {}",
                site.cluster.node(1).agent_log()
            );
        }
        let log = site.cluster.node(1).agent_log();
        assert_eq!(log.matches("the service manager has kept the DNS sockets").count(), round + 1, "{log}");
        site.cluster.node(1).wait_ready()?;
        assert_eq!(stored(folder.path()), kept, "the same sockets");
    }
    // At a rate at which they find room: none is lost that a client with one retry would notice.
    let program = programs::built("sluice-testbed")?;
    let server = format!("{}:53", DNS_ADDRESSES[0]);
    let arguments = ["names-load", &server, NAME, WEB[0], "--rate", "200", "--milliseconds", "5000"];
    let mut running = site.client().start("load", &program.to_string_lossy(), &arguments)?;
    kill_managed(&site, folder.path())?;
    assert_eq!(running.wait(LIMIT * 3)?, Some(0), "{}", running.log());
    let outcome: Outcome = running.log().trim().parse()?;
    assert_eq!((outcome.asked, outcome.lost, outcome.wrong), (1000, 0, 0), "{outcome:?}");
    Ok(())
}

#[test]
fn sockets_are_not_kept_where_the_cluster_has_other_servers() -> Result<()> {
    let options = Options { nodes: 1, agent: "dnsLameduck: 0s\n".to_owned(), ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    let folder = managed(&site)?;
    wait_for("the sockets to be kept", LIMIT, || Ok((stored(folder.path()) >= 4).then_some(())))?;
    let address = DNS_ADDRESSES[0];
    let others = |addresses: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\nspec:\n  clusterIP: \
             {address}\n  clusterIPs: [{address}]\n  ports: [{{name: dns, port: 53, protocol: UDP}}]\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: kube-dns-1, namespace: kube-system, \
             labels: {{kubernetes.io/service-name: kube-dns}}}}\naddressType: IPv4\n\
             ports: [{{name: dns, port: 53, protocol: UDP}}]\nendpoints: [{addresses}]\n"
        )
    };
    for (endpoints, is_kept) in [("{addresses: [10.99.0.1]}", false), ("", true)] {
        site.cluster.apply("kube-dns.yaml", &others(endpoints))?;
        wait_for("the store to be as it should", LIMIT, || {
            Ok(((stored(folder.path()) > 0) == is_kept).then_some(()))
        })?;
    }
    Ok(())
}
