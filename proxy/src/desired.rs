//! From a snapshot to what the services' maps should hold: all of the Kubernetes semantics, and no I/O.
//!
//! A service's port is one or two entries here, one for each family in which it has an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use sluice_ebpf_common::{
    Addr, Be16, FRONTEND_ADDRESS, FRONTEND_EXTERNAL, FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_OUTSIDE,
    FRONTEND_LOCAL_SERVER, FRONTEND_SOURCE_RANGES, FrontendKey, SERVICE_DROP_IF_EMPTY, SERVICE_FAST_PATH,
};
use sluice_model::{
    Endpoint, IpFamily, ObjectName, PortName, Protocol, Service, ServicePort, Snapshot, TrafficPolicy,
};

/// What the proxy must know of the node it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The node's name.
    pub name: Arc<str>,
    /// The service whose ports 53 and 9153 a server on this node answers itself; see [`FRONTEND_LOCAL_SERVER`].
    pub local_dns: Option<ObjectName>,
    /// Pages of that server: where clients ask (TCP), and where on this node it listens for that. Ports of the service
    /// itself go before.
    pub local_pages: BTreeMap<SocketAddr, SocketAddr>,
    /// Whether connect() to a cluster address may go straight to a backend.
    pub fast_path: bool,
    /// Whether whatever goes to a cluster address bears the node's address, pods' packets too (row 6 of the behaviour
    /// table). There is no fast path then: its connections are the pod's own.
    pub masquerade_all: bool,
}

/// Which of a service's endpoints are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This node's.
    Local,
    /// The cluster's.
    Cluster,
}

/// A port of a service in one family. With [`Scope::Local`] there is one only where a traffic policy asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The service.
    pub service: ObjectName,
    /// The port's name; empty where it has none.
    pub port: PortName,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: IpFamily,
    /// Which endpoints.
    pub scope: Scope,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        };
        let local = if self.scope == Scope::Local { " (local)" } else { "" };
        write!(f, "{} port {:?} {} {family}{local}", self.service, self.port, self.protocol)
    }
}

/// What the datapath should know of a [`ServiceKey`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredService {
    /// `SERVICE_*`.
    pub flags: u32,
    /// For how many seconds a client stays with its endpoint; 0 for not at all.
    pub affinity: u32,
    /// Where clients send, with `FRONTEND_*`.
    pub frontends: BTreeMap<FrontendKey, u32>,
    /// The networks that a load balancer's clients may come from: address, and prefix length over 128 bits.
    pub source_ranges: BTreeSet<(Addr, u32)>,
    /// Where new connections go.
    pub backends: Addresses,
    /// Where no new connection goes, but datagrams that go there may go on: endpoints that still serve
    /// (row 27 of the behaviour table).
    pub draining: Addresses,
}

/// Where endpoints listen.
type Addresses = BTreeSet<(Addr, Be16)>;

/// The ports of the cluster's DNS that a server on this node answers itself: DNS, and CoreDNS's metrics.
const LOCAL_PORTS: [u16; 2] = [53, 9153];

/// All that one service wants; empty for a service that is not proxied or not there. The service of the cluster's DNS
/// has the pages of this node's server.
pub fn desired_services(
    snapshot: &Snapshot,
    name: &ObjectName,
    node: &NodeView,
) -> BTreeMap<ServiceKey, DesiredService> {
    let mut desired = desired_ports(snapshot, name, node);
    if node.local_dns.as_ref() == Some(name) {
        add_pages(name, node, &mut desired);
    }
    desired
}

/// Adds the pages of this node's DNS server, each with this node's socket for its only endpoint.
fn add_pages(name: &ObjectName, node: &NodeView, desired: &mut BTreeMap<ServiceKey, DesiredService>) {
    let taken: BTreeSet<FrontendKey> =
        desired.values().flat_map(|service| service.frontends.keys().copied()).collect();
    let is_fast = node.fast_path && !node.masquerade_all;
    for (at, server) in &node.local_pages {
        let proto = u16::from(Protocol::Tcp.number());
        let frontend = FrontendKey { addr: at.ip().into(), port: Be16::from_host(at.port()), proto, pad: 0 };
        if taken.contains(&frontend) {
            continue;
        }
        let key = ServiceKey {
            service: name.clone(),
            port: format!("page {}", at.port()).into(),
            protocol: Protocol::Tcp,
            family: IpFamily::of(at.ip()),
            scope: Scope::Cluster,
        };
        let page = desired.entry(key).or_default();
        page.flags = if is_fast { SERVICE_FAST_PATH } else { 0 };
        page.frontends.insert(frontend, 0);
        page.backends.insert((server.ip().into(), Be16::from_host(server.port())));
    }
}

