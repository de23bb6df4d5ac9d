//! What a node is: its addresses and devices, which may change while it runs, and how it comes to be one.

use std::time::Instant;

use sluice_tests::cluster::{Node, OUTSIDE, Options, Workload, node_manifest};
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, url};

fn resync(more: &str) -> Options {
    // Nothing here may wait for a repair.
    Options { agent: format!("resyncPeriod: 1h\n{more}"), ..Options::default() }
}

/// Waits until a pod is seen under this address outside.
fn wait_seen_as(site: &Site, target: &str, address: &str) -> Result<()> {
    wait_for(&format!("{target} to see {address}"), LIMIT, || {
        let seen = site.client().seen_as("TCP", target)?;
        if seen == address { Ok(Some(())) } else { Err(Error::answer(target, seen)) }
    })
    .map_err(|error| site.with_logs(&error))
}

#[test]
fn a_nodes_address_changes_while_it_runs() -> Result<()> {
    let mut site = Site::new(&resync(""), &[("client", 1), ("web-0", 1), ("web-1", 2)])?;
    site.servers.who(site.cluster.outside(), 90)?;
    let [one, two] = [1, 2].map(|number| site.cluster.node(number));
    let old = one.addresses();
    let new = ["192.168.77.51".to_owned(), "fd77::51".to_owned()];
    for family in [0, 1] {
        wait_seen_as(&site, &format!("{}:90", bracketed(OUTSIDE[family])), &old[family])?;
    }
    one.host().ip(&format!(
        "address del {}/24 dev eth0\naddress del {}/64 dev eth0\naddress add {}/24 dev eth0\n\
         address add {}/64 dev eth0 nodad\n\
         route replace default via {}\nroute replace default via {}\n",
        old[0], old[1], new[0], new[1], OUTSIDE[0], OUTSIDE[1]
    ))?;
    let nodes = node_manifest(one.name(), &new, &one.pod_cidrs())
        + &node_manifest(two.name(), &two.addresses(), &two.pod_cidrs());
    site.cluster.apply("cluster.yaml", &nodes)?;
    for family in [0, 1] {
        wait_seen_as(&site, &format!("{}:90", bracketed(OUTSIDE[family])), &new[family])?;
        let target = format!("http://{}:{}/", bracketed(&new[family]), NODE_PORTS[0]);
        site.wait_spread(site.cluster.outside(), &target, 2)?;
        // The other node's pods answer by the new address.
        site.wait_spread(site.client(), &url(WEB[family]), 2)?;
        site.wait_spread(one.host(), &url(WEB[family]), 2)?;
    }
    Ok(())
}

#[test]
fn a_device_that_comes_later_is_an_uplink_with_an_address_of_its_own() -> Result<()> {
    let mut site = Site::new(&resync("uplinks: [eth0, eth1]\n"), &[("client", 1), ("web-0", 2)])?;
    let bed = site.cluster.bed().clone();
    let (lan, second) = (bed.switch("lan2")?, bed.host("second")?);
    lan.connect(&second, "eth0", &["198.51.100.9/24", "2001:db8:51::9/64"])?;
    second.ip("route add 192.168.77.0/24 via 198.51.100.1\n")?;
    site.servers.who(&second, 90)?;
    site.servers.who(site.cluster.outside(), 90)?;
    lan.connect(site.cluster.node(1).host(), "eth1", &["198.51.100.1/24", "2001:db8:51::1/64"])?;
    for (target, address) in [
        ("198.51.100.9:90", "198.51.100.1"),
        ("[2001:db8:51::9]:90", "2001:db8:51::1"),
        ("192.168.77.100:90", "192.168.77.1"),
    ] {
        wait_seen_as(&site, target, address)?;
    }
    // Node ports are served to those who come by it.
    site.wait_spread(&second, &format!("http://192.168.77.1:{}/", NODE_PORTS[0]), 1)
}

