//! Tables for the semantics of services.

use std::collections::BTreeMap;

use sluice_model::{
    Changes, EndpointPort, EndpointSlice, Hints, LoadBalancerIngress, Node, NodeAddress, NodeAddressKind,
    Object, ServiceKind, TargetPort, TrafficPolicy,
};

use super::*;

fn web() -> Service {
    Service {
        kind: ServiceKind::NodePort,
        cluster_ips: vec!["10.96.0.7".parse().unwrap(), "fd00:96::7".parse().unwrap()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: TargetPort::Number(8080),
            node_port: Some(30080),
        }],
        ..Service::new(ObjectName::new("default", "web"))
    }
}

fn endpoint(address: &str, ready: bool, serving: bool, terminating: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.parse().unwrap()],
        ready,
        serving,
        terminating,
        hostname: None,
        node: None,
        zone: None,
        hints: Hints::default(),
        pod: None,
    }
}

fn slice(name: &str, port: u16, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        name: ObjectName::new("default", name),
        service: Some(ObjectName::new("default", "web")),
        imported: None,
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints,
        last_change: None,
    }
}

fn snapshot(service: Service, slices: Vec<EndpointSlice>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut changes = Changes::default();
    snapshot.apply(Object::Service(service), &mut changes);
    for slice in slices {
        snapshot.apply(Object::EndpointSlice(slice), &mut changes);
    }
    snapshot
}

fn desired(snapshot: &Snapshot, node: &NodeView) -> BTreeMap<ServiceKey, DesiredService> {
    desired_services(snapshot, &ObjectName::new("default", "web"), node)
}

/// The IPv4 backends, as text.
fn backends(slices: Vec<EndpointSlice>) -> (Vec<String>, Vec<String>) {
    let all = desired(&snapshot(web(), slices), &NodeView::default());
    let v4 = all.into_iter().find(|(key, _)| key.family == IpFamily::V4).unwrap().1;
    let text = |set: BTreeSet<(Addr, Be16)>| set.into_iter().map(|(a, p)| format!("{a}:{p}")).collect();
    (text(v4.backends), text(v4.draining))
}

fn frontends(service: Service, node: &NodeView) -> Vec<String> {
    let all = desired(&snapshot(service, Vec::new()), node);
    let mut list: Vec<String> = all
        .values()
        .flat_map(|service| &service.frontends)
        .map(|(key, flags)| format!("{} port {} flags {flags}", key.addr, key.port))
        .collect();
    list.sort();
    list
}

#[test]
fn slices_for_dns_only_are_nobody_elses_business() {
    let of = |headless| EndpointSlice {
        headless,
        ..slice("web-1", 80, vec![endpoint("10.0.0.1", true, true, false)])
    };
    assert_eq!(backends(vec![of(false)]).0, ["10.0.0.1:80"]);
    assert!(backends(vec![of(true)]).0.is_empty());
}

#[test]
fn a_node_port_service_has_its_addresses_in_both_families() {
    assert_eq!(
        frontends(web(), &NodeView::default()),
        [
            "0.0.0.0 port 30080 flags 1",
            "10.96.0.7 port 0 flags 32",
            "10.96.0.7 port 80 flags 0",
            ":: port 30080 flags 1",
            "fd00:96::7 port 0 flags 32",
            "fd00:96::7 port 80 flags 0",
        ]
    );
}

#[test]
fn a_single_stack_service_has_no_node_port_in_the_other_family() {
    let mut service = web();
    service.cluster_ips.truncate(1);
    assert_eq!(
        frontends(service, &NodeView::default()),
        ["0.0.0.0 port 30080 flags 1", "10.96.0.7 port 0 flags 32", "10.96.0.7 port 80 flags 0"]
    );
}

#[test]
fn load_balancers_in_proxy_mode_are_not_short_circuited() {
    let mut service = web();
    service.cluster_ips.truncate(1);
    service.ports[0].node_port = None;
    service.external_ips = vec!["198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    service.load_balancer = vec![
        LoadBalancerIngress { address: "203.0.113.1".parse().unwrap(), proxy_mode: false },
        LoadBalancerIngress { address: "203.0.113.2".parse().unwrap(), proxy_mode: true },
    ];
    assert_eq!(
        frontends(service, &NodeView::default()),
        [
            "10.96.0.7 port 0 flags 32",
            "10.96.0.7 port 80 flags 0",
            "198.51.100.1 port 80 flags 1",
            "2001:db8::1 port 80 flags 1",
            "203.0.113.1 port 80 flags 1",
        ]
    );
}

