//! Tables for the conversion: what is taken over, what is left out, what is refused and how that is told.

use std::net::IpAddr;

use k8s_openapi::{api::core::v1 as core, api::discovery::v1::EndpointSlice, serde::de::DeserializeOwned};
use serde_json::{Value, json};
use sluice_model::{IpFamily, NodeAddressKind, ServiceKind, TargetPort, TrafficPolicy};

use super::*;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A Service with this spec.
fn of_spec(spec: Value) -> Result<sluice_model::Service, ConvertError> {
    service(&object(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})))
}

/// A Service with one port and, on top of that, this.
fn with(spec: Value) -> Result<sluice_model::Service, ConvertError> {
    let mut whole = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    of_spec(whole)
}

#[test]
fn a_service_in_full() {
    let service = service(&object(json!({
        "metadata": {
            "name": "web", "namespace": "shop",
            "labels": {"service.kubernetes.io/service-proxy-name": "other"},
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "selector": {"app": "web"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
            ],
            "externalIPs": ["192.000.02.010", "no address"],
            "loadBalancerSourceRanges": [" 010.1.02.3/8 ", "2001:db8::/32"],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
            "publishNotReadyAddresses": true, "healthCheckNodePort": 32000,
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.9"}, {"hostname": "lb.example"}, {"ip": "192.0.2.10", "ipMode": "Proxy"},
        ]}},
    })))
    .unwrap();
    assert_eq!(service.name.to_string(), "shop/web");
    assert_eq!(service.kind, ServiceKind::LoadBalancer);
    assert_eq!(service.cluster_ips.len(), 2);
    assert_eq!(service.ports[0].node_port, Some(30080));
    assert_eq!(service.ports[0].target_port, TargetPort::Number(8080));
    assert_eq!(service.ports[1].target_port, TargetPort::Name("dns".into()));
    // What is no address is passed over, and zeroes that begin a part mean nothing.
    assert_eq!(service.external_ips, ["192.0.2.10".parse::<IpAddr>().unwrap()]);
    let ranges: Vec<_> = service.source_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Cluster);
    assert_eq!(service.affinity.unwrap().as_secs(), 7);
    assert_eq!(service.health_check_node_port, Some(32000));
    let ingress: Vec<_> =
        service.load_balancer.iter().map(|entry| (entry.address.to_string(), entry.proxy_mode)).collect();
    assert_eq!(ingress, [("192.0.2.9".into(), false), ("192.0.2.10".into(), true)]);
    assert_eq!(service.load_balancer_names, ["lb.example".into()]);
    assert!(service.publish_not_ready_addresses && service.other_proxy && !service.headless);
}

#[test]
fn what_a_service_leaves_out_is_as_the_api_would_fill_it_in() {
    let plain = with(json!({})).unwrap();
    assert_eq!(plain.kind, ServiceKind::ClusterIp);
    assert_eq!(plain.ports[0].target_port, TargetPort::Number(80));
    assert_eq!(plain.ports[0].protocol, sluice_model::Protocol::Tcp);
    assert_eq!((plain.affinity, plain.external_traffic_policy), (None, TrafficPolicy::Cluster));
    let sticky = with(json!({"sessionAffinity": "ClientIP"})).unwrap();
    assert_eq!(sticky.affinity.unwrap().as_secs(), 10_800);

    let headless = of_spec(json!({"clusterIP": "None"})).unwrap();
    assert!(headless.headless && headless.cluster_ips.is_empty());
    let plural = of_spec(json!({"clusterIPs": ["fd00::1"]})).unwrap();
    assert_eq!(plural.cluster_ips[0].to_string(), "fd00::1");

    // An ExternalName service is never proxied, even with an address.
    let external = with(json!({"type": "ExternalName", "externalName": "a.example."})).unwrap();
    assert_eq!((external.external_name.as_deref(), external.cluster_ips.len()), (Some("a.example"), 0));
    assert_eq!(
        service(&object(json!({"metadata": {"name": "a"}, "spec": {}}))).unwrap().name.to_string(),
        "default/a"
    );
}

