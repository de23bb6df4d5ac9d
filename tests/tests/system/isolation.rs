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

/// What pings an address once.
fn ping(address: &str) -> [&str; 6] {
    ["ping", "-c", "1", "-W", "1", address]
}

/// No TCP connection comes about.
fn assert_silent(client: &Host, address: &str) -> Result<()> {
    let target = url(address);
    let asked = client.run("curl", &["--silent", "--noproxy", "*", "--max-time", "1", &target])?;
    // curl's numbers for a connection that cannot be made, and for one that nobody answers.
    assert!(matches!(asked.code, Some(7 | 28)), "{} reaches {target}: {asked:?}", client.name());
    Ok(())
}

/// Neither TCP nor a ping comes through.
fn assert_apart(client: &Host, server: &Pod) -> Result<()> {
    for address in server.addresses() {
        let address = address.to_string();
        assert_silent(client, &address)?;
        let output = client.run("busybox", &ping(&address))?;
        assert_eq!(output.code, Some(1), "{} pings {address}", client.name());
    }
    Ok(())
}

#[test]
fn isolated_pods_reach_everybody_but_each_other() -> Result<()> {
    assert_isolation(true)
}

#[test]
fn isolated_pods_reach_everybody_but_each_other_packet_by_packet() -> Result<()> {
    assert_isolation(false)
}

/// Two isolated pods beside others: whom they reach, and whom not.
fn assert_isolation(fast_path: bool) -> Result<()> {
    let cluster = Cluster::new(&Options { fast_path, ..Options::default() })?;
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
                isolated.host().succeed("busybox", &ping(&address.to_string()))?;
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
    // Services, by address and by name.
    for address in OPEN {
        assert_answers(client.host(), address, "open")?;
    }
    assert_eq!(client.host().curl("http://open/")?, "open\n");
    // A service is no way from one isolated pod of a node to another, but for everybody else.
    for address in HIDDEN {
        assert_silent(client.host(), address)?;
        assert_answers(open.host(), address, "hidden")?;
    }
    Ok(())
}
