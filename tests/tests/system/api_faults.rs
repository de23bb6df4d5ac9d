//! What only the test API server can show: servers that fail, and what nodes ask of a server. While a server fails, a
//! node goes on with what it knows; afterwards it knows what is new.

use std::time::Duration;

use sluice_tests::apiserver::Blow;
use sluice_tests::cluster::{Node, Options, service, slices};
use sluice_tests::{Cluster, Error, Result, Testbed, run, wait_for};

use crate::api::{RECOVERY, Site, WEB, options, services_names_and_their_changes};
use crate::site::bracketed;

const SHOP: [&str; 2] = ["10.96.0.30", "fd00:96::30"];
const NEW: [&str; 2] = ["10.96.0.40", "fd00:96::40"];

fn health(node: &Node, path: &str) -> Result<(String, String)> {
    let url = format!("http://127.0.0.1:10256{path}");
    let text = node.host().run("curl", &["-s", "-m", "2", "-w", "\n%{http_code}", &url])?.stdout;
    let (body, code) = text.rsplit_once('\n').unwrap_or_default();
    Ok((code.to_owned(), body.to_owned()))
}

fn metric(node: &Node, prefix: &str) -> Result<f64> {
    let text = node.host().curl("http://127.0.0.1:10249/metrics")?;
    let values =
        text.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(f64::max).ok_or_else(|| Error::answer(prefix, text))
}

#[test]
fn a_server_that_comes_back_with_other_data_changes_nothing_until_its_lists_are_whole() -> Result<()> {
    let site = Site::new()?;
    site.serve("shop", SHOP, &[0])?;
    site.answers(SHOP, 1)?;
    site.api().stop();
    site.cluster.withdraw("shop.yaml")?;
    site.serve("new", NEW, &[1])?;
    // The node has noticed, and says how old its knowledge is.
    let node = site.cluster.node(1);
    wait_for("the node to say how old its knowledge is", RECOVERY, || {
        Ok((metric(node, "sluice_api_last_contact_seconds{")? > 1.0).then_some(()))
    })?;
    assert_eq!(health(node, "/livez")?.0, "200");
    for addresses in [WEB, SHOP] {
        site.answers(addresses, if addresses == WEB { 2 } else { 1 })?;
    }
    // It begins to list, and stops in the middle.
    site.api().behave(|behaviour| _ = behaviour.silent.insert("*".to_owned()));
    site.api().start()?;
    wait_for("the list", RECOVERY, || {
        Ok(site.api().watching().iter().any(|one| one.kind == "services").then_some(()))
    })?;
    site.answers(SHOP, 1)?;
    site.api().behave(|behaviour| behaviour.silent.clear());
    site.answers(NEW, 1)?;
    SHOP.iter().try_for_each(|address| site.is_gone(address))?;
    site.answers(WEB, 2)
}

#[test]
fn a_version_that_is_gone_is_a_reason_to_list_again() -> Result<()> {
    let site = Site::new()?;
    site.serve("shop", SHOP, &[0])?;
    site.answers(SHOP, 1)?;
    // In the midst of streams.
    site.api().hit("*", Blow::Gone);
    site.serve("new", NEW, &[1])?;
    site.answers(NEW, 1)?;
    // At the start of streams: nobody told of the removal.
    site.api().stop();
    site.cluster.withdraw("shop.yaml")?;
    site.api().forget();
    site.api().start()?;
    SHOP.iter().try_for_each(|address| site.is_gone(address))?;
    site.answers(WEB, 2)
}

#[test]
fn streams_that_break_or_end_are_taken_up_where_they_were() -> Result<()> {
    let site = Site::new()?;
    for (blow, pods) in [(Blow::Cut, 1), (Blow::End, 2), (Blow::Cut, 1)] {
        site.api().hit("*", blow);
        site.serve("web", WEB, if pods == 1 { &[0] } else { &[0, 1] })?;
        site.answers(WEB, pods)?;
    }
    Ok(())
}

#[test]
fn a_stream_that_stays_open_and_says_nothing_is_noticed() -> Result<()> {
    let site = Site::new()?;
    site.api().hit("*", Blow::Silence);
    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 1)
}

#[test]
fn a_wire_that_swallows_everything_is_noticed() -> Result<()> {
    let site = Site::new()?;
    let host = site.cluster.api().host();
    site.cluster.lan().sever(host, true)?;
    site.serve("web", WEB, &[1])?;
    let node = site.cluster.node(1);
    wait_for("the silence to be noticed", RECOVERY, || {
        Ok((metric(node, "sluice_api_last_contact_seconds{")? > 5.0).then_some(()))
    })?;
    site.answers(WEB, 2)?;
    site.cluster.lan().sever(host, false)?;
    site.answers(WEB, 1)
}

