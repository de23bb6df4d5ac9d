//! Which routes this node should have. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_model::{IpFamily, Snapshot};

use super::ways::{Way, overlay_device};
use crate::{
    config::Config,
    node::{Facts, gateways},
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
    /// The next hop is on the device's link although no address says so.
    pub onlink: bool,
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
    /// The overlay is needed, and this node has no address to send from.
    #[error(
        "node {node} is reached through the overlay, for which this node's own Node must have an address; its pod network {network} cannot be reached"
    )]
    NoOverlay {
        /// The node.
        node: Arc<str>,
        /// Its pod network.
        network: IpNet,
    },
    /// The overlay is needed, and the two nodes have no addresses of one family.
    #[error(
        "node {node} and this one have no addresses of a common family, which the overlay needs; its pod network {network} cannot be reached"
    )]
    NoCommonFamily {
        /// The node.
        node: Arc<str>,
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
    #[error("somebody else's route to {network}{} is there; it stays, and wins", by(.device))]
    Foreign {
        /// The destination.
        network: IpNet,
        /// The device that it leads to.
        device: Option<String>,
    },
}

fn by(device: &Option<String>) -> String {
    device.as_ref().map(|device| format!(" by {device}")).unwrap_or_default()
}

/// The routes that this node should have, by destination, and why there are no more.
pub fn desired(
    config: &Config,
    snapshot: &Snapshot,
    facts: &Facts,
) -> (BTreeMap<IpNet, WantedRoute>, Vec<RouteProblem>) {
    let gateways = gateways(&facts.pod_cidrs);
    let pods =
        facts.ways.networks.iter().map(|(network, way)| (*network, pod_route(*network, way, &gateways)));
    let mut routes: BTreeMap<IpNet, WantedRoute> = pods.collect();
    if config.proxy {
        for network in config.service_networks(snapshot) {
            routes.insert(network, service_route(network, facts));
        }
    }
    (routes, facts.ways.problems.clone())
}

/// To another node's pods. What this node itself sends through the overlay bears an address of its own pod network:
/// the one address by which the others answer through the overlay, too.
fn pod_route(network: IpNet, way: &Way, gateways: &[IpNet]) -> WantedRoute {
    match way {
        Way::Direct { via, device } => {
            WantedRoute { via: Some(*via), device: device.clone(), source: None, mtu: None, onlink: false }
        }
        Way::Overlay { hop, over } => WantedRoute {
            via: Some(*hop),
            device: overlay_device(*over).to_owned(),
            source: gateways.iter().map(IpNet::addr).find(|ip| IpFamily::of(*ip) == family(network)),
            mtu: None,
            onlink: true,
        },
    }
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
        onlink: false,
    }
}

fn family(network: IpNet) -> IpFamily {
    IpFamily::of(network.addr())
}
