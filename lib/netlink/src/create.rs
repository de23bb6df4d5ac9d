//! Making links: veth pairs and bridges.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use crate::{
    Link, LinkChange, MacAddress, Namespace, Netlink, Result, attributes::Malformed, socket::Action,
};

/// One end of a veth pair to make.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    name: &'a str,
    mac: Option<MacAddress>,
    mtu: Option<u32>,
    up: bool,
    noarp: bool,
    master: Option<u32>,
    tx_queue_len: Option<u32>,
    queues: Option<u32>,
    namespace: Option<&'a Namespace>,
}

impl<'a> VethEnd<'a> {
    /// An end of this name, down, in the caller's namespace, the rest as the kernel chooses.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            mac: None,
            mtu: None,
            up: false,
            noarp: false,
            master: None,
            tx_queue_len: None,
            queues: None,
            namespace: None,
        }
    }
    /// Its link-layer address.
    pub fn mac(mut self, mac: MacAddress) -> Self {
        self.mac = Some(mac);
        self
    }
    /// Its maximum packet size.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }
    /// Switched on from the start.
    pub fn up(mut self) -> Self {
        self.up = true;
        self
    }
    /// Does not resolve addresses.
    pub fn noarp(mut self) -> Self {
        self.noarp = true;
        self
    }
    /// A port of this bridge from the start. Only for the first end of a pair.
    pub fn master(mut self, bridge: u32) -> Self {
        self.master = Some(bridge);
        self
    }
    /// Length of the transmit queue.
    pub fn tx_queue_len(mut self, length: u32) -> Self {
        self.tx_queue_len = Some(length);
        self
    }
    /// How many queues it has in each direction. Left out, the kernel makes as many as the machine may have CPUs, which
    /// takes it time for each, and uses them only where packets are batched (GRO, XDP).
    pub fn queues(mut self, count: u32) -> Self {
        self.queues = Some(count);
        self
    }
    /// In this namespace instead of the caller's.
    pub fn namespace(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        for (on, flag) in [(self.up, LinkFlags::Up), (self.noarp, LinkFlags::Noarp)] {
            if on {
                message.header.flags |= flag;
                message.header.change_mask |= flag;
            }
        }
        let attributes = &mut message.attributes;
        attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        attributes.extend(self.master.map(LinkAttribute::Controller));
        attributes.extend(self.tx_queue_len.map(LinkAttribute::TxQueueLen));
        attributes.extend(self.queues.map(LinkAttribute::NumTxQueues));
        attributes.extend(self.queues.map(LinkAttribute::NumRxQueues));
        attributes.extend(self.namespace.map(|namespace| LinkAttribute::NetNsFd(namespace.raw_fd())));
        message
    }
}

/// Both ends, for errors.
struct Pair<'a>(&'a str, &'a str);

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with peer {}", self.0, self.1)
    }
}

/// A veth pair that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VethPair {
    /// The index of the first end.
    pub index: u32,
    /// The index of its peer, in the peer's namespace.
    pub peer: u32,
}

/// A bridge to make.
#[derive(Clone, Debug, Default)]
pub struct BridgeSpec<'a> {
    name: &'a str,
    mac: Option<MacAddress>,
    mtu: Option<u32>,
    vlan_filtering: bool,
    up: bool,
}

impl<'a> BridgeSpec<'a> {
    /// A bridge of this name, down, without ports. Neither spanning tree nor multicast snooping: no port waits
    /// before it forwards, and neighbour discovery does not depend on a querier.
    pub fn new(name: &'a str) -> Self {
        Self { name, ..Self::default() }
    }
    /// Its link-layer address. One that is given here stays; one that the kernel chooses changes with the ports.
    pub fn mac(mut self, mac: MacAddress) -> Self {
        self.mac = Some(mac);
        self
    }
    /// Its maximum packet size. One that is given here stays; otherwise it follows the smallest of its ports.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }
    /// Keeps VLANs apart.
    pub fn vlan_filtering(mut self, on: bool) -> Self {
        self.vlan_filtering = on;
        self
    }
    /// Switched on from the start.
    pub fn up(mut self) -> Self {
        self.up = true;
        self
    }
}

impl Netlink {
    /// Makes a veth pair: names, addresses, namespaces and the bridge in one request. The first end must be in the
    /// namespace of this connection.
    ///
    /// The kernel registers the peer first and cannot switch it on before the other end is there, so that a
    /// peer that is to be up costs requests of its own.
    pub fn create_veth(&mut self, end: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<VethPair> {
        let mut message = end.message();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(VethEnd { up: false, ..peer.clone() }.message()))),
        ]));
        let action = Action { verb: "create veth", object: &Pair(end.name, peer.name) };
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let made = self.execute_echoed(RouteNetlinkMessage::NewLink(message), flags, action, Link::parse)?;
        let link = made.map_or_else(|| self.link(end.name), Ok)?;
        let index = link.peer.ok_or_else(|| action.malformed(&Malformed("it names no peer".to_owned())))?;
        if peer.up {
            peer.namespace
                .map_or_else(|| self.set_up(index), |namespace| namespace.netlink()?.set_up(index))?;
        }
        Ok(VethPair { index: link.index, peer: index })
    }

    /// Makes a bridge.
    pub fn create_bridge(&mut self, bridge: &BridgeSpec<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        if bridge.up {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        }
        let attributes = &mut message.attributes;
        attributes.push(LinkAttribute::IfName(bridge.name.to_owned()));
        attributes.extend(bridge.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        let mut data = vec![InfoBridge::MulticastSnooping(false)];
        if bridge.vlan_filtering {
            data.push(InfoBridge::VlanFiltering(true));
        }
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(data)),
        ]));
        let action = Action { verb: "create bridge", object: &bridge.name };
        self.execute(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, action)?;
        if let Some(mtu) = bridge.mtu {
            // Only a change makes the kernel note that it was chosen; given at creation it follows the ports.
            let index = self.link(bridge.name)?.index;
            self.change_link(index, &LinkChange::new().mtu(mtu))?;
        }
        Ok(())
    }
}
