//! Settings of a bridge's ports.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{
    Netlink, Result,
    attributes::{self, Malformed},
    socket::Action,
};

const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_ISOLATED: u16 = 33;

/// Settings of a port of a bridge. To set them: what is `None` stays. As they are: `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Packets may leave by the port they came from.
    pub hairpin: Option<bool>,
    /// Isolated ports reach the bridge and ports that are not isolated, but not each other.
    pub isolated: Option<bool>,
    /// The bridge learns addresses from it.
    pub learning: Option<bool>,
}

impl BridgePort {
    pub(crate) fn parse(attributes: &[u8]) -> Result<Self, Malformed> {
        let mut port = Self::default();
        attributes::for_each(attributes, |kind, value| {
            let setting = match kind {
                IFLA_BRPORT_MODE => &mut port.hairpin,
                IFLA_BRPORT_ISOLATED => &mut port.isolated,
                IFLA_BRPORT_LEARNING => &mut port.learning,
                _ => return Ok(()),
            };
            *setting = Some(attributes::u8(value)? != 0);
            Ok(())
        })?;
        Ok(port)
    }
}

impl Netlink {
    /// Sets up a port, which must be in a bridge already.
    pub fn set_bridge_port(&mut self, index: u32, port: BridgePort) -> Result<()> {
        let mut data = Vec::new();
        data.extend(port.hairpin.map(InfoBridgePort::HairpinMode));
        data.extend(port.isolated.map(InfoBridgePort::Isolated));
        data.extend(port.learning.map(InfoBridgePort::Learning));
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Unspec;
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(data)),
        ]));
        let action = Action { verb: "set bridge port", object: &format_args!("with index {index}") };
        self.execute(RouteNetlinkMessage::NewLink(message), 0, action)
    }
}