#[test]
fn node_ports_are_served_where_the_setting_says() -> Result<()> {
    let setting = "nodePortAddresses: [primary, localhost, 192.168.77.60/31]\n";
    let site = Site::new(&resync(setting), &[("client", 1), ("web-0", 2)])?;
    let node = site.cluster.node(1).host();
    let at = |address: &str| format!("http://{address}:{}/", NODE_PORTS[0]);
    // As a virtual address comes.
    node.ip("address add 192.168.77.60/32 dev eth0\naddress add 192.168.77.70/32 dev eth0\n")?;
    let outside = site.cluster.outside();
    for address in ["192.168.77.60", "192.168.77.1"] {
        site.wait_spread(outside, &at(address), 1)?;
        site.wait_spread(site.client(), &at(address), 1)?;
    }
    site.wait_spread(node, &at("127.0.0.1"), 1)?;
    let refused = outside.run("curl", &["-sS", "-m", "2", &at("192.168.77.70")])?;
    assert!(
        refused.stderr.contains("Connection refused") || refused.stderr.contains("Failed to connect"),
        "{refused:?}"
    );
    Ok(())
}

/// Whether the agent has said that pods can be attached: to the plugin, and to the container runtime.
fn says_ready(node: &Node) -> [bool; 2] {
    let conflist = node.cni_conf_dir().join("10-sluice.conflist");
    [node.state().join("node.json").exists(), conflist.exists()]
}

#[test]
fn no_pod_comes_before_the_node_has_networks_for_pods() -> Result<()> {
    let cluster = Cluster::without_agents(&Testbed::new()?, &Options { nodes: 1, ..resync("") })?;
    let node = cluster.node(1);
    cluster.apply("cluster.yaml", &node_manifest(node.name(), &node.addresses(), &[]))?;
    let foreign = node.cni_conf_dir().join("05-other.conflist");
    std::fs::create_dir_all(node.cni_conf_dir()).map_err(Error::file("make", node.cni_conf_dir()))?;
    std::fs::write(&foreign, "{}").map_err(Error::file("write", &foreign))?;
    node.start_agent()?;
    wait_for("the agent to say what it waits for", LIMIT, || {
        Ok(node.agent_log().contains("Node node1 has no spec.podCIDRs yet").then_some(()))
    })?;
    assert_eq!(says_ready(node), [false, false]);
    cluster.apply("cluster.yaml", &node_manifest(node.name(), &node.addresses(), &node.pod_cidrs()))?;
    wait_for("the node to be ready for pods", LIMIT, || Ok((says_ready(node) == [true, true]).then_some(())))
        .map_err(|error| Error::answer(error.to_string(), node.agent_log()))?;
    assert!(node.agent_log().contains("05-other.conflist goes before ours"), "{}", node.agent_log());
    assert_eq!(std::fs::read_to_string(&foreign).map_err(Error::file("read", &foreign))?, "{}");
    node.pod("first").map(drop)
}

#[test]
fn an_agent_may_be_killed_at_any_moment_of_joining() -> Result<()> {
    let mut options = resync("overlay: vxlan\n");
    options.nodes = 2;
    let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    // A second node that joins over and over: how long it takes, and then a kill at each of the moments before.
    let node = site.cluster.node(2);
    node.kill_agent()?;
    let mut took = None;
    for round in 0..8_u32 {
        node.cleanup()?;
        let start = Instant::now();
        node.start_agent()?;
        match took {
            None => {
                node.wait_ready()?;
                took = Some(start.elapsed());
            }
            // The moment is what is tried; nothing is waited for.
            Some(took) => std::thread::sleep(took * round / 8),
        }
        node.kill_agent()?;
        // What is half done is no hindrance: without cleaning up, every other time.
        if round % 2 == 1 {
            node.start_agent()?;
            node.wait_ready()?;
            node.kill_agent()?;
        }
    }
    node.start_agent()?;
    node.wait_ready()?;
    let pod = node.pod("late")?;
    let workload = Workload { name: "late", node: node.name(), app: "late", spec: "" };
    site.cluster.apply("late.yaml", &workload.manifest())?;
    for family in [0, 1] {
        site.wait_spread(pod.host(), &url(WEB[family]), 1)?;
        site.wait_spread(pod.host(), &format!("http://{}/", site.pod("web-0").url_hosts()[family]), 1)?;
        site.wait_spread(node.host(), &url(WEB[family]), 1)?;
    }
    Ok(())
}
