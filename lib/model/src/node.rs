//! Nodes: their addresses and the pod networks behind them; and the networks of services.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// What a node's address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeAddressKind {
    /// Reachable from the other nodes.
    Internal,
    /// Reachable from outside.
    External,
}

/// One address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// What it is for.
    pub kind: NodeAddressKind,
    /// The address.
    pub address: IpAddr,
}

/// A Node, trimmed to what Sluice uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's name.
    pub name: Arc<str>,
    /// `status.addresses`, host names left out, in the order given: the first of a family is primary.
    pub addresses: Vec<NodeAddress>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// Being deleted, or tainted `ToBeDeletedByClusterAutoscaler`: not eligible for load balancers.
    pub draining: bool,
}

/// A ServiceCIDR: networks that cluster addresses of services are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// The object's name.
    pub name: Arc<str>,
    /// `spec.cidrs`, one of each family at most.
    pub cidrs: Vec<IpNet>,
}

impl Node {
    /// The first internal address of each family that the node has.
    pub fn primary_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let first = |v4: bool| {
            self.addresses
                .iter()
                .filter(move |a| a.address.is_ipv4() == v4)
                .min_by_key(|a| a.kind)
                .map(|a| a.address)
        };
        first(true).into_iter().chain(first(false))
    }
}
