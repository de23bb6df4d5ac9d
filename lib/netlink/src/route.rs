//! Routes.

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric},
};

use crate::{
    Netlink, Result,
    address::family,
    attributes::{self, Malformed},
    owned,
    socket::Action,
};

/// The routing table that everybody uses.
pub const TABLE_MAIN: u32 = 254;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTNH_F_ONLINK: u32 = 4;

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RouteKind {
    /// Sends it on.
    #[default]
    Unicast,
    /// Delivers it here.
    Local,
    /// Drops it and says so.
    Unreachable,
    /// Drops it silently.
    Blackhole,
    /// Any other of the kernel's `RTN_*`.
    Other(u8),
}

impl From<u8> for RouteKind {
    fn from(kind: u8) -> Self {
        match kind {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            other => Self::Other(other),
        }
    }
}

impl From<RouteKind> for u8 {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => 1,
            RouteKind::Local => 2,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Other(other) => other,
        }
    }
}

/// How far away the destination is. IPv6 has only [`Self::Universe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RouteScope {
    /// Anywhere.
    #[default]
    Universe,
    /// On the link itself.
    Link,
    /// This node.
    Host,
    /// Any other of the kernel's `RT_SCOPE_*`.
    Other(u8),
}

impl From<u8> for RouteScope {
    fn from(scope: u8) -> Self {
        match scope {
            0 => Self::Universe,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }
}

impl From<RouteScope> for u8 {
    fn from(scope: RouteScope) -> Self {
        match scope {
            RouteScope::Universe => 0,
            RouteScope::Link => 253,
            RouteScope::Host => 254,
            RouteScope::Other(other) => other,
        }
    }
}

/// A route with one way to go: what we make, and what a list returns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// The next hop; `None` where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The link to send by.
    pub device: Option<u32>,
    /// The source address that the node's own packets get.
    pub source: Option<IpAddr>,
    /// The largest packet that fits through.
    pub mtu: Option<u32>,
    /// The TCP segment size to announce.
    pub advmss: Option<u32>,
    /// Who made it: [`owned::ROUTE_PROTOCOL`] for us.
    pub protocol: u8,
    /// The table it is in.
    pub table: u32,
    /// Where several match, the lowest wins.
    pub metric: Option<u32>,
    /// What it does.
    pub kind: RouteKind,
    /// How far its destination is; decided by [`Self::new`] and [`Self::via`] as `ip route` does.
    pub scope: RouteScope,
    /// The gateway is on the link although no address says so.
    pub onlink: bool,
    /// The kernel listed several ways; `gateway` and `device` say nothing. Never for routes that we make.
    pub multipath: bool,
}

impl Route {
    /// A route to what is on the link `device` itself, in the main table, marked as ours.
    pub fn new(destination: IpNet, device: u32) -> Self {
        let v4 = destination.addr().is_ipv4();
        Self {
            destination,
            gateway: None,
            device: Some(device),
            source: None,
            mtu: None,
            advmss: None,
            protocol: owned::ROUTE_PROTOCOL,
            table: TABLE_MAIN,
            metric: None,
            kind: RouteKind::Unicast,
            scope: if v4 { RouteScope::Link } else { RouteScope::Universe },
            onlink: false,
            multipath: false,
        }
    }

    /// A route by way of `gateway`, in the main table, marked as ours.
    pub fn via(destination: IpNet, gateway: IpAddr, device: u32) -> Self {
        Self { gateway: Some(gateway), scope: RouteScope::Universe, ..Self::new(destination, device) }
    }

