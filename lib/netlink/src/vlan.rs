//! VLANs of a bridge's ports.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind, LinkAttribute,
        LinkExtentMask, LinkInfo, LinkMessage,
    },
};

use crate::{
    Netlink, Result,
    attributes::{self, Malformed},
    socket::Action,
};

const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const PVID: u16 = 1 << 1;
const UNTAGGED: u16 = 1 << 2;
const RANGE_BEGIN: u16 = 1 << 3;
const RANGE_END: u16 = 1 << 4;

/// VLANs of a port, from one number to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortVlans {
    /// The first number.
    pub first: u16,
    /// The last number; the first, if it is one VLAN.
    pub last: u16,
    /// Frames that come in without a tag belong to it (PVID). Of a port's VLANs only one can be that.
    pub pvid: bool,
    /// Frames that leave by the port leave without a tag.
    pub untagged: bool,
}

impl PortVlans {
    /// The VLAN that frames without a tag belong to, both ways.
    pub const fn access(number: u16) -> Self {
        Self { first: number, last: number, pvid: true, untagged: true }
    }

    /// VLANs whose frames are tagged.
    pub const fn tagged(first: u16, last: u16) -> Self {
        Self { first, last, pvid: false, untagged: false }
    }

    fn info(&self) -> Vec<AfSpecBridge> {
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, self.pvid);
        flags.set(BridgeVlanInfoFlags::Untagged, self.untagged);
        let info = |flags, vid| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
        if self.first == self.last {
            return vec![info(flags, self.first)];
        }
        vec![
            info(flags | BridgeVlanInfoFlags::RangeBegin, self.first),
            info(flags | BridgeVlanInfoFlags::RangeEnd, self.last),
        ]
    }
}

fn of_port(index: u32, vlans: &[PortVlans]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let info = vlans.iter().flat_map(PortVlans::info).collect();
    message.attributes.push(LinkAttribute::AfSpecBridge(info));
    message
}

fn of_bridge(index: u32, filtering: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(filtering)])),
    ]));
    message
}

impl Netlink {
    /// Makes a bridge keep VLANs apart, or not. An error that [`crate::Error::is_unsupported`] where the kernel's
    /// bridges know no VLANs.
    pub fn set_vlan_filtering(&mut self, bridge: u32, on: bool) -> Result<()> {
        let action =
            Action { verb: "set VLAN filtering of bridge", object: &format_args!("with index {bridge}") };
        self.execute(RouteNetlinkMessage::NewLink(of_bridge(bridge, on)), 0, action)
    }

    /// Makes a port a member of VLANs. Those that it is a member of already are changed to what is said here.
    pub fn add_vlans(&mut self, port: u32, vlans: &[PortVlans]) -> Result<()> {
        let action = Action { verb: "add VLANs to port", object: &format_args!("with index {port}") };
        self.execute(RouteNetlinkMessage::SetLink(of_port(port, vlans)), 0, action)
    }

    /// Takes a port out of a VLAN. That it is no member is no error.
    pub fn remove_vlan(&mut self, port: u32, number: u16) -> Result<()> {
        let action = Action { verb: "remove a VLAN of port", object: &format_args!("with index {port}") };
        let message = of_port(port, &[PortVlans::tagged(number, number)]);
        match self.execute(RouteNetlinkMessage::DelLink(message), 0, action) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// The VLANs of a port; none, where the kernel's bridges know none.
    pub fn vlans(&mut self, port: u32) -> Result<Vec<PortVlans>> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        // Neighbouring numbers as one: of all 4094 an answer would not have room.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        let action = Action { verb: "list the VLANs of port", object: &format_args!("with index {port}") };
        // Of all ports, whatever was asked for.
        let found =
            self.dump(&RouteNetlinkMessage::GetLink(message), action, |_, payload| parse(port, payload))?;
        Ok(found.into_iter().flatten().collect())
    }
}

fn parse(port: u32, payload: &[u8]) -> Result<Option<Vec<PortVlans>>, Malformed> {
    let (header, rest) = attributes::split_header(payload, 16)?;
    if attributes::u32(&header[4..8])? != port {
        return Ok(None);
    }
    let mut vlans = Vec::new();
    let mut first = None;
    attributes::for_each(rest, |kind, value| {
        if kind != IFLA_AF_SPEC {
            return Ok(());
        }
        attributes::for_each(value, |kind, value| {
            if kind != IFLA_BRIDGE_VLAN_INFO {
                return Ok(());
            }
            let (flags, number) =
                value.split_at_checked(2).ok_or_else(|| Malformed("a VLAN is cut short".to_owned()))?;
            let (flags, number) = (attributes::u16(flags)?, attributes::u16(number)?);
            if flags & RANGE_BEGIN != 0 {
                first = Some(number);
                return Ok(());
            }
            let first = first.take().filter(|_| flags & RANGE_END != 0).unwrap_or(number);
            let (pvid, untagged) = (flags & PVID != 0, flags & UNTAGGED != 0);
            vlans.push(PortVlans { first, last: number, pvid, untagged });
            Ok(())
        })
    })?;
    Ok(Some(vlans))
}