/// What a service's own ports want.
fn desired_ports(
    snapshot: &Snapshot,
    name: &ObjectName,
    node: &NodeView,
) -> BTreeMap<ServiceKey, DesiredService> {
    let mut desired = BTreeMap::new();
    let this_node = snapshot.nodes.get(&node.name);
    let own: Vec<IpAddr> = this_node.map(|node| node.primary_addresses().collect()).unwrap_or_default();
    let Some(service) = snapshot.services.get(name).filter(|service| service.is_proxied()) else {
        return desired;
    };
    // The cluster addresses as such go with the first port that has them.
    let mut whole: BTreeSet<FrontendKey> = service.cluster_ips.iter().map(|ip| whole_address(*ip)).collect();
    for (port, family) in service.ports.iter().flat_map(|port| IpFamily::ALL.map(|family| (port, family))) {
        let source_ranges = source_ranges(service, family, &own);
        let mut frontends = frontends(service, port, family, !source_ranges.is_empty(), node);
        if frontends.is_empty() {
            continue;
        }
        let v4 = family == IpFamily::V4;
        let mine = whole.extract_if(.., |key| key.addr.is_v4() == v4);
        frontends.extend(mine.map(|key| (key, FRONTEND_ADDRESS)));
        let endpoints = endpoints(snapshot, name, port, family);
        let zone = this_node.and_then(|node| node.zone.clone());
        let cluster = cluster_endpoints(&endpoints, node, zone.as_deref());
        let local = usable(&endpoints, |endpoint| endpoint.node.as_ref() == Some(&node.name));
        let serving: Addresses = all(&endpoints, |endpoint| endpoint.serving);

        let fast = node.fast_path
            && !node.masquerade_all
            && port.protocol == Protocol::Tcp
            && service.affinity.is_none();
        let flags = if fast { SERVICE_FAST_PATH } else { 0 };
        let affinity = service.affinity.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        let key = |scope| ServiceKey {
            service: name.clone(),
            port: port.name.clone(),
            protocol: port.protocol,
            family,
            scope,
        };
        let with = |flags, backends: Addresses| DesiredService {
            flags,
            affinity,
            draining: serving.difference(&backends).copied().collect(),
            backends,
            ..DesiredService::default()
        };
        if frontends.values().any(|flags| flags & (FRONTEND_LOCAL_INSIDE | FRONTEND_LOCAL_OUTSIDE) != 0) {
            let elsewhere = local.is_empty() && !cluster.is_empty();
            let flags = if elsewhere { flags | SERVICE_DROP_IF_EMPTY } else { flags };
            desired.insert(key(Scope::Local), with(flags, local));
        }
        desired
            .insert(key(Scope::Cluster), DesiredService { frontends, source_ranges, ..with(flags, cluster) });
    }
    desired
}

/// The key under which a cluster address is known whatever the port; see [`FRONTEND_ADDRESS`].
fn whole_address(address: IpAddr) -> FrontendKey {
    FrontendKey { addr: address.into(), ..FrontendKey::default() }
}

/// The networks that a load balancer's clients may come from, in one family; empty where all may (row 16 of
/// the behaviour table: any prefix of length 0 lets everybody in).
///
/// Where the node is among them, so is the load balancer itself: what the node sends to an address that it also
/// holds bears that address.
fn source_ranges(service: &Service, family: IpFamily, node: &[IpAddr]) -> BTreeSet<(Addr, u32)> {
    let of_family = service.source_ranges.iter().filter(|range| IpFamily::of(range.addr()) == family);
    if of_family.clone().any(|range| range.prefix_len() == 0) {
        return BTreeSet::new();
    }
    let extra = if family == IpFamily::V4 { 96 } else { 0 };
    let mut ranges: BTreeSet<_> = of_family
        .clone()
        .map(|range| (range.network().into(), u32::from(range.prefix_len()) + extra))
        .collect();
    if node.iter().any(|address| of_family.clone().any(|range| range.contains(address))) {
        let balancers = service.load_balancer.iter().map(|ingress| ingress.address);
        ranges.extend(balancers.filter(|ip| IpFamily::of(*ip) == family).map(|ip| (ip.into(), 128)));
    }
    ranges
}