#[test]
fn refusals_are_waited_out() -> Result<()> {
    let site = Site::with(|server| {
        server.refuse("*", 429, Some(1), 3);
        server.refuse("services", 500, None, 2);
        server.refuse("endpointslices", 503, Some(1), 1);
    })?;
    let codes: Vec<u16> =
        site.api().seen().iter().map(|seen| seen.code).filter(|code| *code >= 400).collect();
    for code in [429, 500, 503] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    Ok(())
}

#[test]
fn a_slow_server_is_waited_for() -> Result<()> {
    let site = Site::with(|server| {
        server.behave(|behaviour| {
            behaviour.delay = Duration::from_millis(300);
            behaviour.slowness = Duration::from_millis(200);
        });
    })?;
    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 1)
}

#[test]
fn every_address_of_the_server_has_its_turn() -> Result<()> {
    // Nobody has the first one, nobody listens at the second.
    let servers = "apiServers: ['https://192.168.77.201:6443', 'https://192.168.77.100:6443', 'https://[fd77::c8]:6443']\n";
    let agent = options().agent + servers;
    let options = sluice_tests::cluster::Options { agent, nodes: 1, ..options() };
    let cluster = Cluster::without_agents(&Testbed::new()?, &options)?;
    cluster.node(1).start_agent()?;
    cluster.node(1).wait_ready_within(RECOVERY)?;
    let clients: Vec<_> =
        cluster.api().server().watching().into_iter().map(|one| one.client.to_string()).collect();
    assert!(!clients.is_empty() && clients.iter().all(|client| client == "fd77::1"), "{clients:?}");
    Ok(())
}

#[test]
fn without_a_server_nothing_is_programmed_and_health_says_so() -> Result<()> {
    let cluster = Cluster::without_agents(&Testbed::new()?, &options())?;
    let node = cluster.node(1);
    cluster.api().server().stop();
    node.start_agent()?;
    let (code, body) = wait_for("/healthz", RECOVERY, || {
        let (code, body) = health(node, "/healthz")?;
        Ok((code == "503").then_some((code, body)))
    })?;
    assert_eq!(code, "503", "{body}");
    wait_for("a try", RECOVERY, || Ok(node.agent_log().contains("192.168.77.200").then_some(())))?;
    assert_ne!(health(node, "/healthz")?.0, "200");
    let devices = node.host().ip_json(&["link", "show"])?.to_string();
    assert!(!devices.contains("sluice0"), "{devices}");
    cluster.api().server().start()?;
    node.wait_ready_within(RECOVERY)
}

#[test]
fn an_agent_that_starts_without_a_server_leaves_what_is_there_at_work() -> Result<()> {
    let site = Site::new()?;
    let node = site.cluster.node(1);
    node.kill_agent()?;
    site.api().stop();
    node.start_agent()?;
    wait_for("/healthz", RECOVERY, || Ok((health(node, "/healthz")?.0 == "503").then_some(())))?;
    wait_for("a try", RECOVERY, || {
        Ok((node.agent_log().matches("192.168.77.200").count() > 0).then_some(()))
    })?;
    site.answers(WEB, 2)?;
    site.cluster.withdraw("web.yaml")?;
    site.serve("new", NEW, &[1])?;
    site.answers(WEB, 2)?;
    site.api().start()?;
    node.wait_ready_within(RECOVERY)?;
    site.answers(NEW, 1)?;
    WEB.iter().try_for_each(|address| site.is_gone(address))
}

#[test]
fn services_names_and_their_changes_from_an_old_server() -> Result<()> {
    let site = Site::with(|server| {
        server.behave(|behaviour| {
            behaviour.streaming_lists = false;
            behaviour.unknown.insert("servicecidrs".to_owned());
        });
    })?;
    services_names_and_their_changes(&site)
}

#[test]
fn services_names_and_their_changes_from_a_server_with_an_old_etcd() -> Result<()> {
    let site = Site::with(|server| server.behave(|behaviour| behaviour.watch_progress = false))?;
    services_names_and_their_changes(&site)
}

