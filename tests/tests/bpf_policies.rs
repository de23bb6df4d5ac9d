//! Packet tables: traffic policies, affinity and source ranges, as the proxy programs them.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests parse what stands in them")]

use std::collections::BTreeSet;

use sluice_ebpf_common::{NETWORK_LOCAL_PODS, NETWORK_NO_MASQUERADE};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, LoadBalancerIngress, Object, ObjectName,
    Protocol, Service, ServiceKind, ServicePort, Snapshot, TargetPort, TrafficPolicy,
};
use sluice_proxy::Hook;
use sluice_tests::{
    datapath::{Bench, Fate, with_bench},
    packet::syn,
};

/// Node port 30080, cluster address 10.96.0.7, load balancer 203.0.113.1, all to port 8080.
fn service() -> Service {
    Service {
        kind: ServiceKind::LoadBalancer,
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: TargetPort::Number(8080),
            node_port: Some(30080),
        }],
        load_balancer: vec![LoadBalancerIngress {
            address: "203.0.113.1".parse().unwrap(),
            proxy_mode: false,
        }],
        ..Service::new(ObjectName::new("default", "web"))
    }
}

/// Programs the service with these endpoints: last octet, and whether it is on this node.
fn program(bench: &mut Bench, service: Service, endpoints: &[(u8, bool)]) {
    let endpoint = |(octet, local): &(u8, bool)| Endpoint {
        addresses: vec![format!("10.244.{}.{octet}", if *local { 1 } else { 2 }).parse().unwrap()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some(if *local { "n1".into() } else { "n2".into() }),
        zone: None,
        hints: Hints::default(),
        pod: None,
    };
    let slice = EndpointSlice {
        name: ObjectName::new("default", "web-1"),
        service: Some(service.name.clone()),
        imported: None,
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.iter().map(endpoint).collect(),
        last_change: None,
    };
    let mut snapshot = Snapshot::default();
    let mut changes = Changes::default();
    snapshot.apply(Object::Service(service), &mut changes);
    snapshot.apply(Object::EndpointSlice(slice), &mut changes);
    bench.sync(&snapshot);
}

/// The destinations of connections from many ports of a client.
fn destinations(bench: &mut Bench, hook: Hook, device: &str, client: &str, dst: &str) -> BTreeSet<String> {
    (0..40)
        .map(|port| match bench.send(hook, device, &syn(&format!("{client}:{}", 3000 + port), dst)) {
            Fate::Redirect(text) | Fate::Pass(text) => text.split(' ').nth(2).unwrap().to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn external_policy_local_keeps_the_client_and_stays_on_the_node() {
    with_bench(|bench| {
        let service = Service { external_traffic_policy: TrafficPolicy::Local, ..service() };
        program(bench, service.clone(), &[(12, true), (77, false)]);
        for (client, address) in
            [("198.51.100.9:4000", "192.0.2.1:30080"), ("198.51.100.9:4001", "203.0.113.1:80")]
        {
            let request = bench.send(Hook::FromWire, "wire", &syn(client, address));
            let becomes = format!("{client} > 10.244.1.12:8080 TCP ttl 63");
            assert_eq!(request, Fate::Redirect(becomes), "{address}");
            let to_local = destinations(bench, Hook::FromWire, "wire", "198.51.100.9", address);
            assert_eq!(to_local, ["10.244.1.12:8080".to_owned()].into(), "{address}");
        }
        // Without an endpoint here: silence outside, and no difference inside.
        program(bench, service, &[(11, false), (77, false)]);
        let outside = bench.send(Hook::FromWire, "wire", &syn("198.51.100.8:4000", "192.0.2.1:30080"));
        assert_eq!(outside, Fate::Drop("no_local_endpoints"));
    });
}

#[test]
fn a_pod_at_an_external_address_is_inside() {
    with_bench(|bench| {
        let service = Service { external_traffic_policy: TrafficPolicy::Local, ..service() };
        program(bench, service, &[(12, true)]);
        let request = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "203.0.113.1:80"));
        assert_eq!(request, Fate::Redirect("10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64".into()));
    });
}

/// Rows 7 and 18: where the whole cluster's networks say who is a pod, one of another node is inside too.
#[test]
fn a_pod_of_another_node_is_inside_where_the_cluster_cidr_says_who_is_one() {
    with_bench(|bench| {
        let service = Service { external_traffic_policy: TrafficPolicy::Local, ..service() };
        program(bench, service, &[(77, false)]);
        bench.address("wire", "10.244.2.1/24");
        let from_there = |bench: &mut Bench, port| {
            let client = format!("10.244.2.9:{port}");
            bench.send(Hook::FromWire, "wire", &syn(&client, "192.0.2.1:30080"))
        };
        assert_eq!(from_there(bench, 4000), Fate::Drop("no_local_endpoints"), "this node's pods alone");
        let cluster = "10.244.0.0/16".parse().unwrap();
        let networks = [(cluster, NETWORK_NO_MASQUERADE | NETWORK_LOCAL_PODS)].into();
        bench.datapath().set_networks(&networks, true).unwrap();
        // From the node's address: the endpoint's answer would not come back here otherwise.
        let to_another_node = from_there(bench, 4001);
        assert_eq!(to_another_node, Fate::Redirect("192.0.2.1:4001 > 10.244.2.77:8080 TCP ttl 63".into()));
        let outside = bench.send(Hook::FromWire, "wire", &syn("198.51.100.8:4000", "192.0.2.1:30080"));
        assert_eq!(outside, Fate::Drop("no_local_endpoints"), "who is of no pod network");
    });
}

#[test]
fn internal_policy_local_stays_on_the_node_for_everybody() {
    with_bench(|bench| {
        let service = Service { internal_traffic_policy: TrafficPolicy::Local, ..service() };
        program(bench, service.clone(), &[(12, true), (77, false), (78, false)]);
        let inside = destinations(bench, Hook::FromPod, "pod1", "10.244.1.11", "10.96.0.7:80");
        assert_eq!(inside, ["10.244.1.12:8080".to_owned()].into());
        program(bench, service.clone(), &[(77, false)]);
        let none_here = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:9000", "10.96.0.7:80"));
        assert_eq!(none_here, Fate::Drop("no_local_endpoints"));
        program(bench, service, &[]);
        let none_anywhere = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:9000", "10.96.0.7:80"));
        assert_eq!(none_anywhere, Fate::Answer("10.96.0.7:80 > 10.244.1.11:9000 TCP reset ttl 64".into()));
    });
}

#[test]
fn a_client_stays_with_its_endpoint_through_every_address() {
    with_bench(|bench| {
        let mut service = Service { affinity: Some(std::time::Duration::from_secs(3600)), ..service() };
        let all = [(12, true), (13, true), (14, true), (15, true), (16, true)];
        let pod = bench.datapath().endpoints().unwrap()[&"10.244.1.12".parse().unwrap()];
        for (octet, _) in all {
            bench.datapath().put_endpoint(format!("10.244.1.{octet}").parse().unwrap(), &pod).unwrap();
        }
        program(bench, service.clone(), &all);
        let first = destinations(bench, Hook::FromPod, "pod1", "10.244.1.11", "10.96.0.7:80");
        assert_eq!(first.len(), 1, "one client, one endpoint: {first:?}");
        let other = destinations(bench, Hook::FromPod, "pod1", "10.244.1.11", "192.0.2.1:30080");
        assert_eq!(other, first, "the node port leads where the cluster address does");

        // The endpoint goes: the client goes elsewhere, and stays there.
        let octet: u8 = first.iter().next().unwrap().split(['.', ':']).nth(3).unwrap().parse().unwrap();
        let rest: Vec<(u8, bool)> = all.iter().copied().filter(|(other, _)| *other != octet).collect();
        program(bench, service.clone(), &rest);
        let moved = destinations(bench, Hook::FromPod, "pod1", "10.244.1.11", "203.0.113.1:80");
        assert_eq!(moved.len(), 1);
        assert_ne!(moved, first);
        program(bench, service.clone(), &all);
        let still = destinations(bench, Hook::FromPod, "pod1", "10.244.1.11", "10.96.0.7:80");
        assert_eq!(still, moved, "an endpoint that comes takes nobody away");

        // Switched off, connections spread.
        service.affinity = None;
        program(bench, service, &all);
        let spread = destinations(bench, Hook::FromPod, "pod1", "10.244.1.11", "192.0.2.1:30080");
        assert!(spread.len() > 1, "{spread:?}");
    });
}

#[test]
fn only_the_load_balancers_address_asks_where_a_client_comes_from() {
    with_bench(|bench| {
        let service = Service { source_ranges: vec!["198.51.100.0/24".parse().unwrap()], ..service() };
        program(bench, service, &[(12, true)]);
        let rows = [
            ("198.51.100.9:4000", "203.0.113.1:80", true),
            ("198.18.0.9:4000", "203.0.113.1:80", false),
            ("198.18.0.9:4000", "192.0.2.1:30080", true),
        ];
        for (client, address, served) in rows {
            let fate = bench.send(Hook::FromWire, "wire", &syn(client, address));
            assert_eq!(matches!(fate, Fate::Redirect(_)), served, "{client} to {address}: {fate:?}");
            assert!(served || fate == Fate::Drop("source_range"));
        }
        let pod = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "203.0.113.1:80"));
        assert_eq!(pod, Fate::Drop("source_range"), "pods are clients like all others");
    });
}
