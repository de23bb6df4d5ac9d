//! Which routes this node should have. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_model::{IpFamily, Node, Snapshot};

use crate::{
    config::Config,
    node::{Facts, Found},
};

/// A route to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRoute {
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The device.
    pub device: String,
    /// The source address of the node's own packets.
    pub source: Option<IpAddr>,
    /// The largest packet.
    pub mtu: Option<u32>,
}

/// Pods that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// The node has no address of the network's family.
    #[error("node {node} has no address for its pod network {network}")]
    NoAddress {
        /// The node.
        node: Arc<str>,
        /// Its pod network.
        network: IpNet,
    },
    /// The node is on no network of ours.
    #[error("node {node} at {address} is on no common network; its pod network {network} cannot be reached")]
    NotANeighbour {
        /// The node.
        node: Arc<str>,
        /// Its address.
        address: IpAddr,
        /// Its pod network.
        network: IpNet,
    },
    /// Two nodes claim the same addresses for their pods.
    #[error("the pod network {network} of node {node} overlaps that of node {other}")]
    Overlap {
        /// The node that goes without a route.
        node: Arc<str>,
        /// Its pod network.
        network: IpNet,
        /// The node that has it.
        other: Arc<str>,
    },
    /// Somebody else's route is there.
    #[error("somebody else's route to {network} is there; it is left as it is")]
    Foreign {
        /// The destination.
        network: IpNet,
    },
}

/// The routes that this node should have, by destination, and why there are no more.
pub fn desired(
    config: &Config,
    snapshot: &Snapshot,
    facts: &Facts,
    found: &Found,
) -> (BTreeMap<IpNet, WantedRoute>, Vec<RouteProblem>) {
    let mut routes = BTreeMap::new();
    let mut problems = Vec::new();
    if config.routes {
        pod_routes(config, snapshot, found, &mut routes, &mut problems);
    }
    if config.proxy {
        for network in config.service_networks(snapshot) {
            routes.insert(network, service_route(network, facts));
        }
    }
    (routes, problems)
}

/// Service addresses go to the service device, with the node's address as source: the one that the service's
/// endpoints can answer to.
fn service_route(network: IpNet, facts: &Facts) -> WantedRoute {
    let primary = facts.sources.get(&0).map(|uplink| match network {
        IpNet::V4(_) => IpAddr::from(uplink.v4),
        IpNet::V6(_) => IpAddr::from(uplink.v6),
    });
    WantedRoute {
        via: None,
        device: SERVICE_DEVICE.to_owned(),
        source: primary.filter(|ip| !ip.is_unspecified() && IpFamily::of(*ip) == family(network)),
        mtu: Some(facts.mtu),
    }
}

fn family(network: IpNet) -> IpFamily {
    IpFamily::of(network.addr())
}

fn pod_routes(
    config: &Config,
    snapshot: &Snapshot,
    found: &Found,
    routes: &mut BTreeMap<IpNet, WantedRoute>,
    problems: &mut Vec<RouteProblem>,
) {
    // This node first: nobody else's claim may lead its own pods' traffic away.
    let mut claimed: Vec<(IpNet, Arc<str>)> = Vec::new();
    let this = snapshot.nodes.get(&config.node_name);
    let others = snapshot.nodes.values().filter(|node| node.name != config.node_name);
    for node in this.into_iter().chain(others) {
        for &network in &node.pod_cidrs {
            let overlaps = |other: &IpNet| other.contains(&network) || network.contains(other);
            if let Some((_, other)) =
                claimed.iter().find(|(other, name)| overlaps(other) && *name != node.name)
            {
                problems.push(RouteProblem::Overlap {
                    node: node.name.clone(),
                    network,
                    other: other.clone(),
                });
                continue;
            }
            claimed.push((network, node.name.clone()));
            if node.name == config.node_name {
                continue;
            }
            match pod_route(node, network, found) {
                Ok(route) => drop(routes.insert(network, route)),
                Err(problem) => problems.push(problem),
            }
        }
    }
}

fn pod_route(node: &Node, network: IpNet, found: &Found) -> Result<WantedRoute, RouteProblem> {
    let mut addresses = node.primary_addresses();
    let Some(address) = addresses.find(|ip| IpFamily::of(*ip) == family(network)) else {
        return Err(RouteProblem::NoAddress { node: node.name.clone(), network });
    };
    match found.neighbour(address) {
        Some((device, own)) if own != address => {
            Ok(WantedRoute { via: Some(address), device: device.to_owned(), source: None, mtu: None })
        }
        // Either on no network of ours, or our own address under another node's name.
        _ => Err(RouteProblem::NotANeighbour { node: node.name.clone(), address, network }),
    }
}
