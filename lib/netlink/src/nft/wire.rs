//! nf_tables over netlink: messages, transactions, and the few expressions that we use.

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::attributes;

const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const DELETE_TABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const DELETE_RULE: u16 = SUBSYSTEM | 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;
const NESTED: u16 = 0x8000;

/// The register that values are loaded into.
const REGISTER: u32 = 1;
pub(super) const COMPARE_EQUAL: u32 = 0;
pub(super) const COMPARE_OTHER: u32 = 1;
/// Bases of offsets in a packet.
pub(super) const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;

/// One message of a transaction: its kind, its flags beside those of every request, and its attributes.
pub(super) type Part = (u16, u16, Vec<u8>);

/// A connection to nf_tables.
pub(super) struct Filter(Socket);

impl Filter {
    pub(super) fn open() -> io::Result<Self> {
        Socket::new(NETLINK_NETFILTER).map(Self)
    }

    /// Asks for one object of a family.
    pub(super) fn get(&mut self, family: u8, (kind, flags, attributes): Part) -> io::Result<()> {
        self.exchange(&request(kind, NLM_F_REQUEST | flags, 1, family, 0, &attributes), 1)
    }

    /// Does all of it or nothing. The last part must ask for an acknowledgement.
    pub(super) fn transact(&mut self, family: u8, parts: &[Part]) -> io::Result<()> {
        let mut sequence = 1;
        let mut batch = request(BATCH_BEGIN, NLM_F_REQUEST, sequence, 0, 10, &[]);
        for (kind, flags, attributes) in parts {
            sequence += 1;
            batch.extend(request(*kind, NLM_F_REQUEST | flags, sequence, family, 0, attributes));
        }
        batch.extend(request(BATCH_END, NLM_F_REQUEST, sequence + 1, 0, 10, &[]));
        self.exchange(&batch, sequence)
    }

    /// Sends, and waits for the acknowledgement of the message `sequence`; an error of any other ends it too.
    fn exchange(&mut self, bytes: &[u8], sequence: u32) -> io::Result<()> {
        self.0.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = match self.0.recv(&mut &mut buffer[..], 0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..length];
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let code =
                    message.payload().get(..4).and_then(|code| attributes::i32(code).ok()).unwrap_or(0);
                if message.message_type() == NLMSG_ERROR && code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                if message.message_type() == NLMSG_ERROR && message.sequence_number() == sequence {
                    return Ok(());
                }
                rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
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

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(super) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
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
    let (address, mask) = (octets(network.network()), octets(network.netmask()));
    let length = mask.len() as u32;
    [
        load(NETWORK_HEADER, offset, length),
        expression(
            "bitwise",
            &[
                number(1, REGISTER),
                number(2, REGISTER),
                number(3, length),
                value(4, &mask),
                value(5, &vec![0; mask.len()]),
            ],
        ),
        compare(comparison, &address),
    ]
}

/// Loads so many bytes of the packet.
pub(super) fn load(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, length)])
}

/// Goes on if what was loaded is equal to (or other than) this.
pub(super) fn compare(comparison: u32, with: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, comparison), value(3, with)])
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nested(kind, &[attribute(1, bytes)])
}

pub(super) fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}
