//! Tables for what the node should have and how it gets there.

use std::collections::BTreeSet;

use sluice_ebpf_common::{NETWORK_NO_MASQUERADE, NETWORK_OVERLAY, OVERLAY_UPLINK};
use sluice_model::{Changes, Node, NodeAddress, NodeAddressKind, Object, ObjectKey, Snapshot};
use sluice_netlink::owned::{OVERLAY_DEVICE, OVERLAY_DEVICE_V6};

use super::*;
use crate::{
    config::{Config, OverlayMode, Settings},
    node::{
        desired::{facts, wanted},
        found::{Device, FoundRoute, Peers},
    },
};

pub(in crate::node) fn config(change: impl FnOnce(&mut Settings)) -> Config {
    let mut settings = Settings {
        node_name: Some("one".into()),
        manifests: Some("/m".into()),
        non_masquerade_cidrs: Some(vec!["192.168.0.0/16".parse().unwrap()]),
        ..Settings::default()
    };
    change(&mut settings);
    Config::new(settings).unwrap()
}

fn node(name: &str, address: &str, cidrs: &[&str]) -> Node {
    Node {
        name: name.into(),
        addresses: vec![NodeAddress { kind: NodeAddressKind::Internal, address: address.parse().unwrap() }],
        pod_cidrs: cidrs.iter().map(|text| text.parse().unwrap()).collect(),
        zone: None,
        draining: false,
    }
}

pub(in crate::node) fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let cidrs = ["10.244.1.0/24", "fd00:1::/64"];
    for node in [node("one", "192.0.2.1", &cidrs), node("two", "192.0.2.2", &["10.244.2.0/24"])] {
        snapshot.apply(Object::Node(node), &mut Changes::default());
    }
    snapshot
}

/// A node as it comes: a loopback device, one with the node's address, one with the default route.
pub(in crate::node) fn fresh() -> Found {
    let device = |index, loopback| Device { index, mtu: 1400, up: true, loopback, ..Device::default() };
    let mut found = Found::default();
    for (name, index) in [("lo", 1), ("eth0", 2), ("eth1", 3), ("eth2", 4)] {
        found.devices.insert(name.into(), device(index, name == "lo"));
    }
    let address = |name: &str, text: &str| (name.to_owned(), text.parse().unwrap());
    found.addresses = vec![
        address("lo", "127.0.0.1/8"),
        address("eth0", "192.0.2.77/24"),
        address("eth0", "192.0.2.1/24"),
        address("eth0", "2001:db8::1/64"),
        address("eth1", "198.51.100.1/24"),
        address("eth2", "203.0.113.1/24"),
    ];
    found.routes = vec![FoundRoute {
        destination: "0.0.0.0/0".parse().unwrap(),
        via: Some("198.51.100.254".parse().unwrap()),
        device: Some("eth1".into()),
        source: None,
        mtu: None,
        ours: false,
    }];
    found
}

pub(in crate::node) fn names(set: &BTreeSet<String>) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