    pub(crate) fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.destination.addr().is_ipv4());
        header.destination_prefix_length = self.destination.prefix_len();
        header.table = u8::try_from(self.table).unwrap_or(0);
        header.protocol = self.protocol.into();
        header.scope = u8::from(self.scope).into();
        header.kind = u8::from(self.kind).into();
        if self.onlink {
            header.flags |= RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.network().into()));
        }
        if self.table > 255 {
            attributes.push(RouteAttribute::Table(self.table));
        }
        attributes.extend(self.gateway.map(|gateway| RouteAttribute::Gateway(RouteAddress::from(gateway))));
        attributes.extend(self.device.map(RouteAttribute::Oif));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        let mut metrics = Vec::new();
        metrics.extend(self.mtu.map(RouteMetric::Mtu));
        metrics.extend(self.advmss.map(RouteMetric::Advmss));
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        message
    }

    /// `None` for families other than IP.
    pub(crate) fn parse(payload: &[u8]) -> Result<Option<Self>, Malformed> {
        let (header, rest) = attributes::split_header(payload, 12)?;
        let v4 = match header[0] {
            2 => true,
            10 => false,
            _ => return Ok(None),
        };
        let any: IpNet = if v4 { Ipv4Net::default().into() } else { Ipv6Net::default().into() };
        let mut route = Self {
            protocol: header[5],
            table: u32::from(header[4]),
            scope: header[6].into(),
            kind: header[7].into(),
            onlink: attributes::u32(&header[8..12])? & RTNH_F_ONLINK != 0,
            device: None,
            ..Self::new(any, 0)
        };
        attributes::for_each(rest, |kind, value| {
            match kind {
                RTA_DST => {
                    let network = attributes::address(value)?;
                    route.destination =
                        IpNet::new(network, header[1]).map_err(|error| Malformed(error.to_string()))?;
                }
                RTA_OIF => route.device = Some(attributes::u32(value)?),
                RTA_GATEWAY => route.gateway = Some(attributes::address(value)?),
                RTA_PRIORITY => route.metric = Some(attributes::u32(value)?),
                RTA_PREFSRC => route.source = Some(attributes::address(value)?),
                RTA_TABLE => route.table = attributes::u32(value)?,
                RTA_MULTIPATH => route.multipath = true,
                RTA_METRICS => attributes::for_each(value, |kind, value| {
                    match kind {
                        RTAX_MTU => route.mtu = Some(attributes::u32(value)?),
                        RTAX_ADVMSS => route.advmss = Some(attributes::u32(value)?),
                        _ => {}
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(Some(route))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = self.device {
            write!(f, " by link {device}")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " in table {}", self.table)?;
        }
        Ok(())
    }
}

/// Which routes to list; what is not named is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteFilter {
    /// Only this table.
    pub table: Option<u32>,
    /// Only routes of this protocol number, e.g. [`owned::ROUTE_PROTOCOL`].
    pub protocol: Option<u8>,
    /// Only routes by this link.
    pub device: Option<u32>,
}

impl RouteFilter {
    /// The routes in the main table that we made.
    pub fn ours() -> Self {
        Self { table: Some(TABLE_MAIN), protocol: Some(owned::ROUTE_PROTOCOL), device: None }
    }

    fn matches(&self, route: &Route) -> bool {
        self.table.is_none_or(|table| table == route.table)
            && self.protocol.is_none_or(|protocol| protocol == route.protocol)
            && self.device.is_none_or(|device| Some(device) == route.device)
    }
}

impl Netlink {
    /// The routes of both families that match `filter`.
    pub fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>> {
        let mut routes = self.routes_of(AddressFamily::Inet, filter)?;
        routes.extend(self.routes_of(AddressFamily::Inet6, filter)?);
        Ok(routes)
    }

    fn routes_of(&mut self, family: AddressFamily, filter: &RouteFilter) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = filter.protocol.unwrap_or(0).into();
        message.attributes.extend(filter.table.map(RouteAttribute::Table));
        message.attributes.extend(filter.device.map(RouteAttribute::Oif));
        let action = Action { verb: "list", object: &"routes" };
        let list = self.dump(&RouteNetlinkMessage::GetRoute(message), action, |_, payload| {
            Ok(Route::parse(payload)?.filter(|route| filter.matches(route)))
        });
        match list {
            // A table that nobody has put a route into yet.
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other,
        }
    }

    /// Adds a route; an error that [`crate::Error::is_exists`] if one with its destination, metric and table is there.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        self.route("add route", RouteNetlinkMessage::NewRoute, NLM_F_CREATE | NLM_F_EXCL, route)
    }

    /// Adds a route, in place of one to the same destination with the same metric in the same table. Between
    /// the two, packets always find one of them.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.route("replace route", RouteNetlinkMessage::NewRoute, NLM_F_CREATE | NLM_F_REPLACE, route)
    }

    /// Deletes a route: exactly the one described, not another to the same destination.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.route("delete route", RouteNetlinkMessage::DelRoute, 0, route)
    }

    fn route(
        &mut self,
        verb: &'static str,
        request: impl Fn(RouteMessage) -> RouteNetlinkMessage,
        flags: u16,
        route: &Route,
    ) -> Result<()> {
        self.execute(request(route.message()), flags, Action { verb, object: route })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Route::parse(&payload);
        }
    }

    #[test]
    fn a_route_reads_back_as_it_was_written() {
        let mut routes = vec![
            Route::new("10.1.0.0/16".parse().unwrap(), 7),
            Route::via("0.0.0.0/0".parse().unwrap(), "10.0.0.1".parse().unwrap(), 2),
            Route::via("fd00:1::/64".parse().unwrap(), "fe80::1".parse().unwrap(), 3),
            Route::new("::/0".parse().unwrap(), 4),
        ];
        routes[1].source = Some("10.0.0.9".parse().unwrap());
        routes[1].mtu = Some(1400);
        routes[1].onlink = true;
        routes[2].metric = Some(10);
        routes[2].table = 1000;
        for route in routes {
            let message = route.message();
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            assert_eq!(Route::parse(&bytes).unwrap(), Some(route));
        }
    }
}
