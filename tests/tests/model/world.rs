//! The cluster of a sequence: its objects, their random changes, and the proxy that programs them.

use std::{fmt, net::IpAddr, time::Duration};

use sluice_ebpf_common::{NETWORK_LOCAL_PODS, NETWORK_NO_MASQUERADE};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, LoadBalancerIngress, Node, Object,
    ObjectKey, ObjectName, Protocol, Service, ServiceKind, ServicePort, Snapshot, TargetPort, TrafficPolicy,
};
use sluice_proxy::{PinnedStore, Proxy, ProxyConfig};
use sluice_tests::datapath::{Bench, NODE_V4, NODE_V6};

use crate::random::Random;

/// This node.
pub(crate) const HERE: &str = "n1";
/// How many services there may be.
const SERVICES: usize = 3;
/// A service's ports: name, protocol, number, and what is added to its node port.
const PORTS: [(&str, Protocol, u16, u16); 4] = [
    ("a", Protocol::Tcp, 80, 0),
    ("b", Protocol::Udp, 80, 0),
    ("c", Protocol::Tcp, 81, 1),
    ("d", Protocol::Sctp, 80, 0),
];
/// Where endpoints can be: in IPv4, in IPv6, and the node. Two pods here, a server of this node itself, two pods
/// there, a server of that node itself.
const PLACES: [(&str, &str, &str); 6] = [
    ("10.244.1.11", "fd00:10:244:1::11", HERE),
    ("10.244.1.12", "fd00:10:244:1::12", HERE),
    (NODE_V4, NODE_V6, HERE),
    ("10.244.2.21", "fd00:10:244:2::21", "n2"),
    ("10.244.2.22", "fd00:10:244:2::22", "n2"),
    ("192.0.2.2", "2001:db8::2", "n2"),
];

/// The cluster, and what serves it.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    proxy: Proxy<PinnedStore>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.snapshot.nodes.get(HERE).map(|node| &node.zone);
        writeln!(f, "zone {zone:?}")?;
        self.snapshot.services.values().try_for_each(|service| writeln!(f, "{service:?}"))?;
        self.snapshot.slices.iter().try_for_each(|slice| {
            writeln!(f, "{} of {:?}: {:?} {:?}", slice.name, slice.service, slice.family, slice.ports)?;
            slice.endpoints.iter().try_for_each(|endpoint| writeln!(f, "    {endpoint:?}"))
        })
    }
}

fn open(bench: &mut Bench) -> Proxy<PinnedStore> {
    let store = PinnedStore::open(bench.datapath().pins()).unwrap();
    Proxy::new(store, ProxyConfig { name: HERE.into(), ..ProxyConfig::default() }).unwrap()
}

