//! Links: what the kernel says of them; list, find, change, delete.

use std::{fmt, time::Duration};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
};

use crate::{
    BridgePort, Error, LinkChange, MacAddress, Netlink, Result, Vxlan,
    attributes::{self, Malformed},
    socket::Action,
    watch::{Event, Topic, Watch},
};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_PROTOCOL: u16 = 8;

/// State of a link, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkFlags(pub u32);

impl LinkFlags {
    /// Switched on by the administrator.
    pub const fn is_up(self) -> bool {
        self.0 & 0x1 != 0
    }
    /// Has a carrier.
    pub const fn has_carrier(self) -> bool {
        self.0 & 0x1_0000 != 0
    }
    /// Is the loopback device.
    pub const fn is_loopback(self) -> bool {
        self.0 & 0x8 != 0
    }
    /// Does not resolve addresses.
    pub const fn is_noarp(self) -> bool {
        self.0 & 0x80 != 0
    }
    /// Takes every packet, whomever it is for.
    pub const fn is_promiscuous(self) -> bool {
        self.0 & 0x100 != 0
    }
    /// Takes every multicast packet.
    pub const fn is_all_multicast(self) -> bool {
        self.0 & 0x200 != 0
    }
}

impl fmt::Debug for LinkFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// RFC 2863 operational state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OperState {
    /// The driver does not say; counts as up.
    #[default]
    Unknown,
    /// Cannot pass packets.
    Down,
    /// Passes packets.
    Up,
    /// Anything between.
    Other(u8),
}

impl From<u8> for OperState {
    fn from(state: u8) -> Self {
        match state {
            0 => Self::Unknown,
            2 => Self::Down,
            6 => Self::Up,
            other => Self::Other(other),
        }
    }
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index, unique in its namespace while it exists.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is: `veth`, `bridge`, ...; `None` for physical devices and loopback.
    pub kind: Option<String>,
    /// Its address, where the link layer has 48-bit ones.
    pub mac: Option<MacAddress>,
    /// Its maximum packet size.
    pub mtu: u32,
    /// Length of its transmit queue.
    pub tx_queue_len: u32,
    /// Up, carrier and so on.
    pub flags: LinkFlags,
    /// Whether it passes packets.
    pub state: OperState,
    /// The bridge (or other master) it belongs to.
    pub master: Option<u32>,
    /// The link it stands on, or the peer of a veth: an index in the namespace [`Self::peer_namespace`] says.
    pub peer: Option<u32>,
    /// The id of the peer's namespace; `None` where that is this one.
    pub peer_namespace: Option<i32>,
    /// The alias that somebody gave it.
    pub alias: Option<String>,
    /// What it is made of, where it is a VXLAN device.
    pub vxlan: Option<Vxlan>,
    /// Whether it is a bridge that keeps VLANs apart; `None` where the kernel's bridges know none.
    pub vlan_filtering: Option<bool>,
    /// How it is set up as a port, where its master is a bridge.
    pub port: BridgePort,
}

