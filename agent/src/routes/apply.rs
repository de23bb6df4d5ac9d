//! Applies the plan for routes.

use sluice_netlink::{Netlink, Result, Route, RouteFilter};

use super::plan::RouteOp;

/// Applies one operation.
pub fn apply(netlink: &mut Netlink, op: &RouteOp) -> Result<()> {
    match op {
        RouteOp::Put(network, wanted) => {
            let index = netlink.link(&wanted.device)?.index;
            let mut route = match wanted.via {
                Some(via) => Route::via(*network, via, index),
                None => Route::new(*network, index),
            };
            route.source = wanted.source;
            route.mtu = wanted.mtu;
            route.onlink = wanted.onlink;
            netlink.replace_route(&route)
        }
        RouteOp::Remove(network) => {
            let ours = netlink.routes(&RouteFilter::ours())?;
            ours.iter().filter(|route| route.destination == *network).try_for_each(|route| {
                match netlink.delete_route(route) {
                    // It went with its device.
                    Err(error) if error.is_not_found() => Ok(()),
                    other => other,
                }
            })
        }
    }
}
