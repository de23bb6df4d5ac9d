//! Neighbours (address to link-layer address) and bridge forwarding entries.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use crate::{
    MacAddress, Netlink, Result,
    address::family,
    attributes::{self, Malformed},
    socket::Action,
};

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Where it is; `None` while that is being asked, or could not be found out.
    pub mac: Option<MacAddress>,
    /// Entered by somebody, not found out by the kernel.
    pub permanent: bool,
}

impl Neighbour {
    pub(crate) fn parse(payload: &[u8]) -> Result<Option<Self>, Malformed> {
        let (header, rest) = attributes::split_header(payload, 12)?;
        let (mut address, mut mac) = (None, None);
        attributes::for_each(rest, |kind, value| {
            match kind {
                NDA_DST if matches!(header[0], 2 | 10) => address = Some(attributes::address(value)?),
                NDA_LLADDR => mac = attributes::mac(value),
                _ => {}
            }
            Ok(())
        })?;
        let index = attributes::u32(&header[4..8])?;
        let permanent = attributes::u16(&header[8..10])? & NUD_PERMANENT != 0;
        Ok(address.map(|address| Self { index, address, mac, permanent }))
    }
}

/// Behind which remote node a link-layer address is, on an overlay device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forwarding {
    /// The link-layer address.
    pub mac: MacAddress,
    /// The remote node.
    pub remote: IpAddr,
}

impl Forwarding {
    fn parse(payload: &[u8], index: u32) -> Result<Option<Self>, Malformed> {
        let (header, rest) = attributes::split_header(payload, 12)?;
        let (mut mac, mut remote) = (None, None);
        attributes::for_each(rest, |kind, value| {
            match kind {
                NDA_DST => remote = Some(attributes::address(value)?),
                NDA_LLADDR => mac = attributes::mac(value),
                _ => {}
            }
            Ok(())
        })?;
        let ours = attributes::u32(&header[4..8])? == index;
        Ok(mac.zip(remote).filter(|_| ours).map(|(mac, remote)| Self { mac, remote }))
    }
}

/// What tells that a neighbour is to be forgotten.
pub(crate) fn forgotten_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address.is_ipv4());
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

/// What says for good where a neighbour is.
pub(crate) fn neighbour_message(index: u32, address: IpAddr, mac: MacAddress) -> NeighbourMessage {
    let mut message = forgotten_message(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// What says behind which remote node a link-layer address is, or no longer is.
pub(crate) fn forwarding_message(index: u32, mac: MacAddress, remote: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(match remote {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }));
    message
}

impl Netlink {
    /// The neighbours of one link, both families.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let action = Action { verb: "list", object: &"neighbours" };
        self.dump(&RouteNetlinkMessage::GetNeighbour(request), action, |_, payload| {
            Ok(Neighbour::parse(payload)?.filter(|neighbour| neighbour.index == index))
        })
    }

    /// Says for good where a neighbour is, in place of what was known.
    pub fn set_neighbour(&mut self, index: u32, address: IpAddr, mac: MacAddress) -> Result<()> {
        let message = neighbour_message(index, address, mac);
        let action = Action { verb: "set neighbour", object: &address };
        self.execute(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, action)
    }

    /// Forgets a neighbour. Says whether it was known.
    pub fn forget_neighbour(&mut self, index: u32, address: IpAddr) -> Result<bool> {
        let action = Action { verb: "forget neighbour", object: &address };
        match self.execute(RouteNetlinkMessage::DelNeighbour(forgotten_message(index, address)), 0, action) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What [`Self::set_forwarding`] has told a link.
    pub fn forwardings(&mut self, index: u32) -> Result<Vec<Forwarding>> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = index;
        let action = Action { verb: "list", object: &"forwarding entries" };
        self.dump(&RouteNetlinkMessage::GetNeighbour(request), action, |_, payload| {
            Forwarding::parse(payload, index)
        })
    }

    /// Tells an overlay device behind which remote node a link-layer address is.
    pub fn set_forwarding(&mut self, index: u32, mac: MacAddress, remote: IpAddr) -> Result<()> {
        let request = forwarding_message(index, mac, remote);
        let action = Action { verb: "set forwarding entry", object: &mac };
        self.execute(RouteNetlinkMessage::NewNeighbour(request), NLM_F_CREATE | NLM_F_REPLACE, action)
    }

    /// Takes [`Self::set_forwarding`] back.
    pub fn delete_forwarding(&mut self, index: u32, mac: MacAddress, remote: IpAddr) -> Result<()> {
        let request = forwarding_message(index, mac, remote);
        let action = Action { verb: "delete forwarding entry", object: &mac };
        self.execute(RouteNetlinkMessage::DelNeighbour(request), 0, action)
    }
}
