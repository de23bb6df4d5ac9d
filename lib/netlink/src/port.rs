//! Settings of a bridge's ports.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{Netlink, Result, socket::Action};

/// What to set on a port of a bridge; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Packets may leave by the port they came from.
    pub hairpin: Option<bool>,
    /// Isolated ports reach the bridge and ports that are not isolated, but not each other.
    pub isolated: Option<bool>,
    /// The bridge learns addresses from it.
    pub learning: Option<bool>,
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
