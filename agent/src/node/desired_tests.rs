//! Tables for what the datapath and the plugin are told of the node.

use sluice_ebpf_common::{NETWORK_LOCAL_PODS, NETWORK_NO_MASQUERADE};

use super::*;
use crate::{
    config::{DetectLocal, Settings},
    node::plan::tests::{config, fresh, names, snapshot},
};

#[test]
fn gateways_are_the_first_addresses() {
    let table = [
        ("10.244.1.0/24", Some("10.244.1.1/24")),
        ("fd00:1::/64", Some("fd00:1::1/64")),
        ("10.244.1.4/31", Some("10.244.1.5/31")),
        ("10.244.1.4/32", None),
    ];
    for (network, expected) in table {
        let found: Vec<_> = gateways(&[network.parse().unwrap()]).iter().map(ToString::to_string).collect();
        assert_eq!(found.first().map(String::as_str), expected, "{network}");
    }
}

#[test]
fn uplinks_are_found_by_default_route_and_by_address_or_told() {
    let found = fresh();
    let snapshot = snapshot();
    let this = snapshot.nodes.get("one").map(|node| &**node);
    assert_eq!(names(&uplinks(&found, None, this, "sluice0")), ["eth0", "eth1"]);
    assert_eq!(names(&uplinks(&found, None, None, "sluice0")), ["eth1"]);
    let told = ["eth2".to_owned(), "missing".to_owned()];
    assert_eq!(names(&uplinks(&found, Some(&told), this, "sluice0")), ["eth2"]);
}

#[test]
fn what_the_datapath_is_told() {
    let Facts { sources, addresses, networks, mtu, .. } = facts(&config(|_| {}), &snapshot(), &fresh());
    let source = |index: u32| {
        let uplink = sources[&index];
        let text = |addr| std::net::IpAddr::from(addr).to_string();
        (text(uplink.v4), text(uplink.v6))
    };
    // The Node's own address before another that the device holds.
    assert_eq!(source(2), ("192.0.2.1".into(), "2001:db8::1".into()));
    assert_eq!(source(3), ("198.51.100.1".into(), "::".into()));
    assert_eq!(source(0), ("192.0.2.1".into(), "2001:db8::1".into()));
    let with = |wanted| {
        addresses.iter().filter(move |(_, flags)| **flags == wanted).map(|(ip, _)| ip.to_string()).collect()
    };
    let (ports, inner): (Vec<String>, Vec<String>) = (with(NODE_ADDRESS_PORTS), with(NODE_ADDRESS_INNER));
    let others: Vec<String> = with(0);
    assert_eq!(ports, ["192.0.2.1", "2001:db8::1"], "the primary ones");
    assert_eq!(others, ["192.0.2.77", "198.51.100.1"]);
    assert_eq!(inner, ["127.0.0.1", "::1"]);
    assert_eq!(mtu, 1400);
    let flags = |text: &str| networks.get(&text.parse().unwrap()).copied();
    assert_eq!(flags("10.244.1.0/24"), Some(NETWORK_NO_MASQUERADE | NETWORK_LOCAL_PODS));
    assert_eq!(flags("10.244.2.0/24"), Some(NETWORK_NO_MASQUERADE));
    assert_eq!(flags("192.0.2.2/32"), Some(NETWORK_NO_MASQUERADE));
    assert_eq!(flags("192.168.0.0/16"), Some(NETWORK_NO_MASQUERADE));
    assert_eq!(networks.len(), 6);
}

#[test]
fn node_ports_are_served_where_it_is_said() {
    let every = ["127.0.0.1", "192.0.2.1", "192.0.2.77", "198.51.100.1", "203.0.113.1", "::1", "2001:db8::1"];
    let table: [(&[&str], &[&str]); 8] = [
        (&["primary"], &["192.0.2.1", "2001:db8::1"]),
        (&["primary", "localhost"], &["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"]),
        (&["all"], &every),
        (&["0.0.0.0/0", "::/0"], &["192.0.2.1", "192.0.2.77", "198.51.100.1", "203.0.113.1", "2001:db8::1"]),
        // Networks of one family leave the other as it is.
        (&["203.0.113.0/24"], &["203.0.113.1", "2001:db8::1"]),
        (&["203.0.113.0/24", "2001:db8:7::/64"], &["203.0.113.1"]),
        (&["203.0.113.0/24", "primary"], &["192.0.2.1", "203.0.113.1", "2001:db8::1"]),
        (&["127.0.0.0/8", "::1/128"], &["127.0.0.1", "::1"]),
    ];
    for (wanted, expected) in table {
        let config = config(|settings| {
            let entries = wanted.iter().map(|text| text.parse().unwrap());
            settings.node_port_addresses = Some(entries.collect());
        });
        let served: BTreeSet<_> = facts(&config, &snapshot(), &fresh())
            .addresses
            .into_iter()
            .filter(|(_, flags)| flags & NODE_ADDRESS_PORTS != 0)
            .map(|(ip, _)| ip)
            .collect();
        let expected: BTreeSet<_> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(served, expected, "{wanted:?}");
    }
}

#[test]
fn who_is_of_the_cluster_is_told_by_networks() {
    let networks = |change: &dyn Fn(&mut Settings)| {
        let facts = facts(&config(change), &snapshot(), &fresh());
        let local = facts.networks.iter().filter(|(_, flags)| **flags & NETWORK_LOCAL_PODS != 0);
        local.map(|(network, flags)| format!("{network} {flags}")).collect::<Vec<_>>()
    };
    let both = NETWORK_LOCAL_PODS | NETWORK_NO_MASQUERADE;
    assert_eq!(networks(&|_| {}), [format!("10.244.1.0/24 {both}"), format!("fd00:1::/64 {both}")]);
    assert_eq!(networks(&|set| set.detect_local = Some(DetectLocal::Interface)), [""; 0]);
    // The networks of nodes are narrower, and 192.168.0.0/16 lies around the last: what held for them still does.
    let cluster = networks(&|set| {
        set.detect_local = Some(DetectLocal::ClusterCidr);
        let cidrs = ["10.244.0.0/16", "192.168.7.0/24"];
        set.cluster_cidrs = Some(cidrs.map(|text| text.parse().unwrap()).to_vec());
    });
    let expected = [
        format!("10.244.0.0/16 {NETWORK_LOCAL_PODS}"),
        format!("10.244.1.0/24 {both}"),
        format!("10.244.2.0/24 {both}"),
        format!("192.168.7.0/24 {both}"),
    ];
    assert_eq!(cluster, expected);
}
