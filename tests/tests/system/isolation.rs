//! Pods that the bridge keeps apart (`portIsolation`), where the datapath knows shorter ways than the bridge.

use serde_json::json;
use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{OUTSIDE, Options, Pod, Workload, service};
use sluice_tests::{Cluster, Result, wait_for};

use crate::site::{LIMIT, url};

/// A service over a pod that is not isolated, and one over a pod that is.
const OPEN: [&str; 2] = ["10.96.0.30", "fd00:96::30"];
const HIDDEN: [&str; 2] = ["10.96.0.31", "fd00:96::31"];

fn over(name: &str, [ip4, ip6]: [&str; 2]) -> String {
    let spec = format!(
        "clusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports: [{port}]",
        port = "{port: 80}"
    );
    service(name, &spec)
}

fn assert_answers(client: &Host, address: &str, name: &str) -> Result<()> {
    let answer = client.curl(&url(address))?;
    assert_eq!(answer, format!("{name}\n"), "{} to {address}", client.name());
    Ok(())
}

/// Neither TCP nor a ping comes through.
fn assert_apart(client: &Host, server: &Pod) -> Result<()> {
    for address in server.addresses() {
        let target = url(&address.to_string());
        let asked = client.run("curl", &["--silent", "--max-time", "1", &target])?;
        assert!(!asked.status.success(), "{} reaches {target}", client.name());
        let output = client.run("ping", &["-c", "1", "-W", "1", &address.to_string()])?;
        assert!(!output.status.success(), "{} pings {address}", client.name());
    }
    Ok(())
}

#[test]
fn isolated_pods_reach_everybody_but_each_other() -> Result<()> {
    let cluster = Cluster::new(&Options::default())?;
    let [one, two] = [1, 2].map(|number| cluster.node(number));
    let isolated = || json!({ "portIsolation": true });
    let (client, hidden) = (one.pod_with("client", isolated())?, one.pod_with("hidden", isolated())?);
    let (open, far) = (one.pod("open")?, two.pod("far")?);
    let mut servers = Servers::new();
    for pod in [&client, &hidden, &open, &far] {
        servers.http(pod.host(), 80, pod.name())?;
    }
    servers.http(one.host(), 80, "node")?;
    servers.http(cluster.outside(), 80, "outside")?;
    for (pod, addresses) in [(&open, OPEN), (&hidden, HIDDEN)] {
        let name = pod.name();
        let workload = Workload { name, node: one.name(), app: name, spec: "" };
        cluster.apply(&format!("{name}.yaml"), &(workload.manifest() + &over(name, addresses)))?;
        wait_for("the service", LIMIT, || {
            Ok((far.host().curl(&url(addresses[1]))? == format!("{name}\n")).then_some(()))
        })?;
    }

    assert_apart(client.host(), &hidden)?;
    assert_apart(hidden.host(), &client)?;

    // Everybody else, both ways.
    for peer in [&open, &far] {
        for isolated in [&client, &hidden] {
            for address in peer.addresses() {
                assert_answers(isolated.host(), &address.to_string(), peer.name())?;
            }
            for address in isolated.addresses() {
                assert_answers(peer.host(), &address.to_string(), isolated.name())?;
                assert_answers(one.host(), &address.to_string(), isolated.name())?;
            }
        }
    }
    // The gateways, the node's own addresses, and what is behind them.
    for address in ["10.244.1.1", "fd00:244:1::1"].map(str::to_owned).into_iter().chain(one.addresses()) {
        assert_answers(client.host(), &address, "node")?;
    }
    for address in OUTSIDE {
        assert_answers(client.host(), address, "outside")?;
    }
    // Services, by address and by name; who makes one over an isolated pod opens it to the others.
    for address in OPEN {
        assert_answers(client.host(), address, "open")?;
    }
    assert_eq!(client.host().curl("http://open/")?, "open\n");
    for address in HIDDEN {
        assert_answers(client.host(), address, "hidden")?;
    }
    assert_apart(client.host(), &hidden)
}
