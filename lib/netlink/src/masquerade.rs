//! Masquerade by the kernel's own packet filter (nf_tables), for pods of a node without a datapath.
//!
//! ```text
//! table ip sluice-cni {                      ip6 likewise
//!     chain 10.88.0.0-16 {                   one chain a network; its presence is all that has to be looked up
//!         type nat hook postrouting priority srcnat
//!         ip saddr 10.88.0.0/16 ip daddr != 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade
//!     }
//! }
//! ```
//!
//! A chain and its rule are made in one transaction, so that there is never a chain without it.

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;

use crate::{Result, attributes, owned::MASQUERADE_TABLE, socket::Action};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_SRCNAT: u32 = 100;
const NESTED: u16 = 0x8000;
const COMPARE_EQUAL: u32 = 0;
const COMPARE_OTHER: u32 = 1;

/// Makes packets from `network` that leave for elsewhere take the node's address. Says whether that is new.
///
/// In the calling thread's namespace.
pub fn ensure(network: IpNet) -> Result<bool> {
    let action = Action { verb: "masquerade", object: &network };
    let network = network.trunc();
    let family = family(network);
    let chain = chain_name(network);
    let mut socket = Filter::open().map_err(|error| action.io(error))?;

    let get = request(GET_CHAIN, NLM_F_REQUEST | NLM_F_ACK, 1, family, 0, &named_chain(&chain));
    match socket.exchange(&get, 1) {
        Ok(()) => return Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
        Err(error) => return Err(action.io(error)),
    }
    let mut batch = request(BATCH_BEGIN, NLM_F_REQUEST, 2, 0, 10, &[]);
    batch.extend(request(NEW_TABLE, NLM_F_REQUEST | NLM_F_CREATE, 3, family, 0, &text(1, MASQUERADE_TABLE)));
    let create = NLM_F_REQUEST | NLM_F_CREATE;
    batch.extend(request(NEW_CHAIN, create | NLM_F_EXCL, 4, family, 0, &hooked_chain(&chain)));
    batch.extend(request(NEW_RULE, create | NLM_F_ACK, 5, family, 0, &rule(&chain, network)));
    batch.extend(request(BATCH_END, NLM_F_REQUEST, 6, 0, 10, &[]));
    match socket.exchange(&batch, 5) {
        Ok(()) => Ok(true),
        // Another process was faster; its chain has the same rule.
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(false),
        Err(error) => Err(action.io(error)),
    }
}

/// Takes back all that [`ensure`] made. That there is nothing is no error.
pub fn remove_all() -> Result<()> {
    let action = Action { verb: "remove", object: &"the masquerade" };
    for family in [FAMILY_V4, FAMILY_V6] {
        let mut socket = Filter::open().map_err(|error| action.io(error))?;
        let mut batch = request(BATCH_BEGIN, NLM_F_REQUEST, 1, 0, 10, &[]);
        let delete = NLM_F_REQUEST | NLM_F_ACK;
        batch.extend(request(DELETE_TABLE, delete, 2, family, 0, &text(1, MASQUERADE_TABLE)));
        batch.extend(request(BATCH_END, NLM_F_REQUEST, 3, 0, 10, &[]));
        match socket.exchange(&batch, 2) {
            Err(error) if error.raw_os_error() != Some(Errno::ENOENT as i32) => return Err(action.io(error)),
            _ => {}
        }
    }
    Ok(())
}

fn family(network: IpNet) -> u8 {
    if network.addr().is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }
}

fn chain_name(network: IpNet) -> String {
    format!("{}-{}", network.addr(), network.prefix_len())
}

/// A connection to nf_tables.
struct Filter(Socket);

impl Filter {
    fn open() -> io::Result<Self> {
        Socket::new(NETLINK_NETFILTER).map(Self)
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

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &parts.concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn named_chain(name: &str) -> Vec<u8> {
    [text(1, MASQUERADE_TABLE), text(3, name)].concat()
}

fn hooked_chain(name: &str) -> Vec<u8> {
    let hook = nested(4, &[number(1, HOOK_POSTROUTING), number(2, PRIORITY_SRCNAT)]);
    [named_chain(name), hook, text(7, "nat")].concat()
}

fn rule(chain: &str, network: IpNet) -> Vec<u8> {
    let (source, destination, multicast) = match network {
        // Offsets of the addresses in the header, and the multicast network.
        IpNet::V4(_) => (12, 16, "224.0.0.0/4"),
        IpNet::V6(_) => (8, 24, "ff00::/8"),
    };
    let mut expressions = matches(source, network, COMPARE_EQUAL).to_vec();
    expressions.extend(matches(destination, network, COMPARE_OTHER));
    if let Ok(multicast) = multicast.parse() {
        expressions.extend(matches(destination, multicast, COMPARE_OTHER));
    }
    expressions.push(expression("masq", &[]));
    [text(1, MASQUERADE_TABLE), text(2, chain), nested(4, &expressions)].concat()
}

/// Whether the address at `offset` of the network header is (or is not) in a network: load, mask, compare.
fn matches(offset: u32, network: IpNet, comparison: u32) -> [Vec<u8>; 3] {
    const REGISTER: u32 = 1;
    let octets = |address| match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (address, mask) = (octets(network.network()), octets(network.netmask()));
    let length = mask.len() as u32;
    let value = |kind, bytes: &[u8]| nested(kind, &[attribute(1, bytes)]);
    [
        expression("payload", &[number(1, REGISTER), number(2, 1), number(3, offset), number(4, length)]),
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
        expression("cmp", &[number(1, REGISTER), number(2, comparison), value(3, &address)]),
    ]
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}