/// What the operations would make of the node.
fn carry_out(found: &mut Found, ops: &[NodeOp]) {
    for op in ops {
        match op {
            NodeOp::CreateBridge { name, mac, mtu } => {
                let device = Device { index: 50, mac: Some(*mac), mtu: *mtu, ..Device::default() };
                assert!(found.devices.insert(name.clone(), device).is_none());
            }
            NodeOp::CreateServicePair { mtu } => {
                for (index, name) in [(60, SERVICE_DEVICE), (61, SERVICE_PEER_DEVICE)] {
                    let device =
                        Device { index, mac: Some(NODE_MAC), mtu: *mtu, noarp: true, ..Device::default() };
                    found.devices.insert(name.into(), device);
                }
            }
            NodeOp::CreateOverlay { device: name, tunnel, mac, mtu } => {
                let tunnel = Some(*tunnel);
                let device = Device { index: 70, mac: Some(*mac), mtu: *mtu, tunnel, ..Device::default() };
                found.devices.insert((*name).into(), device);
                found.overlays.insert(name, Peers::default());
            }
            NodeOp::RemoveOverlay { device } => {
                found.devices.remove(*device).unwrap();
                found.overlays.remove(device);
            }
            NodeOp::PutForwarding { device, .. } => {
                assert!(found.devices.contains_key(*device));
                found.enter(op);
            }
            NodeOp::RemoveForwarding { device, mac, remote } => {
                assert!(found.overlays[device].forwarding.contains(&(*mac, *remote)));
                found.enter(op);
            }
            NodeOp::PutNextHop { device, mac, .. } => {
                let known = &found.overlays[device].forwarding;
                assert!(known.iter().any(|(held, _)| held == mac), "the node before its next hop");
                found.enter(op);
            }
            NodeOp::RemoveNextHop { device, hop } => {
                assert!(found.overlays[device].next_hops.contains_key(hop));
                found.enter(op);
            }
            NodeOp::SetMtu { device, mtu } => found.devices.get_mut(device).unwrap().mtu = *mtu,
            NodeOp::SetMac { device, mac } => found.devices.get_mut(device).unwrap().mac = Some(*mac),
            NodeOp::SetNoArp { device } => found.devices.get_mut(device).unwrap().noarp = true,
            NodeOp::SetUp { device } => found.devices.get_mut(device).unwrap().up = true,
            NodeOp::Sysctl { name, value } => drop(found.sysctls.insert(name.clone(), value.clone())),
            NodeOp::AddAddress { device, address } => {
                assert!(found.devices.contains_key(device), "{device} is there before its address");
                found.addresses.push((device.clone(), *address));
            }
            NodeOp::RemoveAddress { device, address } => {
                found.addresses.retain(|held| *held != (device.clone(), *address));
            }
        }
    }
}

fn plan_for(config: &Config, found: &Found, dns: &[&str]) -> Vec<NodeOp> {
    let facts = facts(config, &snapshot(), found);
    let dns = dns.iter().map(|text| text.parse().unwrap()).collect();
    plan(&wanted(config, &facts, found, &dns, |_, _| [2, 0, 0, 0, 0, 7]), found)
}

/// The state of the overlay as text.
fn overlay(found: &Found) -> Vec<String> {
    let peers = found.overlays.values();
    let nodes = peers.clone().flat_map(|peers| &peers.forwarding).map(|(_, remote)| format!("node {remote}"));
    nodes.chain(peers.flat_map(|peers| peers.next_hops.keys()).map(|hop| format!("hop {hop}"))).collect()
}

