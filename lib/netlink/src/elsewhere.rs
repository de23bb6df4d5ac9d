//! What is in other network namespaces, asked from here: the kernel knows each namespace that a device of ours has its
//! peer in by a number ([`crate::Link::peer_namespace`]).

use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
};

use crate::{Address, Link, Netlink, Result, link::ByIndex, socket::Action};

const IFA_TARGET_NETNSID: u16 = 10;

impl Netlink {
    /// The link of this index in the namespace of this number; an error that [`crate::Error::is_not_found`] if there is
    /// none. Needs the right to administer that namespace.
    pub fn link_in(&mut self, namespace: i32, index: u32) -> Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfNetnsId(namespace));
        let action = Action { verb: "look up in another namespace link", object: &ByIndex(index) };
        self.get(RouteNetlinkMessage::GetLink(message), action, |_, payload| Link::parse(payload))
    }

    /// The addresses of a link in the namespace of this number, both families.
    pub fn addresses_in(&mut self, namespace: i32, index: u32) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let number = DefaultNla::new(IFA_TARGET_NETNSID, namespace.to_ne_bytes().to_vec());
        message.attributes.push(AddressAttribute::Other(number));
        let action = Action { verb: "list in another namespace", object: &"addresses" };
        self.dump(&RouteNetlinkMessage::GetAddress(message), action, |_, payload| {
            let address = Address::parse(payload)?;
            Ok((address.index == index).then_some(address))
        })
    }
}
