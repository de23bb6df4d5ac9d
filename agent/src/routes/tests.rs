//! Tables for the desired routes, and the property that a plan leads to them from anywhere.

use proptest::prelude::*;
use sluice_model::{Changes, Node, NodeAddress, NodeAddressKind, Object, Snapshot};
use sluice_netlink::owned;

use super::*;
use crate::{
    config::{Config, OverlayMode, Settings},
    node::{Found, facts},
    routes::{desired::desired, ways::Claims},
};

fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> Node {
    let address =
        |text: &&str| NodeAddress { kind: NodeAddressKind::Internal, address: text.parse().unwrap() };
    Node {
        name: name.into(),
        addresses: addresses.iter().map(address).collect(),
        pod_cidrs: cidrs.iter().map(|text| text.parse().unwrap()).collect(),
        zone: None,
        draining: false,
    }
}

fn config(overlay: OverlayMode) -> Config {
    let cidrs = ["10.96.0.0/12", "fd00:96::/108"].map(|text| text.parse().unwrap());
    let settings = Settings {
        node_name: Some("one".into()),
        manifests: Some("/m".into()),
        service_cidrs: Some(cidrs.to_vec()),
        overlay: Some(overlay),
        ..Settings::default()
    };
    Config::new(settings).unwrap()
}

/// The routes as text, and the problems.
fn render(overlay: OverlayMode, nodes: &[Node]) -> (Vec<String>, Vec<String>) {
    let mut found = Found::default();
    for (name, text) in [("eth0", "192.0.2.1/24"), ("eth0", "2001:db8::1/64"), ("eth1", "198.51.100.1/24")] {
        found.devices.insert(name.into(), crate::node::Device { index: 2, mtu: 1500, ..Default::default() });
        found.addresses.push((name.into(), text.parse().unwrap()));
    }
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.apply(Object::Node(node.clone()), &mut Changes::default());
    }
    let config = config(overlay);
    let (routes, problems) = desired(&config, &snapshot, &facts(&config, &snapshot, &found));
    let routes = routes.into_iter().map(|(network, route)| {
        let source = route.source.map(|ip| format!(" from {ip}")).unwrap_or_default();
        format!("{}{source}", RouteOp::Add(network, route))
    });
    (routes.collect(), problems.iter().map(ToString::to_string).collect())
}

#[test]
fn pods_of_other_nodes_and_services() {
    let (routes, problems) = render(
        OverlayMode::Direct,
        &[
            node("one", &["192.0.2.1", "2001:db8::1"], &["10.244.1.0/24", "fd00:1::/64"]),
            node("two", &["192.0.2.2", "2001:db8::2"], &["10.244.2.0/24", "fd00:2::/64"]),
            node("three", &["198.51.100.3"], &["10.244.3.0/24"]),
        ],
    );
    assert_eq!(
        routes,
        [
            "route 10.96.0.0/12 by sluice-svc from 192.0.2.1",
            "route 10.244.2.0/24 via 192.0.2.2 by eth0",
            "route 10.244.3.0/24 via 198.51.100.3 by eth1",
            "route fd00:2::/64 via 2001:db8::2 by eth0",
            "route fd00:96::/108 by sluice-svc from 2001:db8::1",
        ]
    );
    assert_eq!(problems, [""; 0]);
}

#[test]
fn what_cannot_be_reached_is_told_and_the_rest_goes_on() {
    let (routes, problems) = render(
        OverlayMode::Direct,
        &[
            node("one", &["192.0.2.1"], &["10.244.1.0/24"]),
            node("far", &["203.0.113.9"], &["10.244.4.0/24"]),
            node("half", &["192.0.2.5"], &["10.244.5.0/24", "fd00:5::/64"]),
            node("thief", &["192.0.2.6"], &["10.244.0.0/16"]),
            node("twin", &["192.0.2.1"], &["10.244.7.0/24"]),
        ],
    );
    assert!(routes.contains(&"route 10.244.5.0/24 via 192.0.2.5 by eth0".to_owned()), "{routes:?}");
    assert_eq!(
        problems,
        [
            "node far at 203.0.113.9 is on no common network; its pod network 10.244.4.0/24 cannot be reached",
            "node half has no address for its pod network fd00:5::/64",
            "the pod network 10.244.0.0/16 of node thief overlaps that of node one",
            "node twin at 192.0.2.1 is on no common network; its pod network 10.244.7.0/24 cannot be reached",
        ]
    );
}