#[test]
fn the_overlay_follows_the_nodes_and_goes_when_it_is_not_wanted() {
    let mut found = fresh();
    let mut snapshot = snapshot();
    let put = |snapshot: &mut Snapshot, name: &str, address: &str, cidr: &str| {
        snapshot.apply(Object::Node(node(name, address, &[cidr])), &mut Changes::default());
    };
    let pass = |config: &Config, snapshot: &Snapshot, found: &mut Found| {
        let facts = facts(config, snapshot, found);
        let wanted = wanted(config, &facts, found, &BTreeSet::new(), |_, _| [2, 0, 0, 0, 0, 7]);
        let before = found.clone();
        carry_out(found, &plan(&wanted, &before));
        carry_out(found, &remains(&wanted, &before));
        let (again, left) = (plan(&wanted, found), remains(&wanted, found));
        assert!(again.is_empty() && left.is_empty(), "{again:?} {left:?}");
        facts
    };
    let auto = config(|_| {});
    let facts = pass(&auto, &snapshot, &mut found);
    assert!(!found.devices.contains_key(OVERLAY_DEVICE), "all nodes are on a common network");
    assert_eq!(facts.mtu, 1400);

    put(&mut snapshot, "far", "203.0.114.9", "10.244.9.0/24");
    let facts = pass(&auto, &snapshot, &mut found);
    assert_eq!(overlay(&found), ["node 203.0.114.9", "hop 10.244.9.1"]);
    assert_eq!((facts.mtu, found.devices[OVERLAY_DEVICE].mtu), (1350, 1350));
    // Pods there see pods' own addresses, and this node's in the overlay; the node there sees this node's.
    let flags = |text: &str| facts.networks.get(&text.parse().unwrap()).copied();
    assert_eq!(flags("10.244.9.0/24"), Some(NETWORK_NO_MASQUERADE | NETWORK_OVERLAY));
    assert_eq!((flags("203.0.114.9/32"), flags("192.0.2.2/32")), (None, Some(NETWORK_NO_MASQUERADE)));
    assert_eq!(std::net::IpAddr::from(facts.sources[&OVERLAY_UPLINK].v4).to_string(), "10.244.1.1");

    // It moves, gets another network, and another one comes.
    put(&mut snapshot, "far", "203.0.114.10", "10.244.10.0/24");
    put(&mut snapshot, "farther", "203.0.115.1", "10.244.11.0/24");
    pass(&auto, &snapshot, &mut found);
    assert_eq!(
        overlay(&found).iter().cloned().collect::<BTreeSet<_>>(),
        ["node 203.0.114.10", "node 203.0.115.1", "hop 10.244.10.1", "hop 10.244.11.1"]
            .map(str::to_owned)
            .into()
    );

    // Somebody deletes the device; somebody makes another of its name.
    found.devices.remove(OVERLAY_DEVICE);
    pass(&auto, &snapshot, &mut found);
    assert_eq!(overlay(&found).len(), 4);
    found.devices.get_mut(OVERLAY_DEVICE).unwrap().tunnel.as_mut().unwrap().port = 4789;
    pass(&auto, &snapshot, &mut found);
    assert_eq!((overlay(&found).len(), found.devices[OVERLAY_DEVICE].tunnel.unwrap().port), (4, 8472));

    // Without a Node of this one, nobody can say whether it is needed.
    let mut unknown = snapshot.clone();
    unknown.remove(&ObjectKey::Node("one".into()), &mut Changes::default());
    pass(&auto, &unknown, &mut found);
    assert!(found.devices.contains_key(OVERLAY_DEVICE));

    pass(&config(|settings| settings.overlay = Some(OverlayMode::Direct)), &snapshot, &mut found);
    assert!(!found.devices.contains_key(OVERLAY_DEVICE));
    pass(&config(|settings| settings.overlay = Some(OverlayMode::Vxlan)), &snapshot, &mut found);
    assert_eq!(overlay(&found).len(), 6, "the node on the common network, too");
    pass(&config(|settings| settings.routes = Some(false)), &snapshot, &mut found);
    assert!(!found.devices.contains_key(OVERLAY_DEVICE));
}

#[test]
fn nodes_of_either_family_are_reached_by_a_device_for_each() {
    let mut found = fresh();
    let mut snapshot = Snapshot::default();
    let mut put = |name: &str, addresses: &[&str], cidr: &str| {
        let mut object = node(name, addresses[0], &[cidr]);
        let more = addresses[1..].iter().map(|text| text.parse().unwrap());
        object.addresses.extend(more.map(|address| NodeAddress { kind: NodeAddressKind::Internal, address }));
        snapshot.apply(Object::Node(object), &mut Changes::default());
    };
    put("one", &["192.0.2.1", "2001:db8::1"], "10.244.1.0/24");
    put("both", &["203.0.114.2", "2001:db8:2::2"], "10.244.2.0/24");
    put("four", &["203.0.114.3"], "10.244.3.0/24");
    put("six", &["2001:db8:2::4"], "10.244.4.0/24");
    let auto = config(|_| {});
    let facts = facts(&auto, &snapshot, &found);
    let wanted = wanted(&auto, &facts, &found, &BTreeSet::new(), |_, _| [2, 0, 0, 0, 0, 7]);
    let before = found.clone();
    carry_out(&mut found, &plan(&wanted, &before));
    let behind = |device: &str| -> Vec<String> {
        found.overlays[device].forwarding.iter().map(|(_, remote)| remote.to_string()).collect()
    };
    let (v4, v6) = (behind(OVERLAY_DEVICE), behind(OVERLAY_DEVICE_V6));
    assert_eq!(v4.iter().map(String::as_str).collect::<BTreeSet<_>>(), ["203.0.114.2", "203.0.114.3"].into());
    assert_eq!(v6, ["2001:db8:2::4"]);
    let mtus = [OVERLAY_DEVICE, OVERLAY_DEVICE_V6].map(|device| found.devices[device].mtu);
    assert_eq!((mtus, facts.mtu), ([1350, 1330], 1330), "what fits through both");
    assert_eq!(plan(&wanted, &found), []);
}

