//! Notices of changes of the node's devices, addresses and routes that others make.

use std::{collections::HashMap, io, net::IpAddr, thread};

use ipnet::IpNet;
use sluice_netlink::{Event, Link, Topic, Watch, owned};
use tracing::error;

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A route with our number is gone, perhaps because we have removed it.
    RouteGone(IpNet),
    /// Devices, addresses, or other routes.
    Other,
}

/// Calls `notice` after changes that may matter, until it says that nobody listens. Devices of pods come and go
/// all the time, and are the plugin's records' business. With `routes`, those that others make to pods count, too.
pub fn watch(routes: bool, notice: impl Fn(News) -> bool + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("links".into()).spawn(move || {
        let mut watch = match Watch::open(&[Topic::Links, Topic::Addresses, Topic::Routes]) {
            Ok(watch) => watch,
            Err(error) => {
                return error!(%error, "cannot watch devices; changes are seen with the periodic repair");
            }
        };
        let mut seen = Seen { routes, ..Seen::default() };
        loop {
            match watch.next(None) {
                Ok(event) => {
                    if let Some(news) = event.and_then(|event| seen.news(&event))
                        && !notice(news)
                    {
                        return;
                    }
                }
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
struct Seen {
    links: HashMap<u32, Link>,
    /// Whether routes by a next hop matter.
    routes: bool,
}

impl Seen {
    fn news(&mut self, event: &Event) -> Option<News> {
        match event {
            Event::RouteGone(route) if route.protocol == owned::ROUTE_PROTOCOL => {
                Some(News::RouteGone(route.destination))
            }
            event => self.matters(event).then_some(News::Other),
        }
    }

    fn matters(&mut self, event: &Event) -> bool {
        match event {
            Event::Link(link) if !owned::is_host_veth_name(&link.name) => {
                let before = self.links.insert(link.index, link.clone());
                before.is_none_or(|before| !is_alike(&before, link))
            }
            Event::LinkGone(link) if !owned::is_host_veth_name(&link.name) => {
                self.links.remove(&link.index);
                true
            }
            Event::Link(_) | Event::LinkGone(_) => false,
            Event::Address(address) | Event::AddressGone(address) => match address.address.addr() {
                IpAddr::V4(_) => true,
                IpAddr::V6(ip) => !ip.is_unicast_link_local(),
            },
            Event::Missed => true,
            // A default route may make another device lead out.
            Event::Route(route) | Event::RouteGone(route) => {
                route.destination.prefix_len() == 0 || self.routes && route.gateway.is_some()
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

#[cfg(test)]
mod tests {
    use sluice_netlink::{MacAddress, Route};

    use super::*;

    #[test]
    fn what_a_device_tells_twice_is_no_news() {
        let link = |name: &str, mtu| Link { index: 7, name: name.into(), mtu, ..Link::default() };
        let mut seen = Seen::default();
        let port = Link { master: Some(3), ..link("eth0", 1500) };
        let other = Link { mac: Some(MacAddress([2, 0, 0, 0, 0, 1])), ..link("eth0", 1400) };
        for (event, news) in [
            (Event::Link(link("eth0", 1500)), true),
            (Event::Link(link("eth0", 1500)), false),
            (Event::Link(port), false),
            (Event::Link(link("eth0", 1400)), true),
            (Event::Link(other.clone()), true),
            (Event::LinkGone(other.clone()), true),
            (Event::Link(other), true),
            (Event::Link(link("sluice01234567", 1500)), false),
            (Event::Missed, true),
        ] {
            assert_eq!(seen.news(&event).is_some(), news, "{event:?}");
        }
        let route = |text: &str, protocol| {
            let mut route = Route::new(text.parse().unwrap(), 7);
            route.protocol = protocol;
            route
        };
        let gone = seen.news(&Event::RouteGone(route("10.1.0.0/24", owned::ROUTE_PROTOCOL)));
        assert_eq!(gone, Some(News::RouteGone("10.1.0.0/24".parse().unwrap())));
        assert_eq!(seen.news(&Event::RouteGone(route("10.1.0.0/24", 4))), None);
        assert_eq!(seen.news(&Event::Route(route("0.0.0.0/0", 4))), Some(News::Other));
    }
}
