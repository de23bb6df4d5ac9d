//! What Kubernetes means: from the cluster's objects and a client to what may become of a new connection. As plain as
//! can be; rows are those of the behaviour table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use sluice_model::{
    Endpoint, IpFamily, ObjectName, Service, ServiceKind, ServicePort, Snapshot, TrafficPolicy,
};

use crate::world::HERE;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A pod of this node.
    Pod,
    /// A pod of another node, whose packet came in by the wire.
    OtherPod,
    /// Outside the cluster.
    Outside,
    /// This node itself.
    Node,
    /// This node itself, talking to its loopback address.
    Loopback,
}

/// Which of a service's addresses is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// Its cluster address.
    Cluster,
    /// A node port.
    NodePort,
    /// An external address.
    External,
    /// A load balancer's address.
    Balancer,
}

/// What may become of a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// No service has this address.
    NotServed,
    /// Answered with a refusal.
    Refused,
    /// Dropped.
    Dropped,
    /// Goes to one of these, with its own address or with the node's.
    Goes { to: BTreeSet<SocketAddr>, masqueraded: bool },
}

/// A place where a service's port can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) service: ObjectName,
    pub(crate) port: ServicePort,
    pub(crate) through: Through,
    pub(crate) at: SocketAddr,
}

/// Every place that the objects speak of, served or not.
pub(crate) fn targets(snapshot: &Snapshot, node: &[IpAddr]) -> Vec<Target> {
    let mut targets = Vec::new();
    for service in snapshot.services.values() {
        for port in &service.ports {
            let mut add = |through, address: IpAddr, number| {
                let at = SocketAddr::new(address, number);
                targets.push(Target { service: service.name.clone(), port: port.clone(), through, at });
            };
            service.cluster_ips.iter().for_each(|ip| add(Through::Cluster, *ip, port.port));
            service.external_ips.iter().for_each(|ip| add(Through::External, *ip, port.port));
            service
                .load_balancer
                .iter()
                .for_each(|ingress| add(Through::Balancer, ingress.address, port.port));
            if let Some(number) = port.node_port {
                node.iter().for_each(|ip| add(Through::NodePort, *ip, number));
            }
        }
    }
    targets
}

/// What may become of a new connection of a client at `client`.
pub(crate) fn expected(snapshot: &Snapshot, from: From, client: IpAddr, target: &Target) -> Expected {
    let Some(service) = snapshot.services.get(&target.service) else { return Expected::NotServed };
    if !is_served(service, target) {
        return Expected::NotServed;
    }
    if target.through == Through::Balancer && !may_come(service, client) {
        return Expected::Dropped;
    }
    let family = IpFamily::of(target.at.ip());
    let endpoints = endpoints(snapshot, service, &target.port, family);
    let here = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(HERE);
    let cluster = anywhere(&endpoints, snapshot);
    let local = usable(&endpoints, here);
    let external = target.through != Through::Cluster;
    let policy = if external { service.external_traffic_policy } else { service.internal_traffic_policy };
    // Rows 18 and 19: outside clients of a Local service stay on this node; whoever is on it already is inside.
    let stays_here =
        policy == TrafficPolicy::Local && (!external || matches!(from, From::OtherPod | From::Outside));
    let to = if stays_here { local } else { cluster.clone() };
    if to.is_empty() {
        return if cluster.is_empty() && endpoints.values().all(|e| !is_any(e)) {
            Expected::Refused
        } else {
            Expected::Dropped
        };
    }
    // Rows 6, 17 and 18.
    let masqueraded = match from {
        From::Node | From::Loopback => true,
        From::Pod => external && policy == TrafficPolicy::Cluster,
        From::OtherPod | From::Outside => !external || policy == TrafficPolicy::Cluster,
    };
    Expected::Goes { to, masqueraded }
}