#[test]
fn a_fresh_node_gets_everything_once() {
    let mut found = fresh();
    let config = config(|_| {});
    let ops = plan_for(&config, &found, &["10.96.0.10", "fd00::a"]);
    let said: Vec<_> = ops.iter().map(ToString::to_string).collect();
    for expected in [
        "create bridge sluice0 mtu 1400",
        "create sluice-svc mtu 1400",
        "switch on sluice0",
        "set net/ipv4/ip_forward to 1",
        "set net/ipv6/conf/all/forwarding to 1",
        "set net/ipv4/conf/sluice-svc/rp_filter to 0",
        "add 10.244.1.1/24 to sluice0",
        "add fd00:1::1/64 to sluice0",
        "add 10.96.0.10/32 to sluice-svc",
        "add fd00::a/128 to sluice-svc",
    ] {
        assert!(said.iter().any(|op| op == expected), "{expected} in {said:#?}");
    }
    carry_out(&mut found, &ops);
    assert_eq!(plan_for(&config, &found, &["10.96.0.10", "fd00::a"]), [], "nothing is left to do");
}

#[test]
fn drift_is_repaired_and_nothing_else_touched() {
    let mut found = fresh();
    let config = config(|_| {});
    let ops = plan_for(&config, &found, &["10.96.0.10"]);
    carry_out(&mut found, &ops);
    found.devices.get_mut(SERVICE_DEVICE).unwrap().up = false;
    found.addresses.retain(|(_, address)| address.to_string() != "10.244.1.1/24");
    found.addresses.push((config.bridge.clone(), "10.9.9.9/24".parse().unwrap()));
    found.sysctls.insert("net/ipv4/ip_forward".into(), "0".into());
    let said: Vec<_> = plan_for(&config, &found, &["10.96.0.11"]).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "switch on sluice-svc",
            "set net/ipv4/ip_forward to 1",
            "add 10.244.1.1/24 to sluice0",
            "add 10.96.0.11/32 to sluice-svc",
            "remove 10.96.0.10/32 from sluice-svc",
        ]
    );
}

#[test]
fn a_pair_that_lost_one_end_is_made_anew() {
    let mut found = fresh();
    let config = config(|_| {});
    let ops = plan_for(&config, &found, &[]);
    carry_out(&mut found, &ops);
    found.devices.remove(SERVICE_PEER_DEVICE);
    assert!(plan_for(&config, &found, &[]).contains(&NodeOp::CreateServicePair { mtu: 1400 }));
}

#[test]
fn advertisements_are_still_taken_and_strict_filters_loosened() {
    let mut found = fresh();
    found.sysctls.insert("net/ipv6/conf/eth1/accept_ra".into(), "1".into());
    found.sysctls.insert("net/ipv6/conf/eth2/accept_ra".into(), "1".into());
    found.sysctls.insert("net/ipv4/conf/all/rp_filter".into(), "1".into());
    let said: Vec<_> = plan_for(&config(|_| {}), &found, &[]).iter().map(ToString::to_string).collect();
    let place = |text: &str| said.iter().position(|op| op == text);
    let ra = place("set net/ipv6/conf/eth1/accept_ra to 2").expect("accept_ra");
    assert!(ra < place("set net/ipv6/conf/all/forwarding to 1").unwrap(), "before forwarding is switched on");
    assert_eq!(place("set net/ipv6/conf/eth2/accept_ra to 2"), None, "eth2 is no uplink");
    assert!(place("set net/ipv4/conf/sluice-svc/rp_filter to 2").is_some());
}

#[test]
fn parts_that_are_off_make_nothing() {
    let off = config(|settings| {
        settings.proxy = Some(false);
        settings.dns = Some(false);
    });
    let said: Vec<_> = plan_for(&off, &fresh(), &[]).iter().map(ToString::to_string).collect();
    assert!(said.iter().all(|op| !op.contains(SERVICE_DEVICE)), "{said:?}");
    // Without a Node object there is no pod network, and no bridge.
    let facts = facts(&off, &Snapshot::default(), &fresh());
    let wanted = wanted(&off, &facts, &fresh(), &BTreeSet::new(), |_, _| [0; 6]);
    assert_eq!(plan(&wanted, &fresh()), []);
}