impl Link {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let (header, rest) = attributes::split_header(payload, 16)?;
        let mut link = Self {
            index: attributes::u32(&header[4..8])?,
            flags: LinkFlags(attributes::u32(&header[8..12])?),
            ..Self::default()
        };
        attributes::for_each(rest, |kind, value| {
            match kind {
                IFLA_IFNAME => link.name = attributes::text(value),
                IFLA_ADDRESS => link.mac = attributes::mac(value),
                IFLA_MTU => link.mtu = attributes::u32(value)?,
                IFLA_TXQLEN => link.tx_queue_len = attributes::u32(value)?,
                IFLA_LINK => link.peer = Some(attributes::u32(value)?),
                IFLA_MASTER => link.master = Some(attributes::u32(value)?),
                IFLA_OPERSTATE => link.state = attributes::u8(value)?.into(),
                IFLA_IFALIAS => link.alias = Some(attributes::text(value)),
                IFLA_LINK_NETNSID => link.peer_namespace = Some(attributes::i32(value)?),
                IFLA_LINKINFO => link.parse_kind(value)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(link)
    }

    /// What there is to say of links of its kind, and of ports of its master's. The names of the kinds come first.
    fn parse_kind(&mut self, info: &[u8]) -> Result<(), Malformed> {
        let mut master = String::new();
        attributes::for_each(info, |kind, value| {
            match kind {
                IFLA_INFO_KIND => self.kind = Some(attributes::text(value)),
                IFLA_INFO_DATA if self.is_kind("vxlan") => self.vxlan = Some(Vxlan::parse(value)?),
                IFLA_INFO_DATA if self.is_kind("bridge") => self.vlan_filtering = vlan_filtering(value)?,
                IFLA_INFO_SLAVE_KIND => master = attributes::text(value),
                IFLA_INFO_SLAVE_DATA if master == "bridge" => self.port = BridgePort::parse(value)?,
                _ => {}
            }
            Ok(())
        })
    }

    /// Whether it is a link of this kind, e.g. `bridge`.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// Whether a bridge keeps VLANs apart. That it does not, kernels that know none say, too; but not for which protocol.
fn vlan_filtering(bridge: &[u8]) -> Result<Option<bool>, Malformed> {
    let (mut filtering, mut known) = (None, false);
    attributes::for_each(bridge, |kind, value| {
        match kind {
            IFLA_BR_VLAN_FILTERING => filtering = Some(attributes::u8(value)? != 0),
            IFLA_BR_VLAN_PROTOCOL => known = true,
            _ => {}
        }
        Ok(())
    })?;
    Ok(filtering.filter(|_| known))
}

/// An index or a name, for errors.
pub(crate) struct ByIndex(pub(crate) u32);

impl fmt::Display for ByIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with index {}", self.0)
    }
}

impl Netlink {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let action = Action { verb: "list", object: &"links" };
        self.dump(&RouteNetlinkMessage::GetLink(message), action, |_, payload| Link::parse(payload).map(Some))
    }

    /// The link of this name; an error that [`Error::is_not_found`] if there is none.
    ///
    /// On kernels since 6.8 this also brings the link's state up to date first, so that a carrier which is
    /// there is reported (and used by a bridge) at once.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, &name)
    }

    /// The link of this name, if there is one.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>> {
        match self.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The link with this index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message, &ByIndex(index))
    }

    fn get_link(&mut self, mut message: LinkMessage, object: &dyn fmt::Display) -> Result<Link> {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let action = Action { verb: "look up link", object };
        self.get(RouteNetlinkMessage::GetLink(message), action, |_, payload| Link::parse(payload))
    }

    /// Changes a link.
    pub fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<()> {
        let message = change.message(index);
        let action = Action { verb: "change link", object: &ByIndex(index) };
        // RTM_NEWLINK without the flag to create: the only form that takes every attribute.
        self.execute(RouteNetlinkMessage::NewLink(message), 0, action)
    }

    /// Switches a link on.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.change_link(index, &LinkChange::new().up(true))
    }

    /// Switches a link off.
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.change_link(index, &LinkChange::new().up(false))
    }

    /// Puts a link into a bridge, or takes it out.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        self.change_link(index, &LinkChange::new().master(master))
    }

    /// Deletes a link. Of a veth pair both ends go.
    ///
    /// The kernel returns only when nobody uses the link any more, which takes it some 10 ms.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let action = Action { verb: "delete link", object: &ByIndex(index) };
        self.execute(RouteNetlinkMessage::DelLink(message), 0, action)
    }

    /// Waits until the link of this name passes packets, and returns it.
    ///
    /// To be called in the namespace that this connection was opened in.
    pub fn wait_for_carrier(&mut self, name: &str, limit: Duration) -> Result<Link> {
        let passes = |link: &Link| {
            let operates = matches!(link.state, OperState::Up | OperState::Unknown);
            link.name == name && link.flags.has_carrier() && operates
        };
        let link = self.link(name)?;
        if passes(&link) {
            return Ok(link);
        }
        // Watch first and look again, so that nothing happens unseen in between.
        let mut watch = Watch::open(&[Topic::Links])?;
        let link = self.link(name)?;
        if passes(&link) {
            return Ok(link);
        }
        let deadline = std::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match watch.next(Some(left))? {
                Some(Event::Link(link)) if passes(&link) => return Ok(link),
                Some(Event::Missed) => {
                    let link = self.link(name)?;
                    if passes(&link) {
                        return Ok(link);
                    }
                }
                Some(_) => {}
                None => {
                    return Err(Error::TimedOut {
                        object: format!("link {name}"),
                        wanted: "a carrier",
                        limit,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Link::parse(&payload);
        }
    }
}
