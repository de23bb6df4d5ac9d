//! What is concluded from what another plugin has made.

use std::{collections::BTreeSet, net::IpAddr};

use sluice_ebpf_common::{Addr, NETWORK_NO_MASQUERADE, NETWORK_OVERLAY};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, Object, ObjectName, Snapshot,
};

use super::*;
use crate::node::{Device, Found, FoundRoute};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(destination: &str, via: Option<&str>, device: &str) -> FoundRoute {
    FoundRoute {
        destination: net(destination),
        via: via.map(|via| via.parse().unwrap()),
        device: Some(device.to_owned()),
        source: None,
        mtu: None,
        ours: false,
    }
}

fn found() -> Found {
    let device = |index, mac: Option<[u8; 6]>| Device { index, mac, ..Device::default() };
    let mac = Some([2, 0, 0, 0, 0, 1]);
    Found {
        devices: [("eth0", 2, mac), ("flannel.1", 3, mac), ("tunl0", 4, None), ("cni0", 5, mac)]
            .map(|(name, index, mac)| (name.to_owned(), device(index, mac)))
            .into(),
        addresses: vec![
            ("eth0".to_owned(), net("192.0.2.1/24")),
            ("flannel.1".to_owned(), net("10.244.1.0/32")),
        ],
        routes: vec![
            route("0.0.0.0/0", Some("192.0.2.100"), "eth0"),
            route("192.0.2.0/24", None, "eth0"),
            route("10.244.1.0/24", None, "cni0"),
            route("10.244.2.0/24", Some("10.244.2.0"), "flannel.1"),
            route("10.244.3.0/24", Some("192.0.2.3"), "eth0"),
            route("10.244.4.0/24", Some("192.0.2.4"), "tunl0"),
        ],
        ..Found::default()
    }
}

fn slice(name: &str, endpoints: &[(&str, Option<&str>)]) -> EndpointSlice {
    let endpoint = |(address, node): &(&str, Option<&str>)| Endpoint {
        addresses: vec![address.parse().unwrap()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: node.map(Into::into),
        zone: None,
        hints: Hints::default(),
        pod: None,
    };
    EndpointSlice {
        name: ObjectName::new("default", name),
        service: Some(ObjectName::new("default", name)),
        imported: None,
        headless: false,
        family: IpFamily::V4,
        ports: Vec::<EndpointPort>::new(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        last_change: None,
    }
}

fn snapshot(slices: Vec<EndpointSlice>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for slice in slices {
        snapshot.apply(Object::EndpointSlice(slice), &mut Changes::default());
    }
    snapshot
}

#[test]
fn the_other_plugins_routes_tell_where_pods_are() {
    let plain = BTreeSet::from(["eth0".to_owned()]);
    let outside = slice("db", &[("198.51.100.7", None), ("10.244.2.9", None), ("10.244.1.5", Some("one"))]);
    assert!(is_outside(&outside) && !is_outside(&slice("web", &[("10.244.1.5", Some("one"))])));
    let abroad = abroad(&found(), &plain, &snapshot(vec![outside]));
    assert_eq!(abroad.devices, ["eth0", "flannel.1"].map(str::to_owned).into());
    assert_eq!(abroad.bare, ["tunl0".to_owned()].into());
    let expected = [
        ("0.0.0.0/0", NETWORK_NO_MASQUERADE),
        ("10.244.2.0/24", NETWORK_NO_MASQUERADE | NETWORK_OVERLAY),
        ("10.244.3.0/24", NETWORK_NO_MASQUERADE),
        // Nobody else would see to it that it can answer.
        ("198.51.100.7/32", 0),
        ("::/0", NETWORK_NO_MASQUERADE),
    ];
    assert_eq!(abroad.networks, expected.map(|(network, flags)| (net(network), flags)).into());
    assert_eq!(abroad.overlay.v4, Addr::from("10.244.1.0".parse::<IpAddr>().unwrap()));
    assert_eq!(abroad.overlay.v6, Addr::default());
}

#[test]
fn endpoints_here_that_were_not_found_are_told() {
    let slices = vec![slice(
        "web",
        &[
            ("10.244.1.5", Some("one")),
            ("10.244.1.6", Some("one")),
            ("10.244.2.7", Some("two")),
            ("192.0.2.1", Some("one")),
        ],
    )];
    let wire = Wire {
        host: "veth1".into(),
        inside: "eth0".into(),
        mac: MacAddress([2, 0, 0, 0, 0, 9]),
        addresses: vec![net("10.244.1.5/24")],
        bridge: None,
        gateway_mac: MacAddress([2, 0, 0, 0, 0, 8]),
    };
    let own = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
    let pod = wire.attachment();
    for (networks, is_one) in [("", true), ("10.244.0.0/16", true), ("10.0.0.0/16,fd00::/48", false)] {
        let networks: Vec<IpNet> = networks.split_terminator(',').map(net).collect();
        assert_eq!(is_pod(&networks, &pod), is_one, "{networks:?}");
    }
    let unseen = unseen(&snapshot(slices), "one", &[pod], &own);
    assert_eq!(unseen, [("10.244.1.6".parse().unwrap(), "default/web".to_owned())].into());
}
