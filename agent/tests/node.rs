//! The node's set-up and routes on a real kernel, in network namespaces of their own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use sluice_agent::{
    config::{Config, Settings},
    node::{self, Found},
    routes,
};
use sluice_model::{Changes, Node, NodeAddress, NodeAddressKind, Object, Snapshot};
use sluice_netlink::{
    AddressFlags, LinkChange, MacAddress, Namespace, Netlink, Route, VethEnd, owned, sysctl,
};

fn config() -> Config {
    let settings = Settings {
        node_name: Some("one".into()),
        manifests: Some("/m".into()),
        service_cidrs: Some(["10.96.0.0/16", "fd00:96::/108"].map(|text| text.parse().unwrap()).to_vec()),
        ..Settings::default()
    };
    Config::new(settings).unwrap()
}

fn snapshot() -> Snapshot {
    let node = |name: &str, number: u8| Node {
        name: name.into(),
        addresses: [format!("192.0.2.{number}"), format!("2001:db8::{number}")]
            .map(|text| NodeAddress { kind: NodeAddressKind::Internal, address: text.parse().unwrap() })
            .to_vec(),
        pod_cidrs: [format!("10.244.{number}.0/24"), format!("fd00:{number}::/64")]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        zone: None,
        draining: false,
    };
    let mut snapshot = Snapshot::default();
    for node in [node("one", 1), node("two", 2)] {
        snapshot.apply(Object::Node(node), &mut Changes::default());
    }
    snapshot
}

/// A machine with one device that leads out.
fn machine(netlink: &mut Netlink) {
    netlink.create_veth(&VethEnd::new("eth0").mtu(1450), &VethEnd::new("peer").mtu(1450)).unwrap();
    for name in ["lo", "peer", "eth0"] {
        let index = netlink.link(name).unwrap().index;
        netlink.set_up(index).unwrap();
    }
    let index = netlink.link("eth0").unwrap().index;
    for text in ["192.0.2.1/24", "2001:db8::1/64"] {
        let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
        netlink.add_address(index, text.parse().unwrap(), flags).unwrap();
    }
}

/// Plans and applies node and routes once; gives what was done.
fn set_up(config: &Config, netlink: &mut Netlink) -> Vec<String> {
    let snapshot = snapshot();
    let dns: BTreeSet<_> = ["10.96.0.10", "fd00:96::a"].iter().map(|text| text.parse().unwrap()).collect();
    let mac = |name: &str, gateway: &str| {
        let MacAddress(mac) = owned::bridge_mac(name, gateway);
        mac
    };
    let mut done = Vec::new();
    let found = node::observe(netlink).unwrap();
    let facts = node::facts(config, &snapshot, &found);
    let ops = node::plan(&node::wanted(config, &facts, &found, &dns, mac), &found);
    let failed = node::apply(netlink, &ops);
    assert!(failed.is_empty(), "{failed:?}");
    done.extend(ops.iter().map(ToString::to_string));
    let found: Found = node::observe(netlink).unwrap();
    let (wanted, problems) = routes::desired(config, &snapshot, &facts);
    assert!(problems.is_empty(), "{problems:?}");
    let (ops, foreign) = routes::plan(&wanted, &found.routes);
    assert!(foreign.is_empty(), "{foreign:?}");
    let failed = routes::apply(netlink, &ops);
    assert!(failed.is_empty(), "{failed:?}");
    done.extend(ops.iter().map(ToString::to_string));
    done
}

fn in_namespace(test: impl FnOnce(&mut Netlink) + Send) {
    let namespace = Namespace::create().unwrap();
    namespace
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            machine(&mut netlink);
            test(&mut netlink);
        })
        .unwrap();
}