#[test]
fn services_that_are_not_proxied_leave_nothing() {
    let cases: [(&str, fn(&mut Service)); 4] = [
        ("headless", |s| s.headless = true),
        ("ExternalName with an address", |s| s.kind = ServiceKind::ExternalName),
        ("another proxy's", |s| s.other_proxy = true),
        ("no address yet", |s| s.cluster_ips.clear()),
    ];
    for (what, change) in cases {
        let mut service = web();
        change(&mut service);
        assert_eq!(desired(&snapshot(service, Vec::new()), &NodeView::default()), BTreeMap::new(), "{what}");
    }
}

#[test]
fn the_cluster_dns_port_is_answered_on_the_node() {
    let mut service = web();
    service.cluster_ips.truncate(1);
    service.ports[0].node_port = None;
    service.ports[0].port = 53;
    let mut metrics = service.ports[0].clone();
    (metrics.name, metrics.port) = ("metrics".into(), 9153);
    service.ports.push(metrics);
    let node = NodeView { local_dns: Some(service.name.clone()), ..NodeView::default() };
    assert_eq!(
        frontends(service, &node),
        ["10.96.0.7 port 0 flags 32", "10.96.0.7 port 53 flags 2", "10.96.0.7 port 9153 flags 2"]
    );
}

#[test]
fn pages_of_the_dns_server_are_reached_at_its_address_unless_the_service_has_their_ports() {
    let mut service = web();
    service.cluster_ips.truncate(1);
    service.ports.truncate(1);
    service.ports[0].port = 8181;
    let name = service.name.clone();
    let page = |at: &str, server: &str| (at.parse().unwrap(), server.parse().unwrap());
    let node = NodeView {
        local_dns: Some(name.clone()),
        local_pages: [
            page("10.96.0.7:8080", "192.0.2.1:9153"),
            page("10.96.0.7:8181", "192.0.2.1:9153"),
            page("[fd00::7]:8080", "[2001:db8::1]:9153"),
        ]
        .into(),
        fast_path: true,
        ..NodeView::default()
    };
    let told = |snapshot: &Snapshot| {
        let desired = desired_services(snapshot, &name, &node);
        let pages = desired.iter().filter(|(key, _)| key.port.starts_with("page"));
        let told = pages.map(|(key, page)| {
            assert_eq!(page.flags, SERVICE_FAST_PATH);
            let [(address, port)] = page.backends.iter().collect::<Vec<_>>()[..] else { panic!("{page:?}") };
            format!("{} {:?}: {address} {port}", key.port, key.family)
        });
        told.collect::<Vec<_>>()
    };
    let both = ["page 8080 V4: 192.0.2.1 9153", "page 8080 V6: 2001:db8::1 9153"];
    assert_eq!(told(&snapshot(service, Vec::new())), both);
    assert_eq!(told(&Snapshot::default()), [both[0], both[1], "page 8181 V4: 192.0.2.1 9153"], "no service");
    let other = ObjectName::new("default", "other");
    assert_eq!(desired_services(&Snapshot::default(), &other, &node), BTreeMap::new());
}