#[test]
fn services_that_cannot_be_are_refused() {
    let port = |port: Value| json!({"ports": [port]});
    let table = [
        (with(port(json!({"port": 0}))), "spec.ports[0].port: 0 is not a port"),
        (
            with(port(json!({"port": 80, "targetPort": 70000}))),
            "spec.ports[0].targetPort: 70000 is not a port",
        ),
        (with(port(json!({"port": 80, "nodePort": -1}))), "spec.ports[0].nodePort: -1 is not a port"),
        (
            with(port(json!({"port": 80, "protocol": "tcp"}))),
            "spec.ports[0].protocol: \"tcp\" is not one of TCP",
        ),
        (with(json!({"ports": [{"port": 1}, {"port": 2}]})), "spec.ports[0].name: is missing"),
        (
            with(json!({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]})),
            "spec.ports[1].name: \"a\" is there twice",
        ),
        (
            with(json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]})),
            "spec.ports[1].port: 1/TCP is there twice",
        ),
        (with(json!({"clusterIP": "10.96"})), "spec.clusterIP: \"10.96\" is not an IP address"),
        (of_spec(json!({"clusterIPs": ["10.0.0.1", "x"]})), "spec.clusterIPs[1]: \"x\" is not an IP address"),
        (
            of_spec(json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]})),
            "spec.clusterIPs[1]: an address of 10.0.0.2's family",
        ),
        (
            of_spec(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]})),
            "spec.clusterIP: \"10.0.0.1\" contradicts spec.clusterIPs[0]",
        ),
        (with(json!({"type": "Clusterip"})), "spec.type: \"Clusterip\" is not one of ClusterIP, NodePort"),
        (with(json!({"type": "ExternalName"})), "spec.externalName: is missing"),
        (
            with(json!({"type": "ExternalName", "externalName": "a..b"})),
            "spec.externalName: \"a..b\" is not a valid",
        ),
        (
            with(json!({"externalTrafficPolicy": "local"})),
            "spec.externalTrafficPolicy: \"local\" is not one of",
        ),
        (with(json!({"internalTrafficPolicy": "x"})), "spec.internalTrafficPolicy: \"x\" is not one of"),
        (with(json!({"sessionAffinity": "Cookie"})), "spec.sessionAffinity: \"Cookie\" is not one of"),
        (
            with(json!({
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}},
            })),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 90000 is not a time-out",
        ),
        // An empty list of ranges lets everybody in; one that is not understood must not come to that.
        (
            with(json!({"loadBalancerSourceRanges": ["10.0.0.0"]})),
            "spec.loadBalancerSourceRanges[0]: \"10.0.0.0\" is not a network",
        ),
    ];
    for (result, expected) in table {
        let said = result.unwrap_err().to_string();
        assert!(said.starts_with(&format!("Service shop/web: {expected}")), "{said:?} is not {expected:?}");
    }
    let named = |name: &str| service(&object(json!({"metadata": {"name": name}, "spec": {}})));
    for name in ["Web", "a.b", "-a", "a/b", "", &"a".repeat(64)] {
        assert!(named(name).is_err(), "{name:?}");
    }
    assert!(
        service(&object(json!({"metadata": {"name": "a"}})))
            .unwrap_err()
            .to_string()
            .contains("spec: is missing")
    );
}

fn of_slice(slice: Value) -> Result<Option<sluice_model::EndpointSlice>, ConvertError> {
    let mut whole = json!({
        "metadata": {
            "name": "web-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:01Z"},
        },
        "addressType": "IPv4",
        "endpoints": [],
    });
    for (key, value) in slice.as_object().unwrap() {
        whole[key] = value.clone();
    }
    super::slice(&object::<EndpointSlice>(whole))
}

