//! What is to change of a link.

use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, LinkAttribute, LinkFlags as WireFlags, LinkMessage,
};

use crate::{MacAddress, Namespace};

/// What to change of a link; what is not named stays.
#[derive(Clone, Debug, Default)]
pub struct LinkChange {
    flags: WireFlags,
    mask: WireFlags,
    attributes: Vec<LinkAttribute>,
}

impl LinkChange {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn flag(mut self, flag: WireFlags, on: bool) -> Self {
        self.mask |= flag;
        self.flags.set(flag, on);
        self
    }

    fn attribute(mut self, attribute: LinkAttribute) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Switches it on or off.
    pub fn up(self, on: bool) -> Self {
        self.flag(WireFlags::Up, on)
    }
    /// Takes every packet, or only its own.
    pub fn promiscuous(self, on: bool) -> Self {
        self.flag(WireFlags::Promisc, on)
    }
    /// Takes every multicast packet.
    pub fn all_multicast(self, on: bool) -> Self {
        self.flag(WireFlags::Allmulti, on)
    }
    /// Resolves addresses (`true`) or sends everything to whatever is at the other end.
    pub fn arp(self, on: bool) -> Self {
        self.flag(WireFlags::Noarp, !on)
    }
    /// Maximum packet size.
    pub fn mtu(self, mtu: u32) -> Self {
        self.attribute(LinkAttribute::Mtu(mtu))
    }
    /// Link-layer address.
    pub fn mac(self, mac: MacAddress) -> Self {
        self.attribute(LinkAttribute::Address(mac.0.to_vec()))
    }
    /// Name; the link must be down on kernels before 6.2.
    pub fn name(self, name: &str) -> Self {
        self.attribute(LinkAttribute::IfName(name.to_owned()))
    }
    /// Puts it into a bridge, or takes it out (`None`).
    pub fn master(self, master: Option<u32>) -> Self {
        self.attribute(LinkAttribute::Controller(master.unwrap_or(0)))
    }
    /// Length of the transmit queue.
    pub fn tx_queue_len(self, length: u32) -> Self {
        self.attribute(LinkAttribute::TxQueueLen(length))
    }
    /// A word of explanation for people and tools.
    pub fn alias(self, alias: &str) -> Self {
        self.attribute(LinkAttribute::IfAlias(alias.to_owned()))
    }
    /// Tells the neighbours of its IPv4 addresses when it comes up (`arp_notify`). To be asked for before the change that
    /// switches it on: in that one, Linux would come to it too late.
    pub fn arp_notify(self) -> Self {
        let mut settings = InetDevConf::default();
        settings.arp_notify = 1;
        let inet = AfSpecInet::DevConfRequest(settings);
        self.attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![inet])]))
    }
    /// Moves it into another namespace.
    pub fn namespace(self, namespace: &Namespace) -> Self {
        self.attribute(LinkAttribute::NetNsFd(namespace.raw_fd()))
    }

    /// The request that asks for it.
    pub(crate) fn message(&self, index: u32) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = self.flags;
        message.header.change_mask = self.mask;
        message.attributes.clone_from(&self.attributes);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_only_what_it_changes() {
        let change = LinkChange::new().up(false).arp(false).mtu(1400);
        assert_eq!(change.mask, WireFlags::Up | WireFlags::Noarp);
        assert_eq!(change.flags, WireFlags::Noarp);
        assert_eq!(change.attributes, vec![LinkAttribute::Mtu(1400)]);
    }
}
