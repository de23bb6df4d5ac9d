//! Host ports by the kernel's own packet filter, on a node without a datapath.
//!
//! ```text
//! table ip sluice-cni {                                            ip6 likewise, without what is said of 127.0.0.0/8
//!     map host-ports    { inet_proto . inet_service : ipv4_addr . inet_service }
//!     map host-ports-at { ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!     chain host-ports {                                           and host-ports-out, the same for hook output
//!         type nat hook prerouting priority dstnat
//!         fib daddr type local dnat to ip daddr . meta l4proto . th dport map @host-ports-at
//!         fib daddr type local dnat to meta l4proto . th dport map @host-ports
//!     }
//!     chain host-ports-back {
//!         type nat hook postrouting priority srcnat
//!         ip saddr 127.0.0.0/8 ct status & dnat != 0 masquerade
//!     }
//!     chain host-ports-10.88.0.0-16 {                              one a network: its pods reach each other's host
//!         type nat hook postrouting priority srcnat                ports, and their own, by way of the node
//!         ip saddr 10.88.0.0/16 ip daddr 10.88.0.0/16 ct status & dnat != 0 masquerade
//!     }
//!     set host-ports-masq { ipv4_addr }                            pods whose host ports hide who comes
//!     chain host-ports-masq {
//!         type nat hook postrouting priority srcnat
//!         ip daddr @host-ports-masq ct status & dnat != 0 masquerade
//!     }
//!     chain host-ports-lo {                                        what lets the node use 127.0.0.1 lets nobody else
//!         type filter hook prerouting priority raw
//!         iif != 1 ip daddr 127.0.0.0/8 drop
//!     }
//! }
//! ```
//!
//! Where bridges obey the packet filter (br_netfilter), a pod reaches itself only if its bridge port sends packets
//! back to where they came from, which is the caller's to set.
//!
//! A packet meets two lookups however many ports there are, and a port comes or goes as one element. Where a
//! datapath comes later, packets meet it before this, and it may stay until its pod goes.

use std::{collections::BTreeSet, io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use nix::errno::Errno;

use super::wire::{
    COMPARE_EQUAL, COMPARE_OTHER, DELETE_ELEMENT, FAMILY_V4, FAMILY_V6, GET_CHAIN, GET_ELEMENT,
    NETWORK_HEADER, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_SET, NEW_TABLE, PacketFilter, Part,
    TRANSPORT_HEADER, any_bit, attribute, compare_in, elements, expression, is, is_unknown, load, load_into,
    matches, meta_into, named_chain, nested, number, parse_elements, rules_of, text,
};
use crate::{Result, owned::FILTER_TABLE, socket::Action};

pub(super) const PREROUTING: (&str, u32) = ("host-ports", 0);
pub(super) const OUTPUT: (&str, u32) = ("host-ports-out", 3);
const BACK: &str = "host-ports-back";
const LOOPBACK: &str = "host-ports-lo";
pub(super) const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_RAW: i32 = -300;
pub(super) const PRIORITY_DSTNAT: i32 = -100;
pub(super) const PRIORITY_SRCNAT: i32 = 100;

/// The maps: by protocol and port, and by address too.
const ANY: &str = "host-ports";
const AT: &str = "host-ports-at";
const SET_IS_MAP: u32 = 8;
/// The set of those that are masqueraded, and its chain.
const MASQUERADED: &str = "host-ports-masq";

/// Registers of four bytes; lookups read and write from the first on.
const REGISTER: u32 = 8;
const META_INDEX_IN: u32 = 4;
const META_PROTOCOL: u32 = 16;
/// `fib daddr type`, and its answer for the node's own addresses.
const FIB_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const TYPE_LOCAL: u32 = 2;
const CONNTRACK_STATUS: u32 = 2;
const STATUS_DNAT: u32 = 1 << 5;
const NAT_DESTINATION: u32 = 1;
/// The index of the loopback device, in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// nft's numbers of the types that keys and values are made of, by which it prints them. Six bits each.
const TYPE_V4: u32 = 7;
const TYPE_V6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;

/// A port of the node, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// IANA's number.
    pub protocol: u8,
    /// The node's address; unspecified for all of the family.
    pub host_ip: IpAddr,
    /// The node's port.
    pub host_port: u16,
    /// Where it leads, in the same family.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Whether whoever comes by it is masqueraded. It holds for all ports that lead to an address.
    pub masquerade: bool,
}

