//! DNS that is configured otherwise while clients ask: another Corefile, another address, other nodes.

use sluice_tests::bed::Host;
use sluice_tests::cluster::Options;
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB};

fn expect(host: &Host, query: &[&str], wanted: &str) -> Result<()> {
    wait_for(&format!("{wanted:?} for dig {}", query.join(" ")), LIMIT, || {
        let text = host.run("dig", &[&["+tries=1", "+time=1"], query].concat())?.stdout;
        if text.contains(wanted) { Ok(Some(())) } else { Err(Error::answer("dig", text)) }
    })
}

/// The Corefile of the standard manifests, with more lines in it.
fn corefile(more: &str) -> String {
    format!(
        ".:53 {{\n    errors\n    health {{\n       lameduck 5s\n    }}\n    ready\n    kubernetes cluster.local in-addr.arpa \
         ip6.arpa {{\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }}\n    \
         prometheus :9153\n    forward . /etc/resolv.conf {{\n       max_concurrent 1000\n    }}\n    cache 30\n    loop\n    \
         reload\n    loadbalance\n{more}}}\n"
    )
}

#[test]
fn a_corefile_is_followed_and_a_bad_one_is_refused() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Corefile");
    std::fs::write(&path, corefile("")).unwrap();
    let agent = format!("corefile: {}\ndnsLameduck: 0s\n", path.display());
    let site = Site::new(&Options { nodes: 1, agent, ..Options::default() }, &[("client", 1), ("web-0", 1)])?;
    let (client, node) = (site.client(), site.cluster.node(1));
    expect(client, &["web.default.svc.cluster.local"], WEB[0])?;

    let hosts = "    hosts {\n      192.0.2.7 gate.example.com\n      fallthrough\n    }\n";
    std::fs::write(&path, corefile(hosts)).unwrap();
    expect(client, &["gate.example.com"], "192.0.2.7")?;
    expect(client, &["web.default.svc.cluster.local"], WEB[0])?;

    std::fs::write(&path, corefile("    whoami\n")).unwrap();
    let said = "line 20: whoami: this directive is not supported";
    wait_for("the error in the log", LIMIT, || Ok(node.agent_log().contains(said).then_some(())))?;
    expect(client, &["gate.example.com"], "192.0.2.7")?;
    let metrics = node.host().succeed("curl", &["-s", "http://127.0.0.1:9153/metrics"])?;
    assert!(metrics.contains("coredns_reload_failed_total 1"), "{metrics}");
    assert!(metrics.contains("coredns_reload_version_info{hash=\"fnv1a\",value=\""), "{metrics}");

    // An agent that starts with a bad one goes on with the last that was good.
    node.stop_agent()?;
    node.start_agent()?;
    node.wait_ready()?;
    expect(client, &["gate.example.com"], "192.0.2.7")?;

    // Further addresses, as NodeLocal DNSCache has them.
    std::fs::write(&path, corefile("    bind 169.254.20.10\n")).unwrap();
    expect(client, &["@169.254.20.10", "web.default.svc.cluster.local"], WEB[0])?;
    expect(client, &["@169.254.20.10", "+tcp", "web.default.svc.cluster.local"], WEB[0])?;
    expect(client, &["gate.example.com"], "203.0.113.1")?;
    expect(client, &["web.default.svc.cluster.local"], WEB[0])
}

#[test]
fn the_services_address_may_change_while_it_is_asked() -> Result<()> {
    let site = Site::new(&Options { nodes: 1, ..Options::default() }, &[("client", 1), ("web-0", 1)])?;
    let client = site.client();
    let name = "web.default.svc.cluster.local";
    expect(client, &[name], WEB[0])?;
    let service = |address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\nspec:\n  clusterIP: \
             {address}\n  clusterIPs: [{address}]\n  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: \
             53}}]\n"
        )
    };
    for address in ["10.96.0.53", "10.96.0.54"] {
        site.cluster.apply("kube-dns.yaml", &service(address))?;
        expect(client, &[&format!("@{address}"), name], WEB[0])?;
        expect(client, &[name], WEB[0])?;
    }
    let log = site.cluster.node(1).agent_log();
    assert_eq!(log.matches("serving DNS").count(), 1, "one server, whatever its addresses: {log}");
    Ok(())
}

#[test]
fn the_world_is_not_answered() -> Result<()> {
    let site = Site::usual(true)?;
    let name = "web.default.svc.cluster.local";
    for host in [site.client(), site.cluster.node(1).host()] {
        expect(host, &["@10.96.0.10", name], WEB[0])?;
    }
    // The outside host sends what is for the cluster to a node.
    let outside = site.cluster.outside();
    let [node, _] = site.cluster.node(1).addresses();
    outside.ip(&format!("route add 10.96.0.10/32 via {node}\n"))?;
    let text = outside.run("dig", &["+tries=1", "+time=1", "@10.96.0.10", name])?.stdout;
    assert!(!text.contains(WEB[0]), "{text}");
    Ok(())
}

#[test]
fn a_services_address_works_from_the_moment_at_which_its_name_is_known() -> Result<()> {
    let site = Site::new(&Options { nodes: 1, ..Options::default() }, &[("client", 1), ("web-0", 1)])?;
    let client = site.client();
    expect(client, &["web.default.svc.cluster.local"], WEB[0])?;
    for n in 1..=8 {
        let (name, address) = (format!("new-{n}.default.svc.cluster.local"), format!("10.96.1.{n}"));
        site.cluster.apply(
            &format!("new-{n}.yaml"),
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: new-{n}}}\nspec: {{clusterIP: {address}, \
                 selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
            ),
        )?;
        wait_for(&name, LIMIT, || {
            let said = client.run("dig", &["+short", "+tries=1", "+time=1", &name])?.stdout;
            Ok((said.trim() == address).then_some(()))
        })?;
        // At once, and once.
        let answer = client.curl(&format!("http://{address}/")).map_err(|error| site.with_logs(&error))?;
        assert_eq!(answer.trim(), "web-0");
    }
    Ok(())
}
