//! Sources: pods leave the cluster under their node's address, and keep their own within it.

use sluice_tests::Result;
use sluice_tests::cluster::{OUTSIDE, WORLD};

use crate::site::{Site, bracketed};

#[test]
fn pods_leave_the_cluster_under_their_nodes_address() -> Result<()> {
    let mut site = Site::usual(true)?;
    site.servers.who(site.cluster.outside(), 90)?;
    for family in [0, 1] {
        let node = &site.cluster.node(1).addresses()[family];
        for (protocol, address) in
            [("TCP", WORLD[family]), ("TCP", OUTSIDE[family]), ("UDP", OUTSIDE[family])]
        {
            let target = format!("{}:90", bracketed(address));
            assert_eq!(&site.client().seen_as(protocol, &target)?, node, "{protocol} to {target}");
        }
        site.client().succeed("busybox", &["ping", "-c", "1", "-W", "2", WORLD[family]])?;
    }
    Ok(())
}

/// An API server that is no node reaches pods like this, by routes that somebody has made.
#[test]
fn a_visitor_from_outside_is_answered_from_the_pods_own_address() -> Result<()> {
    let mut site = Site::usual(true)?;
    let outside = site.cluster.outside();
    for (family, visitor) in OUTSIDE.into_iter().enumerate() {
        let node = site.cluster.node(1);
        let [network, way] = [&node.pod_cidrs()[family], &node.addresses()[family]];
        outside.ip(&format!("route add {network} via {way}"))?;
        let pod = &site.pod("web-0").url_hosts()[family];
        for protocol in ["TCP", "UDP"] {
            assert_eq!(outside.seen_as(protocol, &format!("{pod}:90"))?, visitor, "{protocol} to {pod}");
        }
        outside.succeed("busybox", &["ping", "-c", "1", "-W", "2", pod.trim_matches(['[', ']'])])?;
    }
    // What the pod begins itself is another matter, also towards the same visitor.
    site.servers.who(site.cluster.outside(), 90)?;
    let seen = site.pod("web-0").host().seen_as("TCP", &format!("{}:90", OUTSIDE[0]))?;
    assert_eq!(seen, site.cluster.node(1).addresses()[0]);
    Ok(())
}

#[test]
fn the_node_itself_goes_out_under_its_own_address() -> Result<()> {
    let mut site = Site::usual(true)?;
    site.servers.who(site.cluster.outside(), 90)?;
    for (family, address) in OUTSIDE.into_iter().enumerate() {
        let target = format!("{}:90", bracketed(address));
        let seen = site.cluster.node(2).host().seen_as("TCP", &target)?;
        assert_eq!(seen, site.cluster.node(2).addresses()[family]);
    }
    Ok(())
}

#[test]
fn pods_see_each_others_own_addresses() -> Result<()> {
    let site = Site::usual(true)?;
    for server in ["web-0", "web-1"] {
        for (family, host) in site.pod(server).url_hosts().iter().enumerate() {
            let own = site.pod("client").addresses()[family].to_string();
            for protocol in ["TCP", "UDP"] {
                assert_eq!(
                    site.client().seen_as(protocol, &format!("{host}:90"))?,
                    own,
                    "{protocol} to {server}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn two_pods_with_one_source_port_get_an_answer_each() -> Result<()> {
    let mut site = Site::usual(true)?;
    site.servers.who(site.cluster.outside(), 90)?;
    // Both flows would leave as <node>:4444 to the same address and port.
    for pod in ["client", "web-0", "client"] {
        let seen = site.pod(pod).host().ask_udp(&format!("{}:90", OUTSIDE[0]), 4444)?;
        assert!(!seen.is_empty(), "{pod}");
    }
    Ok(())
}
