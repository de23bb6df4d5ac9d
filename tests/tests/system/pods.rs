//! Pods as the plugin makes and unmakes them.

use std::collections::BTreeSet;

use serde_json::json;
use sluice_tests::bed::Servers;
use sluice_tests::cluster::{Cluster, Options, Pod};
use sluice_tests::{Result, Testbed};

use crate::site::Site;

#[test]
fn pods_have_addresses_of_their_node_a_route_and_the_wires_mtu() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let pod = cluster.node(1).pod("one")?;
    let addresses: Vec<_> = pod.addresses().iter().map(ToString::to_string).collect();
    assert!(
        addresses[0].starts_with("10.244.1.") && addresses[1].starts_with("fd00:244:1:"),
        "{addresses:?}"
    );
    let own: Vec<_> = pod.host().addresses("eth0")?.iter().map(ToString::to_string).collect();
    assert_eq!(own, addresses);
    assert_eq!(pod.host().ip_json(&["link", "show", "dev", "eth0"])?[0]["mtu"], 1500);
    for family in ["-4", "-6"] {
        let routes = pod.host().ip_json(&[family, "route", "show", "default"])?;
        assert_eq!(routes[0]["dev"], "eth0", "{routes}");
    }
    Ok(())
}

#[test]
fn pods_without_addresses_have_the_bridge_to_themselves() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let pods = ["left", "right"].map(|name| node.pod_with(name, json!({ "ipam": {} })));
    let [left, right] = pods.into_iter().collect::<Result<Vec<_>>>()?.try_into().expect("two");
    let mut servers = Servers::new();
    for (pod, number) in [(&left, 1), (&right, 2)] {
        let pod: &Pod = pod;
        assert!(pod.addresses().is_empty());
        pod.host().succeed("ip", &["address", "add", &format!("203.0.113.{number}/24"), "dev", "eth0"])?;
        servers.http(pod.host(), 80, pod.name())?;
    }
    let with_addresses = node.pod("usual")?;
    servers.http(with_addresses.host(), 80, "usual")?;
    let each_other = || -> Result<()> {
        assert_eq!(left.host().curl("http://203.0.113.2/")?, "right\n");
        assert_eq!(right.host().curl("http://203.0.113.1/")?, "left\n");
        let usual = format!("http://{}/", with_addresses.addresses()[0]);
        assert_eq!(node.host().curl(&usual)?, "usual\n");
        Ok(())
    };
    each_other()?;
    // An agent that finds them there lets them be.
    node.kill_agent()?;
    node.start_agent()?;
    node.wait_ready()?;
    each_other()?;
    left.delete()?;
    right.delete()
}

#[test]
fn a_deleted_pod_leaves_the_node_as_it_was() -> Result<()> {
    let mut site = Site::usual(true)?;
    let node = site.cluster.node(1).host().netns().to_owned();
    let links = |site: &Site| -> Result<BTreeSet<String>> {
        assert_eq!(site.cluster.node(1).host().netns(), node);
        let listed = site.cluster.node(1).host().ip_json(&["link", "show"])?;
        let names = listed.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        Ok(names.map(str::to_owned).collect())
    };
    let before = links(&site)?;
    site.add("late-0", 1)?;
    assert_eq!(links(&site)?.len(), before.len() + 1);
    site.take("late-0")?.delete()?;
    assert_eq!(links(&site)?, before);
    Ok(())
}

#[test]
fn addresses_are_never_given_twice() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let pods =
        (0..12).map(|number| cluster.node(1).pod(&format!("pod-{number}"))).collect::<Result<Vec<_>>>()?;
    let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| pod.addresses().to_vec()).collect();
    assert_eq!(addresses.len(), 24);
    Ok(())
}

#[test]
fn pods_of_a_node_reach_each_other_without_an_agent() -> Result<()> {
    let bed = Testbed::new()?;
    let cluster = Cluster::without_agents(&bed, &Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    // What an agent of another day has left.
    let [pods4, pods6] = node.pod_cidrs();
    let description = format!("{{\"podCIDRs\": [\"{pods4}\", \"{pods6}\"], \"mtu\": 1500}}");
    std::fs::write(node.state().join("node.json"), description).unwrap();
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    let mut servers = Servers::new();
    servers.http(server.host(), 80, "server")?;
    for host in server.url_hosts() {
        assert_eq!(client.curl(&format!("http://{host}/"))?, "server\n", "{host}");
    }
    Ok(())
}
