//! Addresses of links.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags as WireFlags, AddressHeaderFlags, AddressMessage, AddressScope,
    },
};

use crate::{
    Error, Netlink, Result,
    attributes::{self, Malformed},
    socket::Action,
    watch::{Topic, Watch},
};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

/// How an address is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AddressFlags {
    /// Usable at once: nobody is asked first whether they have it too (IPv6).
    pub nodad: bool,
    /// Its network gets no route of its own.
    pub no_prefix_route: bool,
}

/// An address of a link, with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address itself and its prefix length (host bits are kept).
    pub address: IpNet,
    /// 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// The kernel's `IFA_F_*` bits.
    pub flags: u32,
}

impl Address {
    /// Not usable yet: the kernel still asks whether somebody else has it.
    pub const fn is_tentative(&self) -> bool {
        self.flags & 0x40 != 0
    }

    /// Somebody else has it: the kernel will not use it.
    pub const fn is_duplicate(&self) -> bool {
        self.flags & 0x08 != 0
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let (header, rest) = attributes::split_header(payload, 8)?;
        let (mut local, mut address, mut flags) = (None, None, u32::from(header[2]));
        attributes::for_each(rest, |kind, value| {
            match kind {
                IFA_LOCAL => local = Some(attributes::address(value)?),
                IFA_ADDRESS => address = Some(attributes::address(value)?),
                IFA_FLAGS => flags = attributes::u32(value)?,
                _ => {}
            }
            Ok(())
        })?;
        // IFA_ADDRESS is the other side on point-to-point links; ours is IFA_LOCAL where both are given.
        let address = local.or(address).ok_or_else(|| Malformed("no address in it".to_owned()))?;
        let address = IpNet::new(address, header[1]).map_err(|error| Malformed(error.to_string()))?;
        Ok(Self { index: attributes::u32(&header[4..8])?, address, scope: header[3], flags })
    }
}

pub(crate) fn family(v4: bool) -> AddressFamily {
    if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr().is_ipv4());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.header.scope =
        if address.addr().is_loopback() { AddressScope::Host } else { AddressScope::Universe };
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message
}

impl Netlink {
    /// All addresses of the namespace, both families.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.list_addresses(0)
    }

    /// The addresses of one link, both families.
    pub fn addresses_of(&mut self, index: u32) -> Result<Vec<Address>> {
        self.list_addresses(index)
    }

    fn list_addresses(&mut self, index: u32) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let action = Action { verb: "list", object: &"addresses" };
        self.dump(&RouteNetlinkMessage::GetAddress(message), action, |_, payload| {
            let address = Address::parse(payload)?;
            Ok((index == 0 || address.index == index).then_some(address))
        })
    }

    /// Adds an address to a link; an error that [`Error::is_exists`] if it is there already.
    pub fn add_address(&mut self, index: u32, address: IpNet, flags: AddressFlags) -> Result<()> {
        let mut message = message(index, address);
        let mut wire = WireFlags::empty();
        if flags.nodad && address.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            wire |= WireFlags::Nodad;
        }
        if flags.no_prefix_route {
            wire |= WireFlags::Noprefixroute;
        }
        if !wire.is_empty() {
            message.attributes.push(AddressAttribute::Flags(wire));
        }
        if let IpNet::V4(v4) = address
            && v4.prefix_len() < 31
            && !v4.addr().is_loopback()
        {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        let action = Action { verb: "add address", object: &address };
        self.execute(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, action)
    }

    /// Adds an address to a link unless it has it. Says whether it was added.
    pub fn ensure_address(&mut self, index: u32, address: IpNet, flags: AddressFlags) -> Result<bool> {
        match self.add_address(index, address, flags) {
            Ok(()) => Ok(true),
            Err(error) if error.is_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until those of a link's addresses that are of `of` are usable. IPv6 addresses are so a moment after they are
    /// added, or when nobody has been found who has them too. An error if somebody has.
    ///
    /// To be called in the namespace that this connection was opened in.
    pub fn settle_addresses(&mut self, index: u32, of: &[IpNet], limit: Duration) -> Result<()> {
        if self.unsettled(index, of)?.is_none() {
            return Ok(());
        }
        // Watch first and look again, so that nothing happens unseen in between.
        let mut watch = Watch::open(&[Topic::Addresses])?;
        let deadline = Instant::now() + limit;
        while let Some(address) = self.unsettled(index, of)? {
            if watch.next(Some(deadline.saturating_duration_since(Instant::now())))?.is_none() {
                let object = format!("address {address}");
                return Err(Error::TimedOut { object, wanted: "usable", limit });
            }
        }
        Ok(())
    }

    fn unsettled(&mut self, index: u32, of: &[IpNet]) -> Result<Option<IpNet>> {
        let addresses = self.addresses_of(index)?;
        let mut those = addresses.iter().filter(|found| of.contains(&found.address));
        if let Some(found) = those.clone().find(|found| found.is_duplicate()) {
            let action = Action { verb: "use address", object: &found.address };
            return Err(action.io(std::io::ErrorKind::AddrInUse.into()));
        }
        Ok(those.find(|found| found.is_tentative()).map(|found| found.address))
    }

    /// Removes an address from a link.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<()> {
        let action = Action { verb: "delete address", object: &address };
        self.execute(RouteNetlinkMessage::DelAddress(message(index, address)), 0, action)
    }

    /// Which link has this address, if any.
    pub fn find_address(&mut self, address: IpAddr) -> Result<Option<Address>> {
        Ok(self.addresses()?.into_iter().find(|found| found.address.addr() == address))
    }
}