#[test]
fn the_overlay_leads_where_no_common_network_does() {
    let nodes = [
        node("one", &["192.0.2.1", "2001:db8::1"], &["10.244.1.0/24", "fd00:1::/64"]),
        node("two", &["192.0.2.2"], &["10.244.2.0/24", "fd00:2::/64"]),
        node("far", &["203.0.113.9"], &["10.244.4.0/24"]),
        node("six", &["2001:db8::6"], &["10.244.6.0/24", "fd00:6::/64"]),
        node("twin", &["192.0.2.1"], &["10.244.7.0/24"]),
    ];
    let hop = owned::overlay_mac("two").link_local();
    let (routes, problems) = render(OverlayMode::Auto, &nodes);
    assert_eq!(
        routes,
        [
            "route 10.96.0.0/12 by sluice-svc from 192.0.2.1".to_owned(),
            "route 10.244.2.0/24 via 192.0.2.2 by eth0".to_owned(),
            "route 10.244.4.0/24 via 10.244.4.1 by sluice-vxlan from 10.244.1.1".to_owned(),
            "route 10.244.6.0/24 via 10.244.6.1 by sluice-vxlan6 from 10.244.1.1".to_owned(),
            format!("route fd00:2::/64 via {hop} by sluice-vxlan from fd00:1::1"),
            "route fd00:6::/64 via 2001:db8::6 by eth0".to_owned(),
            "route fd00:96::/108 by sluice-svc from 2001:db8::1".to_owned(),
        ]
    );
    assert_eq!(
        problems,
        ["node twin at 192.0.2.1 is on no common network; its pod network 10.244.7.0/24 cannot be reached",]
    );
    let (routes, _) = render(OverlayMode::Vxlan, &nodes);
    let overlaid = routes.iter().filter(|route| route.contains("sluice-vxlan")).count();
    assert_eq!(overlaid, 5, "{routes:?}");
    let mut four = nodes.clone();
    four[0] = node("one", &["192.0.2.1"], &["10.244.1.0/24"]);
    let (_, problems) = render(OverlayMode::Vxlan, &four);
    let six = "node six and this one have no addresses of a common family, which the overlay needs; its pod network \
               10.244.6.0/24 cannot be reached";
    assert_eq!(problems[0], six);
    let (routes, problems) = render(OverlayMode::None, &nodes);
    assert_eq!((routes.len(), problems.len()), (2, 0), "{routes:?} {problems:?}");
}

#[test]
fn no_network_is_two_nodes() {
    let network = |text: &str| -> IpNet { text.parse().unwrap() };
    let (a, b): (std::sync::Arc<str>, std::sync::Arc<str>) = ("a".into(), "b".into());
    let mut claims = Claims::default();
    for (text, node, whose) in [
        ("10.0.0.0/16", &a, None),
        ("10.0.1.0/24", &a, None),
        ("10.0.2.0/24", &b, Some("a")),
        ("10.0.0.0/8", &b, Some("a")),
        ("10.1.0.0/16", &b, None),
        ("10.0.0.0/15", &a, Some("b")),
        ("fd00::/64", &b, None),
        ("::/0", &a, Some("b")),
        ("fd00::/48", &b, None),
        ("fd00:0:0:1::/64", &a, Some("b")),
        ("0.0.0.0/0", &b, Some("a")),
    ] {
        let claimed = claims.claim(network(text), node);
        assert_eq!(claimed.err().as_deref(), whose, "{text}");
    }
}

fn network() -> impl Strategy<Value = IpNet> {
    (0u8..6).prop_map(|n| IpNet::new([10, n, 0, 0].into(), 16).unwrap())
}

fn route() -> impl Strategy<Value = WantedRoute> {
    (0u8..3, 0u8..2, any::<bool>()).prop_map(|(via, device, mtu)| WantedRoute {
        via: (via > 0).then(|| [192, 0, 2, via].into()),
        device: format!("eth{device}"),
        source: None,
        mtu: mtu.then_some(1400),
        onlink: false,
    })
}

fn found() -> impl Strategy<Value = Vec<FoundRoute>> {
    prop::collection::btree_map((network(), any::<bool>()), route(), 0..8).prop_map(|routes| {
        routes
            .into_iter()
            .map(|((destination, ours), route)| FoundRoute {
                destination,
                via: route.via,
                device: Some(route.device),
                source: route.source,
                mtu: route.mtu,
                ours,
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_plan_leads_there_and_touches_nobody_elses(
        wanted in prop::collection::btree_map(network(), route(), 0..6),
        start in found(),
    ) {
        let mut now = start.clone();
        let (ops, problems) = plan(&wanted, &now);
        for op in &ops {
            let before: Vec<_> = now.iter().map(|held| held.destination).collect();
            carried_out(&mut now, std::iter::once(op));
            // At no step is a wanted destination without a route that it had.
            for network in wanted.keys().filter(|network| before.contains(network)) {
                prop_assert!(now.iter().any(|held| held.destination == *network));
            }
        }
        prop_assert_eq!(plan(&wanted, &now).0, vec![], "a second plan finds nothing to do");
        let foreign = |routes: &[FoundRoute]| -> Vec<_> {
            routes.iter().filter(|held| !held.ours).cloned().collect()
        };
        prop_assert_eq!(foreign(&now), foreign(&start));
        for (network, route) in &wanted {
            let reported = problems.iter().any(
                |problem| matches!(problem, RouteProblem::Foreign { network: there, .. } if there == network),
            );
            let there = now.iter().any(|held| held.ours && held.destination == *network && matches(route, held));
            prop_assert!(there || reported);
        }
        prop_assert!(now.iter().all(|held| !held.ours || wanted.contains_key(&held.destination)));
    }
}
