//! Many requests in few system calls: a node of a large cluster has some ten thousand routes and neighbours to enter.

use std::{fmt, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;

use crate::{
    Error, MacAddress, Netlink, Route,
    neighbour::{forgotten_message, forwarding_message, neighbour_message},
    socket::Action,
};

/// How many requests are sent at once. Should all of them fail, what the kernel says of each must find room in the
/// socket's buffer, which usually has two hundred kilobytes; each takes about one.
const TOGETHER: usize = 64;

/// A request that may be sent together with others; each does what the verb of [`Netlink`] does that has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants and their fields are those of the verbs")]
pub enum Request {
    SetForwarding { index: u32, mac: MacAddress, remote: IpAddr },
    DeleteForwarding { index: u32, mac: MacAddress, remote: IpAddr },
    SetNeighbour { index: u32, address: IpAddr, mac: MacAddress },
    ForgetNeighbour { index: u32, address: IpAddr },
    AddRoute(Route),
    ReplaceRoute(Route),
    DeleteRoute(Route),
}

impl Request {
    fn verb(&self) -> &'static str {
        match self {
            Self::SetForwarding { .. } => "set forwarding entry",
            Self::DeleteForwarding { .. } => "delete forwarding entry",
            Self::SetNeighbour { .. } => "set neighbour",
            Self::ForgetNeighbour { .. } => "forget neighbour",
            Self::AddRoute(_) => "add route",
            Self::ReplaceRoute(_) => "replace route",
            Self::DeleteRoute(_) => "delete route",
        }
    }

    fn flags(&self) -> u16 {
        match self {
            Self::AddRoute(_) => NLM_F_CREATE | NLM_F_EXCL,
            Self::SetForwarding { .. } | Self::SetNeighbour { .. } | Self::ReplaceRoute(_) => {
                NLM_F_CREATE | NLM_F_REPLACE
            }
            Self::DeleteForwarding { .. } | Self::ForgetNeighbour { .. } | Self::DeleteRoute(_) => 0,
        }
    }

    /// What is taken away need not be there.
    fn removes(&self) -> bool {
        matches!(self, Self::DeleteForwarding { .. } | Self::ForgetNeighbour { .. } | Self::DeleteRoute(_))
    }

    fn message(&self) -> RouteNetlinkMessage {
        match self {
            Self::SetForwarding { index, mac, remote } => {
                RouteNetlinkMessage::NewNeighbour(forwarding_message(*index, *mac, *remote))
            }
            Self::DeleteForwarding { index, mac, remote } => {
                RouteNetlinkMessage::DelNeighbour(forwarding_message(*index, *mac, *remote))
            }
            Self::SetNeighbour { index, address, mac } => {
                RouteNetlinkMessage::NewNeighbour(neighbour_message(*index, *address, *mac))
            }
            Self::ForgetNeighbour { index, address } => {
                RouteNetlinkMessage::DelNeighbour(forgotten_message(*index, *address))
            }
            Self::AddRoute(route) | Self::ReplaceRoute(route) => {
                RouteNetlinkMessage::NewRoute(route.message())
            }
            Self::DeleteRoute(route) => RouteNetlinkMessage::DelRoute(route.message()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetForwarding { mac, .. } | Self::DeleteForwarding { mac, .. } => write!(f, "{mac}"),
            Self::SetNeighbour { address, .. } | Self::ForgetNeighbour { address, .. } => {
                write!(f, "{address}")
            }
            Self::AddRoute(route) | Self::ReplaceRoute(route) | Self::DeleteRoute(route) => {
                write!(f, "{route}")
            }
        }
    }
}

impl Netlink {
    /// Carries out the requests in their order, and gives those that failed, by their place. One that fails keeps no
    /// other from being carried out; to take away what is not there is no failure.
    pub fn carry_out(&mut self, requests: &[Request]) -> Vec<(usize, Error)> {
        let mut failed = Vec::new();
        for (round, together) in requests.chunks(TOGETHER).enumerate() {
            let messages = together.iter().map(|request| (request.message(), request.flags())).collect();
            let action = |at: usize| {
                let request = &together[at];
                Action { verb: request.verb(), object: request }
            };
            let errors = self.execute_all(messages, action);
            let errors =
                errors.into_iter().filter(|(at, error)| !(together[*at].removes() && error.is_not_found()));
            failed.extend(errors.map(|(at, error)| (round * TOGETHER + at, error)));
        }
        failed
    }
}