/// The kernel that this runs on need not know VLANs: what is sent and read is held against messages that iproute2 and
/// a kernel that does have exchanged (`bridge vlan`).
#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use proptest::prelude::*;

    use super::*;
    use crate::{BridgeSpec, Namespace, VethEnd};

    fn bytes(message: RouteNetlinkMessage) -> (u16, Vec<u8>) {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        assert!(matches!(message.payload, NetlinkPayload::InnerMessage(_)));
        (u16::from_ne_bytes([bytes[4], bytes[5]]), bytes.split_off(16))
    }

    /// The header of a message about link 5 of a family, and the attributes after it.
    fn about_5(family: u8, attributes: &[&[u8]]) -> Vec<u8> {
        let header = [&[family, 0, 0, 0], &5_u32.to_ne_bytes()[..], &[0; 8]].concat();
        [&header[..], &attributes.concat()].concat()
    }

    const NEW_LINK: u16 = 16;
    const DELETE_LINK: u16 = 17;
    const SET_LINK: u16 = 19;
    const BRIDGE: u8 = 7;

    #[test]
    fn requests_are_those_of_bridge_vlan() {
        let access = of_port(5, &[PortVlans::access(100)]);
        let expected = about_5(BRIDGE, &[&[12, 0, 26, 0], &[8, 0, 2, 0, 6, 0, 100, 0]]);
        assert_eq!(
            bytes(RouteNetlinkMessage::SetLink(access)),
            (SET_LINK, expected),
            "vid 100 pvid untagged"
        );

        let trunk = of_port(5, &[PortVlans::tagged(7, 7), PortVlans::tagged(200, 210)]);
        let range: &[u8] = &[8, 0, 2, 0, 8, 0, 200, 0, 8, 0, 2, 0, 16, 0, 210, 0];
        let expected = about_5(BRIDGE, &[&[28, 0, 26, 0], &[8, 0, 2, 0, 0, 0, 7, 0], range]);
        assert_eq!(bytes(RouteNetlinkMessage::SetLink(trunk)), (SET_LINK, expected), "vid 7, vid 200-210");

        let removed = of_port(5, &[PortVlans::tagged(1, 1)]);
        let expected = about_5(BRIDGE, &[&[12, 0, 26, 0], &[8, 0, 2, 0, 0, 0, 1, 0]]);
        assert_eq!(bytes(RouteNetlinkMessage::DelLink(removed)), (DELETE_LINK, expected), "vlan del vid 1");

        let filtering = bytes(RouteNetlinkMessage::NewLink(of_bridge(5, true)));
        let kind: &[u8] = b"\x0b\0\x01\0bridge\0\0";
        // `ip link set .. type bridge vlan_filtering 1`
        let data: &[u8] = &[12, 0, 2, 0, 5, 0, 7, 0, 1, 0, 0, 0];
        let length = (4 + kind.len() + data.len()) as u8;
        let mut filtering = filtering;
        // Whether nested attributes say that they are is all the same to the kernel.
        filtering.1[19] &= 0x7f;
        filtering.1[35] &= 0x7f;
        assert_eq!(filtering, (NEW_LINK, about_5(0, &[&[length, 0, 18, 0], kind, data])));
    }

    #[test]
    fn answers_are_read() {
        let vlans: &[u8] = &[
            44, 0, 26, 0, 8, 0, 2, 0, 4, 0, 1, 0, // vid 1 untagged
            8, 0, 2, 0, 6, 0, 100, 0, // vid 100 pvid untagged
            8, 0, 2, 0, 8, 0, 200, 0, 8, 0, 2, 0, 16, 0, 210, 0, // vid 200-210
            8, 0, 2, 0, 0, 0, 44, 1, // vid 300
        ];
        let name: &[u8] = b"\x06\0\x03\0a\0\0\0";
        let found = parse(5, &about_5(BRIDGE, &[name, vlans])).unwrap().unwrap();
        let expected = [
            PortVlans { first: 1, last: 1, pvid: false, untagged: true },
            PortVlans::access(100),
            PortVlans::tagged(200, 210),
            PortVlans::tagged(300, 300),
        ];
        assert_eq!(found, expected);
        assert_eq!(parse(6, &about_5(BRIDGE, &[vlans])).unwrap(), None, "another port");
        assert_eq!(parse(5, &about_5(BRIDGE, &[])).unwrap(), Some(vec![]), "a kernel without VLANs");
    }

    /// On a kernel with VLANs all of it; on one without, that it says so.
    #[test]
    fn the_kernel_obeys_or_says_that_it_cannot() {
        Namespace::create()
            .unwrap()
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                netlink.create_bridge(&BridgeSpec::new("br").up()).unwrap();
                let bridge = netlink.link("br").unwrap();
                assert_ne!(bridge.vlan_filtering, Some(true));
                netlink.create_veth(&VethEnd::new("a").master(bridge.index), &VethEnd::new("b")).unwrap();
                let port = netlink.link("a").unwrap().index;
                let wanted = [PortVlans::access(100), PortVlans::tagged(200, 210)];
                match netlink.set_vlan_filtering(bridge.index, true) {
                    Ok(()) => {
                        assert_eq!(netlink.link("br").unwrap().vlan_filtering, Some(true));
                        netlink.add_vlans(port, &wanted).unwrap();
                        netlink.add_vlans(port, &wanted).unwrap();
                        netlink.remove_vlan(port, 1).unwrap();
                        netlink.remove_vlan(port, 1).unwrap();
                        assert_eq!(netlink.vlans(port).unwrap(), wanted);
                    }
                    Err(error) => {
                        assert!(error.is_unsupported(), "{error}");
                        assert_eq!(bridge.vlan_filtering, None, "the bridge has told it before");
                        assert!(netlink.add_vlans(port, &wanted).unwrap_err().is_unsupported());
                        assert_eq!(netlink.vlans(port).unwrap(), []);
                        let spec = BridgeSpec::new("other").vlan_filtering(true);
                        assert!(netlink.create_bridge(&spec).unwrap_err().is_unsupported());
                        assert!(netlink.find_link("other").unwrap().is_none(), "nothing is left");
                    }
                }
            })
            .unwrap();
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(1, &payload);
        }
    }
}
