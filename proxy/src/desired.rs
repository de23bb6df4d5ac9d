//! From a snapshot to what the services' maps should hold: all of the Kubernetes semantics, and no I/O.
//!
//! A service's port is one or two entries here, one for each family in which it has an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use sluice_ebpf_common::{
    Addr, Be16, FRONTEND_EXTERNAL, FRONTEND_LOCAL_SERVER, FrontendKey, SERVICE_FAST_PATH,
};
use sluice_model::{Endpoint, IpFamily, ObjectName, PortName, Protocol, Service, ServicePort, Snapshot};

/// What the proxy must know of the node it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The node's name.
    pub name: Arc<str>,
    /// The service whose port 53 a server on this node answers itself; see [`FRONTEND_LOCAL_SERVER`].
    pub local_dns: Option<ObjectName>,
    /// Whether connect() to a cluster address may go straight to a backend.
    pub fast_path: bool,
}

/// A port of a service in one family.
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
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        };
        write!(f, "{} port {:?} {} {family}", self.service, self.port, self.protocol)
    }
}

/// What the datapath should know of a [`ServiceKey`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredService {
    /// `SERVICE_*`.
    pub flags: u32,
    /// Where clients send, with `FRONTEND_*`.
    pub frontends: BTreeMap<FrontendKey, u32>,
    /// Where new connections go.
    pub backends: BTreeSet<(Addr, Be16)>,
    /// Where no new connection goes, but datagrams that go there may go on: endpoints that still serve
    /// (row 27 of the behaviour table).
    pub draining: BTreeSet<(Addr, Be16)>,
}

/// All that one service wants; empty for a service that is not proxied or not there.
pub fn desired_services(
    snapshot: &Snapshot,
    name: &ObjectName,
    node: &NodeView,
) -> BTreeMap<ServiceKey, DesiredService> {
    let Some(service) = snapshot.services.get(name).filter(|service| service.is_proxied()) else {
        return BTreeMap::new();
    };
    let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Sctp);
    ports
        .flat_map(|port| IpFamily::ALL.map(|family| (port, family)))
        .filter_map(|(port, family)| {
            let frontends = frontends(service, port, family, node);
            if frontends.is_empty() {
                return None;
            }
            let (backends, draining) = backends(snapshot, name, port, family);
            let key = ServiceKey {
                service: name.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                family,
            };
            let fast = node.fast_path && port.protocol == Protocol::Tcp && service.affinity.is_none();
            let flags = if fast { SERVICE_FAST_PATH } else { 0 };
            Some((key, DesiredService { flags, frontends, backends, draining }))
        })
        .collect()
}

/// The addresses of one port in one family.
fn frontends(
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
    node: &NodeView,
) -> BTreeMap<FrontendKey, u32> {
    let key = |addr: Addr, number: u16| FrontendKey {
        addr,
        port: Be16::from_host(number),
        proto: u16::from(port.protocol.number()),
        pad: 0,
    };
    let of_family = |address: &&IpAddr| IpFamily::of(**address) == family;
    let mut frontends = BTreeMap::new();

    let local_server = port.port == 53 && node.local_dns.as_ref() == Some(&service.name);
    let cluster_flags = if local_server { FRONTEND_LOCAL_SERVER } else { 0 };
    for address in service.cluster_ips.iter().filter(of_family) {
        frontends.insert(key((*address).into(), port.port), cluster_flags);
    }
    let load_balancer =
        service.load_balancer.iter().filter(|ingress| !ingress.proxy_mode).map(|ingress| &ingress.address);
    for address in service.external_ips.iter().chain(load_balancer).filter(of_family) {
        frontends.entry(key((*address).into(), port.port)).or_insert(FRONTEND_EXTERNAL);
    }
    // A node port exists in the families in which the service has a cluster address.
    if let (Some(number), false) = (port.node_port, frontends.is_empty()) {
        frontends.insert(key(Addr::any(family == IpFamily::V4), number), FRONTEND_EXTERNAL);
    }
    frontends
}

/// The endpoints of one port in one family: those for new connections, and those that only drain.
///
/// New connections go to the endpoints that are ready; where there is none, to those that are terminating and
/// still serve (row 22 of the behaviour table, KEP-1669).
fn backends(
    snapshot: &Snapshot,
    service: &ObjectName,
    port: &ServicePort,
    family: IpFamily,
) -> (BTreeSet<(Addr, Be16)>, BTreeSet<(Addr, Be16)>) {
    // An address may stand in two slices while it moves; the entry that is not terminating counts.
    let mut endpoints: BTreeMap<(Addr, Be16), &Endpoint> = BTreeMap::new();
    for slice in snapshot.slices_of(service).filter(|slice| slice.family == family) {
        let numbers = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let Some(address) = endpoint.addresses.first() else { continue };
                let at = ((*address).into(), Be16::from_host(number.port));
                let held = endpoints.entry(at).or_insert(endpoint);
                if held.terminating && !endpoint.terminating {
                    *held = endpoint;
                }
            }
        }
    }
    let select = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<(Addr, Be16)> {
        endpoints.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(at, _)| *at).collect()
    };
    let mut usable = select(|endpoint| endpoint.ready);
    if usable.is_empty() {
        usable = select(|endpoint| endpoint.serving && endpoint.terminating);
    }
    let draining = select(|endpoint| endpoint.serving).difference(&usable).copied().collect();
    (usable, draining)
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