#[test]
fn endpoints_are_chosen_by_their_conditions() {
    let cases: [(&str, Vec<Endpoint>, &[&str], &[&str]); 4] = [
        (
            "ready ones beat those that terminate",
            vec![endpoint("10.244.0.1", true, true, false), endpoint("10.244.0.2", false, true, true)],
            &["10.244.0.1:8080"],
            &["10.244.0.2:8080"],
        ),
        (
            "without a ready one, those that terminate and serve",
            vec![endpoint("10.244.0.1", false, false, true), endpoint("10.244.0.2", false, true, true)],
            &["10.244.0.2:8080"],
            &[],
        ),
        (
            "neither ready nor terminating is not used",
            vec![endpoint("10.244.0.1", false, true, false)],
            &[],
            &["10.244.0.1:8080"],
        ),
        (
            "ready although terminating (publishNotReadyAddresses)",
            vec![endpoint("10.244.0.1", true, true, true)],
            &["10.244.0.1:8080"],
            &[],
        ),
    ];
    for (what, endpoints, usable, draining) in cases {
        let (got_usable, got_draining) = backends(vec![slice("web-1", 8080, endpoints)]);
        assert_eq!(
            (&got_usable[..], &got_draining[..]),
            (
                &usable.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                &draining.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{what}"
        );
    }
}

#[test]
fn slices_merge_and_named_ports_may_differ() {
    let (usable, _) = backends(vec![
        slice("web-1", 8080, vec![endpoint("10.244.0.1", false, true, true)]),
        slice("web-2", 8080, vec![endpoint("10.244.0.1", true, true, false)]),
        slice("web-3", 9090, vec![endpoint("10.244.0.3", true, true, false)]),
    ]);
    assert_eq!(usable, ["10.244.0.1:8080", "10.244.0.3:9090"]);
}

#[test]
fn the_fast_path_is_for_tcp_without_affinity() {
    let node = NodeView { fast_path: true, ..NodeView::default() };
    let flags =
        |service: Service| desired(&snapshot(service, Vec::new()), &node).into_values().next().unwrap().flags;
    assert_eq!(flags(web()), SERVICE_FAST_PATH);
    let mut udp = web();
    udp.ports[0].protocol = Protocol::Udp;
    assert_eq!(flags(udp), 0);
    let mut sticky = web();
    sticky.affinity = Some(std::time::Duration::from_secs(10_800));
    assert_eq!(flags(sticky), 0);
}

#[test]
fn where_everything_is_masqueraded_cluster_addresses_are_as_external_ones() {
    let node = NodeView { fast_path: true, masquerade_all: true, ..NodeView::default() };
    let service = desired(&snapshot(web(), Vec::new()), &node).into_values().next().unwrap();
    assert_eq!(service.flags, 0, "a connection of the fast path would be the pod's own");
    let flags = |key: &FrontendKey| service.frontends[key];
    let ports: Vec<_> = service.frontends.keys().filter(|key| key.port.to_host() != 0).collect();
    assert!(!ports.is_empty() && ports.into_iter().all(|key| flags(key) & FRONTEND_EXTERNAL != 0));
}

/// Endpoints with a node, a ready condition and hints, as `address`.
fn hinted(address: &str, node: &str, zones: &[&str], nodes: &[&str]) -> Endpoint {
    Endpoint {
        node: Some(node.into()),
        hints: Hints {
            zones: zones.iter().map(|zone| (*zone).into()).collect(),
            nodes: nodes.iter().map(|node| (*node).into()).collect(),
        },
        ..endpoint(address, true, true, false)
    }
}

/// The last octets of the backends of one scope, for a node n1 in zone z1.
fn octets(service: Service, endpoints: Vec<Endpoint>, scope: Scope) -> Option<Vec<u8>> {
    let mut snapshot = snapshot(service, vec![slice("web-1", 8080, endpoints)]);
    let node = sluice_model::Node {
        name: "n1".into(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        zone: Some("z1".into()),
        draining: false,
    };
    snapshot.apply(Object::Node(node), &mut Changes::default());
    let node = NodeView { name: "n1".into(), ..NodeView::default() };
    let all = desired(&snapshot, &node);
    let service = all.into_iter().find(|(key, _)| key.scope == scope && key.family == IpFamily::V4)?.1;
    Some(service.backends.iter().map(|(addr, _)| addr.words()[3].to_ne_bytes()[3]).collect())
}

#[test]
fn hints_keep_traffic_near_only_if_all_endpoints_have_them() {
    let far = |octet: u8| hinted(&format!("10.244.0.{octet}"), "n2", &["z2"], &["n2"]);
    let near = hinted("10.244.0.1", "n1", &["z1"], &["n1"]);
    let zone_only = hinted("10.244.0.2", "n3", &["z1"], &[]);
    let plain = hinted("10.244.0.3", "n2", &[], &[]);
    let cases: [(&str, Vec<Endpoint>, &[u8]); 5] = [
        ("the node's own", vec![near.clone(), far(9)], &[1]),
        ("one without a node hint: the zone's", vec![near.clone(), zone_only.clone(), far(9)], &[1, 2]),
        ("one without any hint: all", vec![near.clone(), zone_only, plain, far(9)], &[1, 2, 3, 9]),
        ("none for this node or zone: all", vec![far(8), far(9)], &[8, 9]),
        (
            "hints of an endpoint that is not ready do not count",
            vec![near, Endpoint { ready: false, ..far(9) }],
            &[1],
        ),
    ];
    for (what, endpoints, wanted) in cases {
        assert_eq!(octets(web(), endpoints, Scope::Cluster).as_deref(), Some(wanted), "{what}");
    }
}

#[test]
fn policy_local_has_this_nodes_endpoints_by_rules_of_their_own() {
    let on = |octet: u8, node: &str, ready: bool| Endpoint {
        node: Some(node.into()),
        ..endpoint(&format!("10.244.0.{octet}"), ready, true, !ready)
    };
    let mut local = web();
    local.external_traffic_policy = TrafficPolicy::Local;
    let endpoints = || vec![on(1, "n1", false), on(2, "n2", true)];
    assert_eq!(
        octets(local.clone(), endpoints(), Scope::Local),
        Some(vec![1]),
        "the one that terminates still serves"
    );
    assert_eq!(octets(local, endpoints(), Scope::Cluster), Some(vec![2]), "elsewhere there is a ready one");
    assert_eq!(octets(web(), endpoints(), Scope::Local), None, "nobody asked for it");
}

#[test]
fn an_empty_local_set_is_silent_only_while_there_are_endpoints_elsewhere() {
    let flags = |endpoints: Vec<Endpoint>| {
        let mut service = web();
        service.internal_traffic_policy = TrafficPolicy::Local;
        let node = NodeView { name: "n1".into(), ..NodeView::default() };
        let all = desired(&snapshot(service, vec![slice("web-1", 8080, endpoints)]), &node);
        all.into_iter()
            .find(|(key, _)| key.scope == Scope::Local && key.family == IpFamily::V4)
            .unwrap()
            .1
            .flags
    };
    assert_eq!(flags(vec![hinted("10.244.0.1", "n2", &[], &[])]), SERVICE_DROP_IF_EMPTY);
    assert_eq!(flags(Vec::new()), 0);
}

#[test]
fn policies_and_ranges_are_flags_of_the_addresses_they_concern() {
    let mut service = web();
    service.cluster_ips.truncate(1);
    service.internal_traffic_policy = TrafficPolicy::Local;
    service.external_traffic_policy = TrafficPolicy::Local;
    service.external_ips = vec!["198.51.100.1".parse().unwrap()];
    service.load_balancer =
        vec![LoadBalancerIngress { address: "203.0.113.1".parse().unwrap(), proxy_mode: false }];
    service.source_ranges = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    assert_eq!(
        frontends(service.clone(), &NodeView::default()),
        [
            "0.0.0.0 port 30080 flags 9",
            "10.96.0.7 port 0 flags 32",
            "10.96.0.7 port 80 flags 4",
            "198.51.100.1 port 80 flags 9",
            "203.0.113.1 port 80 flags 25",
        ]
    );
    let mut on_node = snapshot(service.clone(), Vec::new());
    let name: Arc<str> = "n1".into();
    let primary = NodeAddress { kind: NodeAddressKind::Internal, address: "192.0.2.1".parse().unwrap() };
    let this_node = Node {
        name: name.clone(),
        addresses: vec![primary],
        pod_cidrs: Vec::new(),
        zone: None,
        draining: false,
    };
    on_node.apply(Object::Node(this_node), &mut Changes::default());
    let view = NodeView { name, ..NodeView::default() };
    let wanted = desired_services(&on_node, &service.name, &view);
    let ranges: Vec<String> = wanted
        .values()
        .flat_map(|wanted| &wanted.source_ranges)
        .map(|(addr, bits)| format!("{addr}/{bits}"))
        .collect();
    assert_eq!(ranges, ["192.0.2.0/120", "203.0.113.1/128"], "the node is in a range, so is the balancer");
    service.source_ranges.push("0.0.0.0/0".parse().unwrap());
    let open = frontends(service, &NodeView::default());
    assert!(
        open.contains(&"203.0.113.1 port 80 flags 9".to_owned()),
        "a range of everything is no filter: {open:?}"
    );
}
