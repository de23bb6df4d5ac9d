//! What is not ours is never touched, and what is ours and damaged is repaired.

use sluice_tests::Result;
use sluice_tests::cluster::Options;

use crate::site::{Site, WEB, url};

/// A node with devices, addresses, routes and neighbours of someone else.
const FOREIGN: &str = "link add foreign0 type bridge
link add veth12345678 type veth peer name sluice99
link set foreign0 up
link set veth12345678 up
link set sluice99 up
address add 172.30.0.1/24 dev foreign0
address add 2001:db8:30::1/64 dev foreign0 nodad
route add 10.244.77.0/24 dev veth12345678
route add 198.51.100.0/24 via 192.168.77.100 proto static
";

fn foreign_state(site: &Site, node: usize) -> Result<String> {
    let host = site.cluster.node(node).host();
    let mut text = String::new();
    for device in ["foreign0", "veth12345678", "sluice99"] {
        let mut link = host.ip_json(&["address", "show", "dev", device])?;
        // The interface's own link-local address comes when it comes.
        if let Some(infos) = link[0]["addr_info"].as_array_mut() {
            infos.retain(|info| info["scope"] != "link");
        }
        // These count and change of themselves.
        for changing in ["operstate", "linkinfo"] {
            link[0][changing] = serde_json::Value::Null;
        }
        text += &link.to_string();
    }
    for prefix in ["10.244.77.0/24", "198.51.100.0/24"] {
        text += &host.ip_json(&["route", "show", prefix])?.to_string();
    }
    Ok(text)
}

#[test]
fn foreign_devices_and_routes_are_left_untouched() -> Result<()> {
    let site = Site::new(&Options { nodes: 1, ..Options::default() }, &[("client", 1), ("web-0", 1)])?;
    let node = site.cluster.node(1);
    node.host().ip(FOREIGN)?;
    let before = foreign_state(&site, 1)?;
    node.kill_agent()?;
    node.start_agent()?;
    node.wait_ready()?;
    site.wait_spread(site.client(), &url(WEB[0]), 1)?;
    site.cluster.withdraw("web.yaml")?;
    site.cluster.apply("again.yaml", &crate::site::web_service(""))?;
    site.wait_spread(site.client(), &url(WEB[0]), 1)?;
    assert_eq!(foreign_state(&site, 1)?, before);
    Ok(())
}

#[test]
fn a_route_to_another_node_that_someone_deletes_comes_back() -> Result<()> {
    let options = Options { agent: "resyncPeriod: 1s\n".into(), ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-1", 2)])?;
    for (family, cidr) in site.cluster.node(2).pod_cidrs().iter().enumerate() {
        site.cluster.node(1).host().ip(&format!("route delete {cidr}\n"))?;
        let url = format!("http://{}/", site.pod("web-1").url_hosts()[family]);
        site.wait_spread(site.client(), &url, 1)?;
    }
    Ok(())
}