#[test]
fn a_slice_in_full() {
    let slice = of_slice(json!({
        "ports": [{"name": "http", "port": 80}, {"name": "all"}, {"port": 53, "protocol": "UDP"}],
        "endpoints": [
            {
                "addresses": ["10.0.0.1", "10.0.0.2"],
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "hostname": "db-0", "nodeName": "one", "zone": "z",
                "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "one"}]},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "db-0"},
            },
            {"addresses": ["10.0.0.3"], "targetRef": {"kind": "Node", "name": "n"}},
        ],
    }))
    .unwrap()
    .unwrap();
    assert_eq!((slice.service.unwrap().to_string(), slice.family), ("shop/web".into(), IpFamily::V4));
    let ports: Vec<_> = slice.ports.iter().map(|port| (&*port.name, port.port)).collect();
    assert_eq!(ports, [("http", 80), ("", 53)], "a port without a number is left out");
    let [first, second] = &slice.endpoints[..] else { panic!("two endpoints") };
    assert_eq!((first.ready, first.serving, first.terminating), (false, true, true));
    assert_eq!((first.hostname.as_deref(), first.node.as_deref()), (Some("db-0"), Some("one")));
    assert_eq!((&*first.hints.zones[0], &*first.hints.nodes[0]), ("z", "one"));
    assert_eq!(first.pod.as_ref().unwrap().to_string(), "shop/db-0");
    assert_eq!((second.ready, second.serving, second.terminating), (true, true, false), "what nil means");
    assert_eq!(second.pod, None);
    assert!(slice.last_change.is_some());
}

#[test]
fn a_slice_may_be_an_imports() {
    let of = |labels: Value| {
        of_slice(json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": labels}})).unwrap()
    };
    let (far, cluster) =
        ("multicluster.kubernetes.io/service-name", "multicluster.kubernetes.io/source-cluster");
    let slice = of(json!({(far): "web", (cluster): "one"})).unwrap();
    let imported = slice.imported.unwrap();
    assert_eq!((imported.service.to_string().as_str(), &*imported.cluster), ("shop/web", "one"));
    assert_eq!(slice.service, None);
    let slice = of(json!({(far): "web", "kubernetes.io/service-name": "derived-1"})).unwrap();
    assert_eq!(slice.service.unwrap().to_string(), "shop/derived-1");
    assert!(slice.imported.unwrap().cluster.is_empty());
    assert_eq!(of(json!({(cluster): "one"})), None);
}

#[test]
fn slices_for_dns_only_are_known_by_their_label() {
    let labels = json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""});
    let metadata = json!({"name": "web-1", "namespace": "shop", "labels": labels});
    assert!(of_slice(json!({"metadata": metadata})).unwrap().unwrap().headless);
    assert!(!of_slice(json!({})).unwrap().unwrap().headless);
}

#[test]
fn the_networks_of_services() {
    let of = |cidrs: Value| {
        service_cidr(&object(json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})))
    };
    let networks: Vec<_> = of(json!(["10.96.0.1/12", "fd00:96::/108"])).unwrap().cidrs;
    assert_eq!(
        networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.96.0.0/12", "fd00:96::/108"]
    );
    let said = of(json!(["10.96.0.0/12", "x"])).unwrap_err().to_string();
    assert!(said.starts_with("ServiceCIDR kubernetes: spec.cidrs[1]: \"x\" is not a network"), "{said}");
}

#[test]
fn slices_that_are_left_out_or_refused() {
    assert_eq!(of_slice(json!({"addressType": "FQDN"})).unwrap(), None);
    assert_eq!(of_slice(json!({"metadata": {"name": "a"}})).unwrap(), None, "it belongs to no service");
    let endpoint = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    let table = [
        (of_slice(json!({"addressType": "IPv5"})), "addressType: \"IPv5\" is not one of"),
        (of_slice(endpoint("x")), "endpoints[0].addresses[0]: \"x\" is not an IP address"),
        (of_slice(endpoint("fd00::1")), "endpoints[0].addresses[0]: fd00::1 is not of the family"),
        (of_slice(json!({"endpoints": [{"addresses": []}]})), "endpoints[0].addresses: is missing"),
        (of_slice(json!({"ports": [{"port": 99999}]})), "ports[0].port: 99999 is not a port"),
    ];
    for (result, expected) in table {
        let said = result.unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("EndpointSlice shop/web-1: {expected}")),
            "{said:?} is not {expected:?}"
        );
    }
}

fn of_pod(rest: Value, readiness: Readiness) -> Result<sluice_model::Pod, ConvertError> {
    let mut whole = json!({"metadata": {"name": "a"}});
    for (key, value) in rest.as_object().unwrap() {
        whole[key] = value.clone();
    }
    pod(&object::<core::Pod>(whole), readiness)
}