#[test]
fn a_machine_becomes_a_node_in_one_go_and_stays_one() {
    in_namespace(|netlink| {
        let config = config();
        assert!(!set_up(&config, netlink).is_empty());
        assert_eq!(set_up(&config, netlink), [""; 0], "a second time there is nothing to do");

        let found = node::observe(netlink).unwrap();
        let bridge: BTreeSet<_> = found.addresses_of("sluice0").map(|address| address.to_string()).collect();
        assert_eq!(bridge, ["10.244.1.1/24", "fd00:1::1/64"].map(str::to_owned).into());
        assert_eq!(found.devices["sluice0"].mtu, 1450);
        assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
        assert_eq!(sysctl::read("net/ipv4/conf/sluice-svc/accept_local").unwrap(), "1");
        let route = |text: &str| found.routes.iter().find(|route| route.destination == text.parse().unwrap());
        assert_eq!(route("10.244.2.0/24").unwrap().via, Some("192.0.2.2".parse().unwrap()));
        assert_eq!(route("fd00:2::/64").unwrap().via, Some("2001:db8::2".parse().unwrap()));
        let services = route("10.96.0.0/16").unwrap();
        assert_eq!(services.device.as_deref(), Some("sluice-svc"));
        assert_eq!(services.source, Some("192.0.2.1".parse().unwrap()));
    });
}

#[test]
fn what_others_break_is_repaired_and_what_is_theirs_stays() {
    in_namespace(|netlink| {
        let config = config();
        set_up(&config, netlink);
        let bridge = netlink.link("sluice0").unwrap().index;
        let eth0 = netlink.link("eth0").unwrap().index;
        // Theirs: an address on the bridge, a route of another protocol number.
        let theirs = "10.9.9.9/24".parse().unwrap();
        netlink.add_address(bridge, theirs, AddressFlags::default()).unwrap();
        let mut route = Route::via("10.8.0.0/16".parse().unwrap(), "192.0.2.9".parse().unwrap(), eth0);
        route.protocol = 4;
        netlink.add_route(&route).unwrap();
        // Broken: a device is gone, one is down, an address is gone, a setting is changed, a route of ours stale.
        let service = netlink.link("sluice-svc").unwrap().index;
        netlink.delete_link(service).unwrap();
        netlink.change_link(bridge, &LinkChange::new().up(false)).unwrap();
        netlink.delete_address(bridge, "10.244.1.1/24".parse().unwrap()).unwrap();
        sysctl::set("net/ipv4/ip_forward", "0").unwrap();
        let stale = Route::via("10.7.0.0/16".parse().unwrap(), "192.0.2.9".parse().unwrap(), eth0);
        netlink.add_route(&stale).unwrap();

        let done = set_up(&config, netlink);
        for expected in ["create sluice-svc mtu 1450", "switch on sluice0", "remove the route to 10.7.0.0/16"]
        {
            assert!(done.iter().any(|op| op == expected), "{expected} in {done:?}");
        }
        assert_eq!(set_up(&config, netlink), [""; 0]);
        let found = node::observe(netlink).unwrap();
        assert!(found.addresses_of("sluice0").any(|address| address == theirs));
        let has = |text: &str| found.routes.iter().any(|route| route.destination == text.parse().unwrap());
        assert!(has("10.8.0.0/16") && !has("10.7.0.0/16") && has("10.96.0.0/16"));
    });
}

#[test]
fn cleaning_up_takes_what_is_ours() {
    in_namespace(|netlink| {
        let state = tempfile::tempdir().unwrap();
        let config =
            Config { bpffs_dir: state.path().join("bpf"), state_dir: state.path().to_owned(), ..config() };
        let before = node::observe(netlink).unwrap();
        set_up(&config, netlink);
        let files = ["node.json", "dns-zone.json", "Corefile.good"].map(|file| state.path().join(file));
        files.iter().for_each(|file| std::fs::write(file, "{}").unwrap());
        std::fs::create_dir_all(config.bpffs_dir.join("v1")).unwrap();
        let errors = sluice_agent::cleanup::cleanup(&config);
        assert!(errors.is_empty(), "{errors:?}");
        assert!(!files.iter().chain([&config.bpffs_dir]).any(|path| path.exists()));
        let after = node::observe(netlink).unwrap();
        assert_eq!(after.devices, before.devices);
        // The kernel adds link-local routes of its own in its own time.
        let local: ipnet::IpNet = "fe80::/10".parse().unwrap();
        let lasting = |found: &Found| -> Vec<_> {
            found.routes.iter().filter(|route| !local.contains(&route.destination)).cloned().collect()
        };
        assert_eq!(lasting(&after), lasting(&before));
    });
}