#[test]
fn what_cannot_be_used_does_not_stop_the_rest() -> Result<()> {
    let site = Site::new()?;
    let broken = [
        service("no-port", "clusterIP: 10.96.0.60\nports: [{port: 0}]"),
        service("no-number", "clusterIP: 10.96.0.61\nports: [{port: http}]"),
        service("no-address", "clusterIP: '10.96'\nports: [{port: 80}]"),
        slices("odd", "[{name: http, port: 80}]", &[])
            .replace("endpoints: []", "endpoints: [{addresses: [nowhere]}]"),
        "apiVersion: v1\nkind: Node\nmetadata: {name: odd}\nspec: {podCIDRs: ['10.9']}\n".to_owned(),
    ];
    site.cluster.apply("broken.yaml", &broken.join("---\n"))?;
    site.serve("good", ["10.96.0.62", "fd00:96::62"], &[0])?;
    site.answers(["10.96.0.62", "fd00:96::62"], 1)?;
    site.answers(WEB, 2)?;
    let log = site.cluster.node(1).agent_log();
    for named in
        ["default/no-port", "default/no-number", "default/no-address", "default/odd-ipv4", "Node odd"]
    {
        assert!(log.contains(named), "{named} is not in the log:\n{log}");
    }
    // A new agent meets them in its first list.
    let node = site.cluster.node(1);
    node.kill_agent()?;
    node.start_agent()?;
    node.wait_ready_within(RECOVERY)?;
    site.answers(WEB, 2)
}

#[test]
fn a_node_watches_each_kind_once_and_writes_nothing_but_events() -> Result<()> {
    let site = Site::new()?;
    let watches = site.watches();
    for node in site.cluster.nodes() {
        let [ip4, _] = node.addresses();
        for kind in ["services", "endpointslices", "nodes"] {
            assert_eq!(watches.get(&(ip4.clone(), kind)), Some(&1), "{}: {kind}: {watches:?}", node.name());
        }
    }
    assert!(watches.values().all(|&count| count == 1), "{watches:?}");
    let seen = site.api().seen();
    let writes: Vec<_> =
        seen.iter().filter(|seen| seen.method != "GET" && !seen.path.contains("/events")).collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert!(seen.iter().all(|seen| seen.agent.starts_with("sluice/")), "{:?}", seen.first());
    // The proxy must not depend on what it provides.
    let refused: Vec<_> = seen.iter().filter(|seen| seen.code >= 400).collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}

#[test]
fn lists_longer_than_a_page_are_read_whole() -> Result<()> {
    const COUNT: u32 = 1700;
    let site = Site::with(|server| {
        server.behave(|behaviour| behaviour.streaming_lists = false);
        for number in 0..COUNT {
            let (high, low) = (number / 256, number % 256);
            let many = service(
                &format!("many-{number}"),
                &format!("clusterIP: 10.96.{}.{low}\nports: [{{port: 80}}]", 32 + high),
            );
            server.apply(&many).unwrap_or_else(|error| panic!("{error}"));
        }
        // The first node's list is gone while it is read.
        server.behave(|behaviour| behaviour.pages_expire = 1);
    })?;
    for number in [0, 499, 500, 1000, COUNT - 1] {
        let expected = format!("10.96.{}.{}", 32 + number / 256, number % 256);
        assert_eq!(site.dig(&format!("many-{number}.default.svc.cluster.local"), "A")?, [expected]);
    }
    let continued = site.api().seen().into_iter().filter(|seen| seen.query.contains("continue=")).count();
    assert!(continued >= 4, "{continued} pages");
    Ok(())
}

#[test]
fn a_tool_of_the_test_speaks_to_the_server_from_a_node() -> Result<()> {
    let site = Site::new()?;
    let address = bracketed(sluice_tests::cluster::API[1]);
    let mut curl = site.cluster.node(1).host().command("curl")?;
    let output = run(curl.args([
        "-sSk",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &format!("https://{address}:6443/version"),
    ]))?;
    assert_eq!(output.stdout, "401", "{output:?}");
    Ok(())
}

#[test]
fn a_proxy_alone_asks_for_what_a_proxy_serves() -> Result<()> {
    let options = Options { agent: options().agent + "dns: false\n", ..options() };
    let site = Site::on(Cluster::without_agents(&Testbed::new()?, &options)?)?;
    let asked = site.api().seen();
    let query = |path: &str| asked.iter().find(|seen| seen.path == path).map(|seen| seen.query.clone());
    let services = query("/api/v1/services").unwrap_or_default();
    assert!(services.contains("fieldSelector=spec.clusterIP%21%3DNone"), "{services}");
    assert_eq!(query("/api/v1/namespaces"), None);
    // A label that comes takes the service away, one that goes brings it back.
    site.give_to_another_proxy()?;
    site.serve("web", WEB, &[0, 1])?;
    site.answers(WEB, 2)
}