fn name(index: usize) -> ObjectName {
    ObjectName::new("default", format!("svc-{index}"))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(zone: Option<&str>) -> Object {
    Object::Node(Node {
        name: HERE.into(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        zone: zone.map(Into::into),
        draining: false,
    })
}

impl World {
    pub(crate) fn new(bench: &mut Bench) -> Self {
        // As the agent sets them: pods and nodes are met with one's own address.
        let networks = [
            ("10.244.0.0/16", NETWORK_NO_MASQUERADE),
            ("fd00:10:244::/48", NETWORK_NO_MASQUERADE),
            ("10.244.1.0/24", NETWORK_LOCAL_PODS),
            ("fd00:10:244:1::/64", NETWORK_LOCAL_PODS),
            ("192.0.2.1/32", NETWORK_NO_MASQUERADE),
            ("192.0.2.2/32", NETWORK_NO_MASQUERADE),
            ("2001:db8::1/128", NETWORK_NO_MASQUERADE),
            ("2001:db8::2/128", NETWORK_NO_MASQUERADE),
        ];
        let networks = networks.iter().map(|(net, flags)| (net.parse().unwrap(), *flags)).collect();
        bench.datapath().set_networks(&networks, true).unwrap();
        // All that is not on this node is to be reached on the wire.
        for family in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").unwrap();
        }
        for address in [
            "192.0.2.1/24",
            "2001:db8::1/64",
            "10.244.2.1/24",
            "fd00:10:244:2::1/64",
            "198.51.100.1/24",
            "203.0.114.1/24",
            "2001:db8:8::1/64",
            "2001:db8:9::1/64",
        ] {
            bench.address("wire", address);
        }
        let mut snapshot = Snapshot::default();
        snapshot.apply(node(Some("east")), &mut Changes::default());
        let mut proxy = open(bench);
        proxy.sync(&snapshot, &Changes::everything());
        Self { snapshot, proxy }
    }

    /// Makes a change, and lets the proxy program it; tells what it was.
    pub(crate) fn change(&mut self, bench: &mut Bench, random: &mut Random) -> String {
        let mut changes = Changes::default();
        let index = random.below(SERVICES);
        let family = *random.of(&IpFamily::ALL);
        let slice =
            |slot| ObjectName::new("default", format!("svc-{index}-{family:?}-{slot}").to_lowercase());
        let what = match random.below(20) {
            0..=6 => {
                let service = service(index, random);
                self.snapshot.apply(Object::Service(service), &mut changes);
                format!("service {index}")
            }
            7 => {
                self.snapshot.remove(&ObjectKey::Service(name(index)), &mut changes);
                format!("no service {index}")
            }
            8 => {
                let zone = random.of(&[None, Some("east"), Some("west")]);
                self.snapshot.apply(node(*zone), &mut changes);
                format!("zone {zone:?}")
            }
            9 => {
                self.proxy = open(bench);
                "a restart".to_owned()
            }
            10 => {
                let slot = random.below(2);
                self.snapshot.remove(&ObjectKey::EndpointSlice(slice(slot)), &mut changes);
                format!("no slice {}", slice(slot))
            }
            _ => {
                let slot = random.below(2);
                let other = self.snapshot.slices_of(&name(index)).find(|held| held.name == slice(1 - slot));
                let other = other.map(|other| other.endpoints.clone()).unwrap_or_default();
                let new = endpoint_slice(slice(slot), index, family, &other, random);
                let text = format!("slice {}", new.name);
                self.snapshot.apply(Object::EndpointSlice(new), &mut changes);
                text
            }
        };
        let report = self.proxy.sync(&self.snapshot, &changes);
        assert!(report.errors.is_empty(), "{what}: {:?}", report.errors);
        what
    }
}

/// A service, any that the API would let pass.
fn service(index: usize, random: &mut Random) -> Service {
    let families = random.of(&[vec![true], vec![false], vec![true, false], vec![false, true]]).clone();
    let pick = |v4: &str, v6: &str| -> Vec<IpAddr> {
        families
            .iter()
            .map(|is_v4| address(&format!("{}{}", if *is_v4 { v4 } else { v6 }, 10 + index)))
            .collect()
    };
    let kind = *random.of(&[ServiceKind::ClusterIp, ServiceKind::NodePort, ServiceKind::LoadBalancer]);
    let policy = |random: &mut Random| *random.of(&[TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let mut ports = random.some(&PORTS);
    if ports.is_empty() {
        ports.push(PORTS[0]);
    }
    let port = |(name, protocol, port, more): &(&str, Protocol, u16, u16)| ServicePort {
        name: (*name).into(),
        protocol: *protocol,
        port: *port,
        target_port: TargetPort::Number(8080),
        node_port: (kind != ServiceKind::ClusterIp).then_some(30000 + 10 * index as u16 + more),
    };
    let balancer = |address| LoadBalancerIngress { address, proxy_mode: false };
    let mut load_balancer: Vec<_> = pick("203.0.113.1", "2001:db8:ba::").into_iter().map(balancer).collect();
    if random.once_in(4) {
        load_balancer[0].proxy_mode = true;
    }
    let choices: [&[&str]; 4] = [
        &[],
        &["198.51.100.0/24", "2001:db8:9::/64"],
        &["10.244.0.0/16", "fd00:10:244::/48", "192.0.2.1/32"],
        &["0.0.0.0/0", "198.51.100.0/24"],
    ];
    let ranges = *random.of(&choices);
    let balanced = kind == ServiceKind::LoadBalancer;
    let service = Service {
        kind,
        cluster_ips: pick("10.96.0.", "fd00:96::"),
        ports: ports.iter().map(port).collect(),
        external_ips: if random.once_in(3) { pick("198.18.0.", "2001:db8:e1::") } else { Vec::new() },
        load_balancer: if balanced { load_balancer } else { Vec::new() },
        source_ranges: if balanced {
            ranges.iter().map(|net| net.parse().unwrap()).collect()
        } else {
            Vec::new()
        },
        external_traffic_policy: if kind == ServiceKind::ClusterIp {
            TrafficPolicy::Cluster
        } else {
            policy(random)
        },
        internal_traffic_policy: if random.once_in(2) { TrafficPolicy::Cluster } else { policy(random) },
        affinity: random.once_in(4).then_some(Duration::from_secs(10800)),
        ..Service::new(name(index))
    };
    match random.below(16) {
        0 => Service { other_proxy: true, ..service },
        1 => Service { kind: ServiceKind::ExternalName, external_name: Some("x.example".into()), ..service },
        2 => Service { headless: true, cluster_ips: Vec::new(), load_balancer: Vec::new(), ..service },
        _ => service,
    }
}

/// A slice of a service. An address may stand in the service's `other` slice as well, but only while one of the two
/// terminates: of two that do not, nothing says which counts.
fn endpoint_slice(
    slice: ObjectName,
    index: usize,
    family: IpFamily,
    other: &[Endpoint],
    random: &mut Random,
) -> EndpointSlice {
    let hints = random.below(5);
    let places = random.some(&PLACES);
    let endpoints = places.iter().map(|(v4, v6, node)| {
        let (ready, serving, terminating) = *random.of(&[
            (true, true, false),
            (true, true, false),
            (true, true, false),
            (false, false, false),
            (false, true, true),
            (false, true, true),
            (false, false, true),
            (true, true, true),
        ]);
        let zones: &[&[&str]] = &[&["east"], &["west"], &["east", "west"]];
        let nodes: &[&[&str]] = &[&[HERE], &["n2"]];
        let list = |names: &&[&str]| names.iter().map(|name| (*name).into()).collect();
        let hints = Hints {
            zones: if hints >= 3 && !random.once_in(12) { list(random.of(zones)) } else { Vec::new() },
            nodes: if hints == 4 && !random.once_in(12) { list(random.of(nodes)) } else { Vec::new() },
        };
        Endpoint {
            addresses: vec![address(if family == IpFamily::V4 { v4 } else { v6 })],
            ready,
            serving,
            terminating,
            hostname: None,
            node: Some((*node).into()),
            zone: None,
            hints,
            pod: None,
        }
    });
    let clear = |endpoint: &Endpoint| {
        !other.iter().any(|o| o.addresses == endpoint.addresses && o.terminating == endpoint.terminating)
    };
    let endpoints = endpoints.collect::<Vec<_>>().into_iter().filter(clear).collect();
    let ports = PORTS.iter().filter(|_| !random.once_in(6)).collect::<Vec<_>>();
    let target = *random.of(&[8080, 8081]);
    EndpointSlice {
        name: slice,
        service: Some(name(index)),
        imported: None,
        family,
        ports: ports
            .into_iter()
            .map(|(name, protocol, ..)| EndpointPort {
                name: (*name).into(),
                protocol: *protocol,
                port: target,
            })
            .collect(),
        endpoints,
        last_change: None,
        headless: random.once_in(20),
    }
}
