//! VXLAN devices: packets to other nodes in UDP (RFC 7348), one device for all of them.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{
    MacAddress, Netlink, Result,
    attributes::{self, Malformed},
    socket::Action,
};

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;

/// What makes a VXLAN device the one that it is. The kernel changes none of it on a device that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's number (VNI), 24 bits.
    pub id: u32,
    /// The UDP port, on this node and on the others.
    pub port: u16,
    /// The address that packets are sent from. Its family is that of all packets: the device has a socket of that
    /// family only.
    pub local: Option<IpAddr>,
    /// Whether it learns from packets where addresses are. Not on devices that we make: [`Netlink::set_forwarding`]
    /// says it.
    pub learning: bool,
}

impl Vxlan {
    /// From the attributes of `IFLA_INFO_DATA`.
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let mut vxlan = Self { id: 0, port: 0, local: None, learning: false };
        attributes::for_each(data, |kind, value| {
            match kind {
                IFLA_VXLAN_ID => vxlan.id = attributes::u32(value)?,
                IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => vxlan.local = Some(attributes::address(value)?),
                IFLA_VXLAN_LEARNING => vxlan.learning = attributes::u8(value)? != 0,
                IFLA_VXLAN_PORT => vxlan.port = u16::from_be(attributes::u16(value)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(vxlan)
    }

    fn data(&self) -> Vec<InfoVxlan> {
        let mut data = vec![
            InfoVxlan::Id(self.id),
            InfoVxlan::Learning(self.learning),
            InfoVxlan::Port(self.port),
            // IPv4: no checksum over the outer UDP, as RFC 7348 has it. The inner packet has its own, and adapters that
            // cut large packets (segmentation) do so for more kinds of packets without it.
            InfoVxlan::UDPCsum(false),
            // IPv6: with it. Nothing else guards the outer addresses there, and receivers refuse packets without one
            // unless they are told to take them (RFC 6935). The kernel makes it from the inner one.
            InfoVxlan::UDPZeroCsumTX(false),
            InfoVxlan::UDPZeroCsumRX(false),
        ];
        data.extend(self.local.map(|local| match local {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        }));
        data
    }
}

impl Netlink {
    /// Makes a VXLAN device, down.
    pub fn create_vxlan(&mut self, name: &str, vxlan: &Vxlan, mac: MacAddress, mtu: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vxlan.data())),
            ]),
        ];
        let action = Action { verb: "create vxlan", object: &name };
        self.execute(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, action)
    }
}