/// What differs between the families.
#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) number: u8,
    /// Bytes of an address, and where the destination stands in the header.
    pub(super) length: u32,
    pub(super) destination: u32,
    kind: u32,
}

pub(super) const V4: Family = Family { number: FAMILY_V4, length: 4, destination: 16, kind: TYPE_V4 };
pub(super) const V6: Family = Family { number: FAMILY_V6, length: 16, destination: 24, kind: TYPE_V6 };

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { V4 } else { V6 }
    }
}

/// Opens ports. `network` is the one of the pod that they lead to, of the same family.
///
/// In the calling thread's namespace.
pub fn open(network: IpNet, ports: &[HostPort]) -> Result<()> {
    let action = Action { verb: "open host ports to", object: &network };
    let family = Family::of(network.addr());
    let mut filter = PacketFilter::open().map_err(|error| action.io(error))?;
    ensure_chains(&mut filter, family).map_err(|error| action.io(error))?;
    ensure_network(&mut filter, family, network.trunc()).map_err(|error| action.io(error))?;
    if ports.iter().any(|port| port.masquerade) {
        ensure_masquerade(&mut filter, family).map_err(|error| action.io(error))?;
    }
    for port in ports {
        let (set, element) = element(port);
        // The two together: where there is one of the first, there is a port that it is for.
        let mut add = Vec::new();
        if port.masquerade {
            let address = elements(FILTER_TABLE, MASQUERADED, &[octets(port.address)]);
            add.push((NEW_ELEMENT, NLM_F_CREATE, address));
        }
        add.push((NEW_ELEMENT, NLM_F_CREATE | NLM_F_ACK, elements(FILTER_TABLE, set, &element)));
        let added = match filter.transact(family.number, &add) {
            // It leads somewhere else: what it led to is gone, or whoever asks would not.
            Err(error) if is(&error, &[Errno::EBUSY, Errno::EEXIST]) => {
                let key = [element[0].clone()];
                add.insert(0, (DELETE_ELEMENT, 0, elements(FILTER_TABLE, set, &key)));
                filter.transact(family.number, &add)
            }
            other => other,
        };
        added.map_err(|error| action.io(error))?;
    }
    Ok(())
}

/// All ports that are open, of both families.
pub fn list() -> Result<BTreeSet<HostPort>> {
    PacketFilter::find()?.map_or_else(|| Ok(BTreeSet::new()), |mut filter| list_by(&mut filter))
}

fn list_by(filter: &mut PacketFilter) -> Result<BTreeSet<HostPort>> {
    // Before the ports: each of these has one.
    let masqueraded = list_masqueraded(filter)?;
    let mut ports = BTreeSet::new();
    for family in [V4, V6] {
        for set in [ANY, AT] {
            for (key, value) in list_elements(filter, family, set)? {
                let found = port(family, set, &key, &value).into_iter();
                ports.extend(
                    found.map(|port| HostPort { masquerade: masqueraded.contains(&port.address), ..port }),
                );
            }
        }
    }
    Ok(ports)
}

/// Addresses of which all host ports are masqueraded.
fn list_masqueraded(filter: &mut PacketFilter) -> Result<BTreeSet<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for family in [V4, V6] {
        let found = list_elements(filter, family, MASQUERADED)?;
        addresses.extend(found.iter().filter_map(|(key, _)| crate::attributes::address(key).ok()));
    }
    Ok(addresses)
}

fn list_elements(filter: &mut PacketFilter, family: Family, set: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = Vec::new();
    let part = (GET_ELEMENT, NLM_F_DUMP, elements(FILTER_TABLE, set, &[]));
    match filter.dump(family.number, part, |_, message| list.extend(parse_elements(message))) {
        Err(error) if !is_unknown(&error) => Err(Action { verb: "list", object: &"host ports" }.io(error)),
        _ => Ok(list),
    }
}

/// Closes the ports that `unwanted` says. That there are none is no error.
pub fn close(filter: &mut PacketFilter, unwanted: impl Fn(&HostPort) -> bool) -> Result<()> {
    let mut masqueraded = list_masqueraded(filter)?;
    for port in list_by(filter)? {
        if unwanted(&port) {
            let (set, element) = element(&port);
            remove(filter, Family::of(port.address), set, &element[0])?;
        } else {
            masqueraded.remove(&port.address);
        }
    }
    // No port leads there any more.
    for address in masqueraded {
        remove(filter, Family::of(address), MASQUERADED, &octets(address))?;
    }
    Ok(())
}