/// The addresses of one port in one family.
fn frontends(
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
    restricted: bool,
    node: &NodeView,
) -> BTreeMap<FrontendKey, u32> {
    let key = |addr: Addr, number: u16| FrontendKey {
        addr,
        port: Be16::from_host(number),
        proto: u16::from(port.protocol.number()),
        pad: 0,
    };
    let of_family = |address: &&IpAddr| IpFamily::of(**address) == family;
    let when = |condition: bool, flag: u32| if condition { flag } else { 0 };
    let local_server = LOCAL_PORTS.contains(&port.port) && node.local_dns.as_ref() == Some(&service.name);
    let inside = when(local_server, FRONTEND_LOCAL_SERVER)
        | when(node.masquerade_all, FRONTEND_EXTERNAL)
        | when(service.internal_traffic_policy == TrafficPolicy::Local, FRONTEND_LOCAL_INSIDE);
    let outside = FRONTEND_EXTERNAL
        | when(service.external_traffic_policy == TrafficPolicy::Local, FRONTEND_LOCAL_OUTSIDE);

    let mut frontends = BTreeMap::new();
    for address in service.cluster_ips.iter().filter(of_family) {
        frontends.insert(key((*address).into(), port.port), inside);
    }
    for address in service.external_ips.iter().filter(of_family) {
        frontends.entry(key((*address).into(), port.port)).or_insert(outside);
    }
    let balancers = service.load_balancer.iter().filter(|ingress| !ingress.proxy_mode);
    for address in balancers.map(|ingress| &ingress.address).filter(of_family) {
        let flags = outside | when(restricted, FRONTEND_SOURCE_RANGES);
        frontends.entry(key((*address).into(), port.port)).or_insert(flags);
    }
    // A node port exists in the families in which the service has a cluster address.
    if let (Some(number), false) = (port.node_port, frontends.is_empty()) {
        frontends.insert(key(Addr::any(family == IpFamily::V4), number), outside);
    }
    frontends
}

/// A port's endpoints in one family, by where they listen.
type Endpoints<'a> = BTreeMap<(Addr, Be16), &'a Endpoint>;

/// The endpoints of one port in one family, from all slices.
fn endpoints<'a>(
    snapshot: &'a Snapshot,
    service: &ObjectName,
    port: &ServicePort,
    family: IpFamily,
) -> Endpoints<'a> {
    let mut endpoints: Endpoints<'_> = BTreeMap::new();
    for slice in snapshot.slices_of(service).filter(|slice| slice.family == family && !slice.headless) {
        let numbers = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let Some(address) = endpoint.addresses.first() else { continue };
                let at = ((*address).into(), Be16::from_host(number.port));
                // An address may stand in two slices while it moves; the entry that is not terminating counts.
                let held = endpoints.entry(at).or_insert(endpoint);
                if held.terminating && !endpoint.terminating {
                    *held = endpoint;
                }
            }
        }
    }
    endpoints
}

fn all(endpoints: &Endpoints<'_>, wanted: impl Fn(&Endpoint) -> bool) -> Addresses {
    endpoints.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(at, _)| *at).collect()
}

/// Where new connections may go, among some endpoints: those that are ready; where there is none, those that are
/// terminating and still serve (row 22 of the behaviour table, KEP-1669).
fn usable(endpoints: &Endpoints<'_>, among: impl Fn(&Endpoint) -> bool) -> Addresses {
    let ready = all(endpoints, |endpoint| among(endpoint) && endpoint.ready);
    if !ready.is_empty() {
        return ready;
    }
    all(endpoints, |endpoint| among(endpoint) && endpoint.serving && endpoint.terminating)
}

/// Where new connections go that may go anywhere: of the ready endpoints, those whose hints name this node, if
/// all have such hints and one names it; otherwise likewise for the zone; otherwise all (row 24 of the behaviour
/// table, KEP-4444 and KEP-3015).
fn cluster_endpoints(endpoints: &Endpoints<'_>, node: &NodeView, zone: Option<&str>) -> Addresses {
    let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let for_node = |endpoint: &Endpoint| endpoint.hints.nodes.contains(&node.name);
    let for_zone = |endpoint: &Endpoint| endpoint.hints.zones.iter().any(|hint| Some(&**hint) == zone);
    if ready().all(|endpoint| !endpoint.hints.nodes.is_empty()) && ready().any(|endpoint| for_node(endpoint))
    {
        return all(endpoints, |endpoint| endpoint.ready && for_node(endpoint));
    }
    if ready().all(|endpoint| !endpoint.hints.zones.is_empty()) && ready().any(|endpoint| for_zone(endpoint))
    {
        return all(endpoints, |endpoint| endpoint.ready && for_zone(endpoint));
    }
    usable(endpoints, |_| true)
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
