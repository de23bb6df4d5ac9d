//! Notices of changes of the node's devices, addresses and routes that others make.

use std::{io, net::IpAddr, thread};

use sluice_netlink::{Event, Topic, Watch, owned};
use tracing::error;

/// Calls `notice` after changes that may matter, until it says that nobody listens. Devices of pods come and go
/// all the time, and are the plugin's records' business.
pub fn watch(notice: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("links".into()).spawn(move || {
        let mut watch = match Watch::open(&[Topic::Links, Topic::Addresses, Topic::Routes]) {
            Ok(watch) => watch,
            Err(error) => {
                return error!(%error, "cannot watch devices; changes are seen with the periodic repair");
            }
        };
        loop {
            match watch.next(None) {
                Ok(Some(event)) if matters(&event) => {
                    if !notice() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    return error!(%error, "cannot watch devices; changes are seen with the periodic repair");
                }
            }
        }
    })?;
    Ok(())
}

fn matters(event: &Event) -> bool {
    match event {
        Event::Link(link) | Event::LinkGone(link) => !owned::is_host_veth_name(&link.name),
        Event::Address(address) | Event::AddressGone(address) => match address.address.addr() {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        },
        Event::Missed => true,
        // A default route may make another device lead out; a route of ours should not have gone.
        Event::Route(route) => route.destination.prefix_len() == 0,
        Event::RouteGone(route) => {
            route.destination.prefix_len() == 0 || route.protocol == owned::ROUTE_PROTOCOL
        }
        Event::Neighbour(_) | Event::NeighbourGone(_) => false,
    }
}