/// Removes an element; somebody else may have done so.
fn remove(filter: &mut PacketFilter, family: Family, set: &str, key: &[u8]) -> Result<()> {
    let part = (DELETE_ELEMENT, NLM_F_ACK, elements(FILTER_TABLE, set, &[key.to_vec()]));
    match filter.transact(family.number, &[part]) {
        Err(error) if !is(&error, &[Errno::ENOENT]) => {
            Err(Action { verb: "close", object: &"host ports" }.io(error))
        }
        _ => Ok(()),
    }
}

/// The set that a port is in, and the key and value of its element: a protocol and ports take four bytes each.
fn element(port: &HostPort) -> (&'static str, [Vec<u8>; 2]) {
    let service = |port: u16| [port.to_be_bytes(), [0; 2]].concat();
    let key = [vec![port.protocol, 0, 0, 0], service(port.host_port)].concat();
    let value = [octets(port.address), service(port.port)].concat();
    if port.host_ip.is_unspecified() {
        (ANY, [key, value])
    } else {
        (AT, [[octets(port.host_ip), key].concat(), value])
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The port that an element is about; `None` if it is not of our making.
fn port(family: Family, set: &str, key: &[u8], value: &[u8]) -> Option<HostPort> {
    let length = family.length as usize;
    let address = |bytes: &[u8]| -> Option<IpAddr> {
        match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let service = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    let (at, key) = if set == AT { key.split_at_checked(length)? } else { (&[][..], key) };
    let any = if family.number == FAMILY_V4 { [0; 4].into() } else { IpAddr::from([0_u8; 16]) };
    Some(HostPort {
        protocol: *key.first()?,
        host_ip: if at.is_empty() { any } else { address(at)? },
        host_port: service(key.get(4..)?)?,
        address: address(value.get(..length)?)?,
        port: service(value.get(length..)?)?,
        masquerade: false,
    })
}

/// Makes what all ports share, once: in one transaction, so that the first chain stands for all of it.
fn ensure_chains(filter: &mut PacketFilter, family: Family) -> io::Result<()> {
    if has_chain(filter, family, PREROUTING.0)? {
        return Ok(());
    }
    let key = TYPE_PROTOCOL << 6 | TYPE_SERVICE;
    let value = family.kind << 6 | TYPE_SERVICE;
    let mut parts = vec![
        (NEW_TABLE, NLM_F_CREATE, text(1, FILTER_TABLE)),
        map((ANY, 1), (key, 8), (value, family.length + 4)),
        map((AT, 2), (family.kind << 12 | key, family.length + 8), (value, family.length + 4)),
    ];
    for (name, hook) in [PREROUTING, OUTPUT] {
        parts.push(chain(name, "nat", hook, PRIORITY_DSTNAT));
        parts.push(rule(name, &lookup(family, true)));
        parts.push(rule(name, &lookup(family, false)));
    }
    if family.number == FAMILY_V4 {
        let loopback = IpNet::new_assert([127, 0, 0, 0].into(), 8);
        parts.push(chain(BACK, "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT));
        let mut back = matches(12, loopback, COMPARE_EQUAL).to_vec();
        back.extend(was_translated());
        back.push(expression("masq", &[]));
        parts.push(rule(BACK, &back));
        parts.push(chain(LOOPBACK, "filter", PREROUTING.1, PRIORITY_RAW));
        let mut foreign =
            vec![meta_into(1, META_INDEX_IN), compare_in(1, COMPARE_OTHER, &LOOPBACK_INDEX.to_ne_bytes())];
        foreign.extend(matches(family.destination, loopback, COMPARE_EQUAL));
        foreign.push(expression("immediate", &[number(1, 0), nested(2, &[nested(2, &[number(1, 0)])])]));
        parts.push(rule(LOOPBACK, &foreign));
    }
    made(filter, family, parts)
}

/// Whoever comes by a port to one of a set of pods is masqueraded.
fn ensure_masquerade(filter: &mut PacketFilter, family: Family) -> io::Result<()> {
    if has_chain(filter, family, MASQUERADED)? {
        return Ok(());
    }
    let set = [
        text(1, FILTER_TABLE),
        text(2, MASQUERADED),
        number(4, family.kind),
        number(5, family.length),
        number(10, 1),
    ];
    let mut expressions = vec![
        load(NETWORK_HEADER, family.destination, family.length),
        expression("lookup", &[text(1, MASQUERADED), number(2, 1)]),
    ];
    expressions.extend(was_translated());
    expressions.push(expression("masq", &[]));
    let parts = vec![
        (NEW_SET, NLM_F_CREATE, set.concat()),
        chain(MASQUERADED, "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT),
        rule(MASQUERADED, &expressions),
    ];
    made(filter, family, parts)
}

/// Pods of one network reach each other's host ports: the answer has to come back by way of the node.
fn ensure_network(filter: &mut PacketFilter, family: Family, network: IpNet) -> io::Result<()> {
    let name = format!("host-ports-{}-{}", network.addr(), network.prefix_len());
    if has_chain(filter, family, &name)? {
        return Ok(());
    }
    let mut expressions = matches(family.destination - family.length, network, COMPARE_EQUAL).to_vec();
    expressions.extend(matches(family.destination, network, COMPARE_EQUAL));
    expressions.extend(was_translated());
    expressions.push(expression("masq", &[]));
    made(
        filter,
        family,
        vec![chain(&name, "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT), rule(&name, &expressions)],
    )
}

pub(super) fn has_chain(filter: &mut PacketFilter, family: Family, name: &str) -> io::Result<bool> {
    match filter.get(family.number, (GET_CHAIN, NLM_F_ACK, named_chain(FILTER_TABLE, name))) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, &[Errno::ENOENT]) => Ok(false),
        Err(error) => Err(error),
    }
}

fn made(filter: &mut PacketFilter, family: Family, mut parts: Vec<Part>) -> io::Result<()> {
    if let Some(last) = parts.last_mut() {
        last.1 |= NLM_F_ACK;
    }
    match filter.transact(family.number, &parts) {
        // Another process was faster, with the same.
        Err(error) if !is(&error, &[Errno::EEXIST]) => Err(error),
        _ => Ok(()),
    }
}

fn map((name, id): (&str, u32), key: (u32, u32), value: (u32, u32)) -> Part {
    let attributes = [
        text(1, FILTER_TABLE),
        text(2, name),
        number(3, SET_IS_MAP),
        number(4, key.0),
        number(5, key.1),
        number(6, value.0),
        number(7, value.1),
        number(10, id),
    ];
    (NEW_SET, NLM_F_CREATE, attributes.concat())
}

pub(super) fn chain(name: &str, kind: &str, hook: u32, priority: i32) -> Part {
    let hook = nested(4, &[number(1, hook), attribute(2, &priority.to_be_bytes())]);
    let attributes = [named_chain(FILTER_TABLE, name), hook, text(7, kind)].concat();
    (NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, attributes)
}

pub(super) fn rule(chain: &str, expressions: &[Vec<u8>]) -> Part {
    (NEW_RULE, NLM_F_CREATE, [rules_of(FILTER_TABLE, chain), nested(4, expressions)].concat())
}

/// To where a map says, for what is sent to the node. `at` looks at the address too.
fn lookup(family: Family, at: bool) -> Vec<Vec<u8>> {
    let mut expressions = is_local().to_vec();
    let mut register = REGISTER;
    if at {
        expressions.push(load_into(register, NETWORK_HEADER, family.destination, family.length));
        register += family.length / 4;
    }
    expressions.push(meta_into(register, META_PROTOCOL));
    // The destination port stands at the same place in all three protocols.
    expressions.push(load_into(register + 1, TRANSPORT_HEADER, 2, 2));
    let set = if at { AT } else { ANY };
    expressions.push(expression("lookup", &[text(1, set), number(2, REGISTER), number(3, REGISTER)]));
    expressions.push(to_destination(family, REGISTER, REGISTER + family.length / 4));
    expressions
}

/// Whether a packet is for an address of the node.
pub(super) fn is_local() -> [Vec<u8>; 2] {
    [
        expression("fib", &[number(1, 1), number(2, FIB_TYPE), number(3, FIB_DESTINATION)]),
        compare_in(1, COMPARE_EQUAL, &TYPE_LOCAL.to_ne_bytes()),
    ]
}

/// Sends a packet to the address and the port in these registers.
pub(super) fn to_destination(family: Family, address: u32, port: u32) -> Vec<u8> {
    let parts = [
        number(1, NAT_DESTINATION),
        number(2, u32::from(family.number)),
        number(3, address),
        number(5, port),
    ];
    expression("nat", &parts)
}

pub(super) fn was_translated() -> [Vec<u8>; 3] {
    let [mask, compare] = any_bit(&STATUS_DNAT.to_ne_bytes());
    [expression("ct", &[number(1, 1), number(2, CONNTRACK_STATUS)]), mask, compare]
}
