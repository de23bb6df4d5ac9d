//! Applies the plan for routes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sluice_netlink::{Error, Netlink, Request, Route, RouteFilter};

use super::{desired::WantedRoute, plan::RouteOp};

/// Applies operations in their order, and gives those that failed.
pub fn apply<'a>(netlink: &mut Netlink, ops: &'a [RouteOp]) -> Vec<(&'a RouteOp, Error)> {
    let mut failed = Vec::new();
    let mut devices: BTreeMap<&str, Option<u32>> = BTreeMap::new();
    let (mut about, mut requests) = (Vec::new(), Vec::new());
    let mut removed = BTreeMap::new();
    for op in ops {
        match op {
            RouteOp::Add(network, wanted) | RouteOp::Replace(network, wanted) => {
                let index =
                    *devices.entry(&wanted.device).or_insert_with(|| match netlink.link(&wanted.device) {
                        Ok(link) => Some(link.index),
                        Err(error) => {
                            failed.push((op, error));
                            None
                        }
                    });
                if let Some(index) = index {
                    about.push(op);
                    let route = route(*network, wanted, index);
                    requests.push(match op {
                        RouteOp::Add(..) => Request::AddRoute(route),
                        _ => Request::ReplaceRoute(route),
                    });
                }
            }
            RouteOp::Remove(network) => drop(removed.insert(*network, op)),
        }
    }
    if !removed.is_empty() {
        // Exactly as they are, once for all of them.
        match netlink.routes(&RouteFilter::ours()) {
            Ok(ours) => {
                let gone =
                    ours.into_iter().filter_map(|route| Some((*removed.get(&route.destination)?, route)));
                for (op, route) in gone {
                    about.push(op);
                    requests.push(Request::DeleteRoute(route));
                }
            }
            Err(error) => failed.extend(removed.values().next().map(|op| (*op, error))),
        }
    }
    let errors = netlink.carry_out(&requests).into_iter();
    failed.extend(errors.map(|(at, error)| (about[at], error)));
    failed
}

fn route(network: IpNet, wanted: &WantedRoute, index: u32) -> Route {
    let mut route = match wanted.via {
        Some(via) => Route::via(network, via, index),
        None => Route::new(network, index),
    };
    route.source = wanted.source;
    route.mtu = wanted.mtu;
    route.onlink = wanted.onlink;
    route
}
