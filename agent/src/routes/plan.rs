//! From the routes that are there to those that should be. Pure.
//!
//! Only routes that carry our protocol number are changed or removed. A route of somebody else's to one of our
//! destinations stays, and is reported: the kernel would hold both and choose by metric.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;

use super::desired::{RouteProblem, WantedRoute};
use crate::node::FoundRoute;

/// One change of the routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOp {
    /// Adds a route where none is. One that somebody else has made meanwhile stays, and that is an error.
    Add(IpNet, WantedRoute),
    /// Puts a route in the place of ours to the same destination.
    Replace(IpNet, WantedRoute),
    /// Removes ours.
    Remove(IpNet),
}

impl RouteOp {
    /// Whether this makes a route by the device.
    pub fn is_to(&self, device: &str) -> bool {
        matches!(self, Self::Add(_, route) | Self::Replace(_, route) if route.device == device)
    }
}

impl fmt::Display for RouteOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(network, WantedRoute { via: Some(via), device, .. })
            | Self::Replace(network, WantedRoute { via: Some(via), device, .. }) => {
                write!(f, "route {network} via {via} by {device}")
            }
            Self::Add(network, WantedRoute { device, .. })
            | Self::Replace(network, WantedRoute { device, .. }) => {
                write!(f, "route {network} by {device}")
            }
            Self::Remove(network) => write!(f, "remove the route to {network}"),
        }
    }
}

/// The operations that make the routes what they should be: new ones first, old ones last.
pub fn plan(
    wanted: &BTreeMap<IpNet, WantedRoute>,
    found: &[FoundRoute],
) -> (Vec<RouteOp>, Vec<RouteProblem>) {
    let mut ops = Vec::new();
    let mut problems = Vec::new();
    let mut held: BTreeMap<IpNet, Vec<&FoundRoute>> = BTreeMap::new();
    for route in found {
        held.entry(route.destination).or_default().push(route);
    }
    for (network, route) in wanted {
        let mut there = held.get(network).into_iter().flatten();
        let ours = there.clone().filter(|held| held.ours);
        let same = ours.clone().any(|held| matches(route, held));
        if let Some(other) = there.find(|held| !held.ours) {
            problems.push(RouteProblem::Foreign { network: *network, device: other.device.clone() });
        } else if !same {
            let op = if ours.count() == 0 { RouteOp::Add } else { RouteOp::Replace };
            ops.push(op(*network, route.clone()));
        }
    }
    let stale = found.iter().filter(|held| held.ours && !wanted.contains_key(&held.destination));
    ops.extend(stale.map(|held| RouteOp::Remove(held.destination)));
    (ops, problems)
}

/// What becomes of the routes that are there when the operations are carried out.
pub fn carried_out<'a>(found: &mut Vec<FoundRoute>, ops: impl Iterator<Item = &'a RouteOp> + Clone) {
    let destination = |op: &RouteOp| match op {
        RouteOp::Add(network, _) | RouteOp::Replace(network, _) | RouteOp::Remove(network) => *network,
    };
    let changed: BTreeSet<IpNet> = ops.clone().map(destination).collect();
    found.retain(|held| !held.ours || !changed.contains(&held.destination));
    found.extend(ops.filter_map(|op| match op {
        RouteOp::Add(network, route) | RouteOp::Replace(network, route) => Some(FoundRoute {
            destination: *network,
            via: route.via,
            device: Some(route.device.clone()),
            source: route.source,
            mtu: route.mtu,
            ours: true,
        }),
        RouteOp::Remove(_) => None,
    }));
    found.sort_unstable();
}

fn matches(wanted: &WantedRoute, held: &FoundRoute) -> bool {
    held.via == wanted.via
        && held.device.as_ref() == Some(&wanted.device)
        && held.mtu == wanted.mtu
        && (wanted.source.is_none() || held.source == wanted.source)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
