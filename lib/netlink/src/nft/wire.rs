//! Netfilter over netlink: messages, nf_tables' transactions, and the few expressions that we use.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;

pub(crate) use crate::attributes::attribute;
use crate::{Result, attributes, socket::Action};

const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const DELETE_TABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const DELETE_RULE: u16 = SUBSYSTEM | 8;
pub(super) const NEW_SET: u16 = SUBSYSTEM | 9;
pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
pub(super) const GET_ELEMENT: u16 = SUBSYSTEM | 13;
pub(super) const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
pub(super) const FAMILY_V4: u8 = 2;
pub(super) const FAMILY_V6: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;

/// The register that values are loaded into.
const REGISTER: u32 = 1;
pub(super) const COMPARE_EQUAL: u32 = 0;
pub(super) const COMPARE_OTHER: u32 = 1;
/// Bases of offsets in a packet.
pub(super) const LINK_HEADER: u32 = 0;
pub(super) const NETWORK_HEADER: u32 = 1;
pub(super) const TRANSPORT_HEADER: u32 = 2;

/// One message of a transaction: its kind, its flags beside those of every request, and its attributes.
pub(crate) type Part = (u16, u16, Vec<u8>);

/// A connection to the kernel's packet filter.
///
/// Closing one waits for what has been deleted in the namespace, by whomever, until no packet can meet it any more: some
/// ten milliseconds, and more where many do so at once. Whoever is in a hurry has it closed by somebody else
/// ([`crate::Netlink::delete_link_promptly`]).
pub struct PacketFilter {
    socket: Socket,
    sequence: u32,
}