#[test]
fn pods() {
    let full = of_pod(
        json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "nodeName": "one", "hostname": "h", "subdomain": "s", "hostNetwork": true,
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}],
                "initContainers": [
                    {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "m", "containerPort": 9}]},
                    {"name": "once", "ports": [{"name": "o", "containerPort": 10}]},
                ],
            },
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }),
        Readiness::Assumed,
    )
    .unwrap();
    assert_eq!((full.addresses.len(), full.node.as_deref()), (2, Some("one")));
    assert_eq!((full.hostname.as_deref(), full.subdomain.as_deref()), (Some("h"), Some("s")));
    assert!(full.host_network && full.ready && full.terminating);
    let ports: Vec<_> = full.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [80, 53, 9], "init containers that end do not listen");

    let status =
        |condition: &str| json!({"status": {"conditions": [{"type": "Ready", "status": condition}]}});
    let table = [
        (json!({}), Readiness::Assumed, true),
        (json!({}), Readiness::Reported, false),
        (status("True"), Readiness::Reported, true),
        (status("False"), Readiness::Assumed, false),
        (status("Unknown"), Readiness::Assumed, false),
        (json!({"status": {"phase": "Failed"}}), Readiness::Assumed, false),
    ];
    for (rest, readiness, expected) in table {
        assert_eq!(of_pod(rest.clone(), readiness).unwrap().ready, expected, "{rest} {readiness:?}");
    }
    for (spec, own) in [
        (json!({"containers": []}), false),
        (json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet"}), false),
        (json!({"containers": [], "dnsPolicy": "Default"}), true),
        (json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10"]}}), true),
        (json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}), false),
        (json!({"containers": [], "dnsConfig": {"searches": ["corp.test"]}}), true),
    ] {
        let pod = of_pod(json!({ "spec": spec.clone() }), Readiness::Assumed).unwrap();
        assert_eq!(pod.own_search, own, "{spec}");
    }
    let ended = json!({"status": {"phase": "Succeeded", "podIP": "10.0.0.1"}});
    assert!(of_pod(ended, Readiness::Reported).unwrap().addresses.is_empty());
    let wrong = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "no"}]}});
    let said = of_pod(wrong, Readiness::Assumed).unwrap_err().to_string();
    assert!(said.starts_with("Pod default/a: status.podIPs[1].ip: \"no\" is not an IP address"), "{said}");
    let wrong = json!({"spec": {"hostname": "a.b", "containers": []}});
    assert_eq!(of_pod(wrong, Readiness::Assumed).unwrap_err().field, "spec.hostname");
}

#[test]
fn nodes_and_namespaces() {
    let full = node(&object(json!({
        "metadata": {"name": "one", "labels": {"topology.kubernetes.io/zone": "z"}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.7/24", "fd00::/64"]},
        "status": {"addresses": [
            {"type": "Hostname", "address": "one"},
            {"type": "ExternalIP", "address": "198.51.100.1"},
            {"type": "InternalIP", "address": "192.0.2.1"},
        ]},
    })))
    .unwrap();
    let cidrs: Vec<_> = full.pod_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.1.0.0/24", "fd00::/64"]);
    let kinds: Vec<_> = full.addresses.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [NodeAddressKind::External, NodeAddressKind::Internal]);
    assert_eq!((full.zone.as_deref(), full.draining), (Some("z"), false));
    let tainted = json!({
        "metadata": {"name": "one"},
        "spec": {"podCIDR": "10.1.0.0/24", "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
    });
    let tainted = node(&object(tainted)).unwrap();
    assert!(tainted.draining && tainted.pod_cidrs.len() == 1);
    let wrong = json!({"metadata": {"name": "one"}, "spec": {"podCIDRs": ["10.1.0.0"]}});
    let said = node(&object(wrong)).unwrap_err().to_string();
    assert!(said.starts_with("Node one: spec.podCIDRs[0]: \"10.1.0.0\" is not a network"), "{said}");
    let space = namespace(&object(json!({"metadata": {"name": "shop", "labels": {"a": "b"}}}))).unwrap();
    assert_eq!((&*space.name, space.labels.len()), ("shop", 1));
}
