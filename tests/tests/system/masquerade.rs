//! Sources: pods leave the cluster under their node's address, and keep their own within it.

use sluice_tests::Result;
use sluice_tests::cluster::{OUTSIDE, WORLD};

use crate::site::{Site, bracketed};

#[test]
fn pods_leave_the_cluster_under_their_nodes_address() -> Result<()> {
    let mut site = Site::usual(true)?;
    site.servers.who(site.cluster.outside(), 90)?;
    for (family, address) in WORLD.into_iter().enumerate() {
        let target = format!("{}:90", bracketed(address));
        for protocol in ["TCP", "UDP"] {
            let seen = site.client().seen_as(protocol, &target)?;
            assert_eq!(seen, site.cluster.node(1).addresses()[family], "{protocol} to {target}");
        }
        site.client().succeed("ping", &["-c", "1", "-W", "2", address])?;
    }
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
        let script = format!("echo | socat -T 3 -t 3 - UDP:{}:90,sourceport=4444,reuseaddr", WORLD[0]);
        let seen = site.pod(pod).host().succeed("sh", &["-c", &script])?;
        assert!(seen.contains(&site.cluster.node(1).addresses()[0]), "{pod}: {seen}");
    }
    Ok(())
}
