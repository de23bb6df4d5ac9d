//! Notices of changes of the node's devices, addresses and routes that others make.

use std::{collections::HashMap, io, net::IpAddr, thread};

use sluice_netlink::{Event, Link, Topic, Watch, owned};
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
        let mut seen = Seen::default();
        loop {
            match watch.next(None) {
                Ok(Some(event)) if seen.matters(&event) => {
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

/// What was told of devices last. The kernel tells of a device for many reasons, such as a bridge that gets a port, or a
/// carrier that comes.
#[derive(Default)]
struct Seen(HashMap<u32, Link>);

impl Seen {
    fn matters(&mut self, event: &Event) -> bool {
        match event {
            Event::Link(link) if !owned::is_host_veth_name(&link.name) => {
                let before = self.0.insert(link.index, link.clone());
                before.is_none_or(|before| !is_alike(&before, link))
            }
            Event::LinkGone(link) if !owned::is_host_veth_name(&link.name) => {
                self.0.remove(&link.index);
                true
            }
            Event::Link(_) | Event::LinkGone(_) => false,
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
}

/// Whether all is the same that [`crate::node::Device`] says of a device.
fn is_alike(before: &Link, now: &Link) -> bool {
    let parts = |link: &Link| (link.mac, link.mtu, link.flags.is_up(), link.flags.is_noarp(), link.vxlan);
    before.name == now.name && parts(before) == parts(now)
}