impl PacketFilter {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::new(NETLINK_NETFILTER).map(|socket| Self { socket, sequence: 0 })
    }

    /// Opens a connection in the calling thread's namespace; `None` where the kernel has no packet filter.
    pub fn find() -> Result<Option<Self>> {
        match Self::open() {
            Ok(filter) => Ok(Some(filter)),
            Err(error) if is_unknown(&error) => Ok(None),
            Err(error) => Err(Action { verb: "open", object: &"the packet filter" }.io(error)),
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Asks for one object of a family, or for something to be done about one.
    pub(crate) fn get(&mut self, family: u8, (kind, flags, attributes): Part) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.exchange(&request(kind, NLM_F_REQUEST | flags, sequence, family, 0, &attributes), sequence)
    }

    /// Asks for a list; calls `each` with the family and the attributes of every message of the answer.
    pub(crate) fn dump(
        &mut self,
        family: u8,
        (kind, flags, attributes): Part,
        mut each: impl FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        let sequence = self.next_sequence();
        let bytes = request(kind, NLM_F_REQUEST | flags, sequence, family, 0, &attributes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        self.receive(sequence, |message| {
            match (message.message_type(), message.payload().split_at_checked(4)) {
                (NLMSG_ERROR | NLMSG_DONE, _) => return failure(message).map_or(Ok(true), Err),
                // Netfilter's own header, which begins with the family, comes before the attributes.
                (_, Some((header, attributes))) => each(header[0], attributes),
                (_, None) => {}
            }
            Ok(false)
        })
    }

    /// Does all of it or nothing. The last part must ask for an acknowledgement.
    pub(super) fn transact(&mut self, family: u8, parts: &[Part]) -> io::Result<()> {
        let mut batch = request(BATCH_BEGIN, NLM_F_REQUEST, self.next_sequence(), 0, 10, &[]);
        let first = self.sequence;
        for (kind, flags, attributes) in parts {
            let sequence = self.next_sequence();
            batch.extend(request(*kind, NLM_F_REQUEST | flags, sequence, family, 0, attributes));
        }
        let last = self.sequence;
        batch.extend(request(BATCH_END, NLM_F_REQUEST, self.next_sequence(), 0, 10, &[]));
        self.socket.send_to(&batch, &SocketAddr::new(0, 0), 0)?;
        self.acknowledged(first, last)
    }

    fn exchange(&mut self, bytes: &[u8], sequence: u32) -> io::Result<()> {
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        self.acknowledged(sequence, sequence)
    }

    /// Waits for the acknowledgement of the message `last`; an error of any from `first` on ends it too.
    fn acknowledged(&mut self, first: u32, last: u32) -> io::Result<()> {
        self.receive(first, |message| {
            match failure(message).filter(|_| message.message_type() == NLMSG_ERROR) {
                Some(error) => Err(error),
                None => Ok(message.message_type() == NLMSG_ERROR && message.sequence_number() == last),
            }
        })
    }

    /// Reads messages until `each` says that it was the last. Of requests before `first`, an error may be left.
    fn receive(
        &mut self,
        first: u32,
        mut each: impl FnMut(&NetlinkBuffer<&[u8]>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = match self.socket.recv(&mut &mut buffer[..], 0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..length];
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let older = message.sequence_number().wrapping_sub(first).cast_signed() < 0;
                if !older && each(&message)? {
                    return Ok(());
                }
                rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

impl AsFd for PacketFilter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The error that a message begins with, if it is one that begins with an error's number.
fn failure(message: &NetlinkBuffer<&[u8]>) -> Option<io::Error> {
    let code = message.payload().get(..4).and_then(|code| attributes::i32(code).ok())?;
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

pub(crate) fn is(error: &io::Error, any: &[Errno]) -> bool {
    any.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Whether there is no such thing, or no packet filter in the kernel.
pub(crate) fn is_unknown(error: &io::Error) -> bool {
    is(error, &[Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT])
}

/// A message: netlink's header, netfilter's header, attributes.
fn request(kind: u16, flags: u16, sequence: u32, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + attributes.len());
    bytes.extend((20 + attributes.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

pub(crate) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &parts.concat())
}

pub(super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A chain of a table, by name.
pub(super) fn named_chain(table: &str, name: &str) -> Vec<u8> {
    [text(1, table), text(3, name)].concat()
}

/// Which rules a message is about: all of a chain.
pub(super) fn rules_of(table: &str, chain: &str) -> Vec<u8> {
    [text(1, table), text(2, chain)].concat()
}

/// Whether the address at `offset` of the network header is (or is not) in a network: load, mask, compare.
pub(super) fn matches(offset: u32, network: IpNet, comparison: u32) -> [Vec<u8>; 3] {
    let octets = |address| match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (address, mask_octets) = (octets(network.network()), octets(network.netmask()));
    let length = mask_octets.len() as u32;
    [load(NETWORK_HEADER, offset, length), mask(&mask_octets), compare(comparison, &address)]
}

/// Loads so many bytes of the packet.
pub(super) fn load(base: u32, offset: u32, length: u32) -> Vec<u8> {
    load_into(REGISTER, base, offset, length)
}

/// Loads so many bytes of the packet into a register.
pub(super) fn load_into(register: u32, base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, register), number(2, base), number(3, offset), number(4, length)])
}

/// Loads what is known of a packet besides its bytes.
pub(super) fn meta_into(register: u32, key: u32) -> Vec<u8> {
    expression("meta", &[number(1, register), number(2, key)])
}

/// Goes on if what was loaded is equal to (or other than) this.
pub(super) fn compare(comparison: u32, with: &[u8]) -> Vec<u8> {
    compare_in(REGISTER, comparison, with)
}

/// As [`compare`], of another register.
pub(super) fn compare_in(register: u32, comparison: u32, with: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, register), number(2, comparison), value(3, with)])
}

/// Goes on if what was loaded has one of these bits.
pub(super) fn any_bit(bits: &[u8]) -> [Vec<u8>; 2] {
    let none = vec![0; bits.len()];
    [mask(bits), compare(COMPARE_OTHER, &none)]
}

fn mask(bits: &[u8]) -> Vec<u8> {
    let parts = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, bits.len() as u32),
        value(4, bits),
        value(5, &vec![0; bits.len()]),
    ];
    expression("bitwise", &parts)
}

/// One element of a set (its key and, in a map, its value), or, without any, the set.
pub(super) fn elements(table: &str, set: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut attributes = [text(1, table), text(2, set)].concat();
    if !parts.is_empty() {
        let parts: Vec<_> = (1..).zip(parts).map(|(kind, bytes)| value(kind, bytes)).collect();
        attributes.extend(nested(3, &[nested(1, &parts)]));
    }
    attributes
}

/// The keys and values of the elements that a message has.
pub(super) fn parse_elements(message: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let inner = |bytes: &[u8], kind: u16| {
        let mut value = Vec::new();
        let _ = attributes::for_each(bytes, |found, bytes| {
            if found == kind {
                value = bytes.to_vec();
            }
            Ok(())
        });
        value
    };
    let _ = attributes::for_each(&inner(message, 3), |_, element| {
        found.push((inner(&inner(element, 1), 1), inner(&inner(element, 2), 1)));
        Ok(())
    });
    found
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nested(kind, &[attribute(1, bytes)])
}

pub(super) fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}