/// Rows 1, 2, 14 and 15.
fn is_served(service: &Service, target: &Target) -> bool {
    let of_family = |ip: &IpAddr| ip.is_ipv4() == target.at.is_ipv4();
    let proxied = !service.other_proxy
        && !service.headless
        && service.kind != ServiceKind::ExternalName
        && !service.cluster_ips.is_empty();
    let port = service
        .ports
        .iter()
        .find(|port| port.name == target.port.name && port.protocol == target.port.protocol);
    let Some(port) = port.filter(|_| proxied) else { return false };
    let address = target.at.ip();
    match target.through {
        Through::Cluster => service.cluster_ips.contains(&address) && port.port == target.at.port(),
        Through::External => service.external_ips.contains(&address) && port.port == target.at.port(),
        Through::Balancer => {
            let held = |ingress: &sluice_model::LoadBalancerIngress| {
                ingress.address == address && !ingress.proxy_mode
            };
            service.load_balancer.iter().any(held) && port.port == target.at.port()
        }
        Through::NodePort => {
            port.node_port == Some(target.at.port()) && service.cluster_ips.iter().any(of_family)
        }
    }
}

/// Row 16.
fn may_come(service: &Service, client: IpAddr) -> bool {
    let ranges = || service.source_ranges.iter().filter(|range| range.addr().is_ipv4() == client.is_ipv4());
    ranges().count() == 0
        || ranges().any(|range| range.prefix_len() == 0)
        || ranges().any(|range| range.contains(&client))
}

/// Row 4.
pub(crate) fn endpoints(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
) -> BTreeMap<SocketAddr, Endpoint> {
    let mut merged: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for slice in snapshot.slices_of(&service.name) {
        if slice.family != family || slice.headless {
            continue;
        }
        for number in slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol) {
            for endpoint in &slice.endpoints {
                let at = SocketAddr::new(endpoint.addresses[0], number.port);
                let better = merged.get(&at).is_none_or(|held| held.terminating && !endpoint.terminating);
                if better {
                    merged.insert(at, endpoint.clone());
                }
            }
        }
    }
    merged
}

type Endpoints = BTreeMap<SocketAddr, Endpoint>;

/// Whether an endpoint counts at all when it is asked whether a service has any.
fn is_any(endpoint: &Endpoint) -> bool {
    endpoint.ready || endpoint.serving && endpoint.terminating
}

fn those(endpoints: &Endpoints, wanted: impl Fn(&Endpoint) -> bool) -> BTreeSet<SocketAddr> {
    endpoints.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(at, _)| *at).collect()
}

/// Row 22.
fn usable(endpoints: &Endpoints, among: impl Fn(&Endpoint) -> bool) -> BTreeSet<SocketAddr> {
    let ready = those(endpoints, |e| among(e) && e.ready);
    if ready.is_empty() { those(endpoints, |e| among(e) && e.serving && e.terminating) } else { ready }
}

/// Rows 22 and 24.
fn anywhere(endpoints: &Endpoints, snapshot: &Snapshot) -> BTreeSet<SocketAddr> {
    let zone = snapshot.nodes.get(HERE).and_then(|node| node.zone.clone());
    let mut ready = endpoints.clone();
    ready.retain(|_, endpoint| endpoint.ready);
    let on_node = those(&ready, |e| e.hints.nodes.iter().any(|node| &**node == HERE));
    if !on_node.is_empty() && ready.values().all(|e| !e.hints.nodes.is_empty()) {
        return on_node;
    }
    let in_zone = those(&ready, |e| zone.as_ref().is_some_and(|zone| e.hints.zones.contains(zone)));
    if !in_zone.is_empty() && ready.values().all(|e| !e.hints.zones.is_empty()) {
        return in_zone;
    }
    usable(endpoints, |_| true)
}

/// Whether an endpoint of a service's port still serves (row 27).
pub(crate) fn serves(snapshot: &Snapshot, target: &Target, at: SocketAddr) -> bool {
    let Some(service) = snapshot.services.get(&target.service) else { return false };
    is_served(service, target)
        && endpoints(snapshot, service, &target.port, IpFamily::of(at.ip()))
            .get(&at)
            .is_some_and(|e| e.serving)
}
