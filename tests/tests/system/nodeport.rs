//! Node ports: from outside, on nodes with and without a backend, from the node itself, from pods.

use sluice_tests::Result;
use sluice_tests::cluster::{OUTSIDE, Options};

use crate::paths::on_both_paths;
use crate::site::{NODE_PORTS, Site, bracketed};

on_both_paths!(
    every_node_serves_from_outside_with_or_without_a_backend,
    the_node_itself_and_its_pods_reach_node_ports,
    a_connection_to_another_node_comes_back_the_same_way,
    the_nodes_own_servers_are_left_alone,
    loopback_addresses_serve_node_ports_to_the_node_where_that_is_asked_for,
);

/// The only backend is on the first node.
fn one_backend(fast_path: bool) -> Result<Site> {
    Site::new(&Options { fast_path, ..Options::default() }, &[("client", 1), ("web-0", 1)])
}

fn node_url(site: &Site, node: usize, family: usize) -> String {
    format!("http://{}:{}/", bracketed(&site.cluster.node(node).addresses()[family]), NODE_PORTS[0])
}

fn every_node_serves_from_outside_with_or_without_a_backend(fast_path: bool) -> Result<()> {
    let site = one_backend(fast_path)?;
    for node in [1, 2] {
        for family in [0, 1] {
            let url = node_url(&site, node, family);
            site.wait_spread(site.cluster.outside(), &url, 1)?;
            let target = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
            assert_eq!(site.cluster.outside().ask_udp(&target, 0)?, "web-0", "UDP {target}");
        }
    }
    Ok(())
}

fn the_node_itself_and_its_pods_reach_node_ports(fast_path: bool) -> Result<()> {
    let site = one_backend(fast_path)?;
    for family in [0, 1] {
        for node in [1, 2] {
            let url = node_url(&site, node, family);
            site.wait_spread(site.client(), &url, 1)?;
            site.wait_spread(site.cluster.node(1).host(), &url, 1)?;
            site.wait_spread(site.cluster.node(2).host(), &url, 1)?;
        }
    }
    Ok(())
}

fn a_connection_to_another_node_comes_back_the_same_way(fast_path: bool) -> Result<()> {
    let site = one_backend(fast_path)?;
    for family in [0, 1] {
        let address = &site.cluster.node(2).addresses()[family];
        site.wait_spread(site.cluster.outside(), &node_url(&site, 2, family), 1)?;
        let target = format!("{}:{}", bracketed(address), NODE_PORTS[1]);
        for protocol in ["TCP", "UDP"] {
            let seen = site.cluster.outside().seen_as(protocol, &target)?;
            assert_ne!(
                seen, OUTSIDE[family],
                "{protocol}: the backend would answer past the node that translated"
            );
        }
    }
    Ok(())
}

fn the_nodes_own_servers_are_left_alone(fast_path: bool) -> Result<()> {
    let mut site = one_backend(fast_path)?;
    let node = site.cluster.node(2);
    site.servers.http(node.host(), 8088, "the node's own")?;
    for address in node.addresses() {
        let answer = site.cluster.outside().curl(&format!("http://{}:8088/", bracketed(&address)))?;
        assert_eq!(answer, "the node's own\n");
    }
    Ok(())
}

fn loopback_addresses_serve_node_ports_to_the_node_where_that_is_asked_for(fast_path: bool) -> Result<()> {
    let agent = "nodePortAddresses: [primary, localhost]\n".to_owned();
    let options = Options { fast_path, agent, ..Options::default() };
    // A backend on another node: it must see the node's address, and the answer must find its way to the loopback.
    let site = Site::new(&options, &[("client", 1), ("web-1", 2)])?;
    let node = site.cluster.node(1).host();
    for (family, loopback) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        let port = NODE_PORTS[0];
        let target = format!("{}:{port}", bracketed(loopback));
        let url = format!("http://{target}/");
        assert_eq!(node.curl(&url)?.trim(), "web-1", "TCP {target}");
        // By a socket that is bound to another of the node's addresses, which the answer from the loopback must reach.
        let own = &site.cluster.node(1).addresses()[family];
        let bound = ["-g", "-sS", "--max-time", "3", "--interface", own, &url];
        assert_eq!(node.succeed("curl", &bound)?.trim(), "web-1", "TCP {target} from {own}");
        assert_eq!(node.ask_udp(&target, 0)?, "web-1", "UDP {target}");
    }
    // Without being asked for, they are the node's own affair.
    let options = Options { fast_path, ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-1", 2)])?;
    let refused = site.cluster.node(1).host().curl(&format!("http://127.0.0.1:{}/", NODE_PORTS[0]));
    assert!(refused.is_err(), "{refused:?}");
    Ok(())
}
