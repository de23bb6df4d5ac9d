//! From the routes that are there to those that should be. Pure.
//!
//! Only routes that carry our protocol number are changed or removed. A route of somebody else's to one of our
//! destinations stays, and is reported: the kernel would hold both and choose by metric.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;

use super::desired::{RouteProblem, WantedRoute};
use crate::node::FoundRoute;

/// One change of the routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOp {
    /// Puts a route there, in the place of ours to the same destination.
    Put(IpNet, WantedRoute),
    /// Removes ours.
    Remove(IpNet),
}

impl RouteOp {
    /// Whether this makes a route by the device.
    pub fn is_to(&self, device: &str) -> bool {
        matches!(self, Self::Put(_, route) if route.device == device)
    }
}

impl fmt::Display for RouteOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(network, WantedRoute { via: Some(via), device, .. }) => {
                write!(f, "route {network} via {via} by {device}")
            }
            Self::Put(network, WantedRoute { device, .. }) => write!(f, "route {network} by {device}"),
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
        let mut ours = there.clone().filter(|held| held.ours);
        let same = ours.any(|held| matches(route, held));
        let others = there.any(|held| !held.ours);
        if others {
            problems.push(RouteProblem::Foreign { network: *network });
        } else if !same {
            ops.push(RouteOp::Put(*network, route.clone()));
        }
    }
    let stale = found.iter().filter(|held| held.ours && !wanted.contains_key(&held.destination));
    ops.extend(stale.map(|held| RouteOp::Remove(held.destination)));
    (ops, problems)
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
