//! Host ports that only some may use, by the kernel's own packet filter, whether there is a datapath or not: it leaves to
//! the kernel what it has no entry for.
//!
//! ```text
//! table ip sluice-cni {                                  ip6 likewise; four chains a pod, with the name of its device
//!     chain if-sluice0123abcd {                          and if-sluice0123abcd-out, the same for hook output
//!         type nat hook prerouting priority dstnat
//!         ip saddr 192.0.2.0/24 fib daddr type local jump if-sluice0123abcd-ports
//!     }
//!     chain if-sluice0123abcd-ports {
//!         ip daddr 198.51.100.7 meta l4proto tcp th dport 8080 dnat to 10.88.0.2:80
//!     }
//!     chain if-sluice0123abcd-masq {                     where all who come by them are masqueraded
//!         type nat hook postrouting priority srcnat
//!         ip daddr 10.88.0.2/32 ct status & dnat != 0 masquerade
//!     }
//! }
//! ```
//!
//! What other host ports need beside their entries, these need, too: [`super::host_port::open`], without any port.

use std::{collections::BTreeSet, io};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use nix::errno::Errno;

use super::{
    host_port::{
        Family, HOOK_POSTROUTING, HostPort, OUTPUT, PREROUTING, PRIORITY_DSTNAT, PRIORITY_SRCNAT, V4, V6,
        chain, has_chain, is_local, octets, rule, to_destination, was_translated,
    },
    wire::{
        COMPARE_EQUAL, COMPARE_OTHER, DELETE_CHAIN, DELETE_RULE, GET_CHAIN, NEW_CHAIN, NEW_TABLE,
        PacketFilter, Part, TRANSPORT_HEADER, attribute, compare, expression, is, is_unknown, load, matches,
        meta_into, named_chain, nested, number, rules_of, text,
    },
};
use crate::{Result, attributes, owned, owned::FILTER_TABLE, socket::Action};

/// What the names of the chains begin with.
const PREFIX: &str = "if-";
const META_NAME_IN: u32 = 6;
const META_PROTOCOL: u32 = 16;
/// `NFT_JUMP`.
const JUMP: u32 = -3_i32 as u32;
/// Bytes of a device's name.
const NAME_LENGTH: usize = 16;

/// Something that a packet is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It comes from this network.
    Source(IpNet),
    /// It goes to this network.
    Destination(IpNet),
    /// It came in by the device of this name.
    Device(String),
    /// It came in by a device whose name begins so.
    DevicePrefix(String),
}

/// What packets must be like: one of these or, negated, none of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// None instead of one.
    pub negated: bool,
    /// What they may be like.
    pub any_of: Vec<Match>,
}

/// How many rules conditions may become: as many as there are ways to choose one of each.
pub const MOST_ALTERNATIVES: usize = 256;

/// How many rules these conditions become.
pub fn alternatives(conditions: &[Condition]) -> usize {
    let positive = conditions.iter().filter(|condition| !condition.negated);
    positive.fold(1, |product, condition| product.saturating_mul(condition.any_of.len()))
}

impl Match {
    fn expressions(&self, family: Family, comparison: u32) -> Vec<Vec<u8>> {
        let source = family.destination - family.length;
        match self {
            Self::Source(network) => matches(source, *network, comparison).to_vec(),
            Self::Destination(network) => matches(family.destination, *network, comparison).to_vec(),
            Self::Device(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(NAME_LENGTH, 0);
                vec![meta_into(1, META_NAME_IN), compare(comparison, &bytes)]
            }
            Self::DevicePrefix(prefix) => {
                vec![meta_into(1, META_NAME_IN), compare(comparison, prefix.as_bytes())]
            }
        }
    }
}

/// The ways to meet all conditions, each the expressions of a rule.
fn ways(family: Family, conditions: &[Condition]) -> Vec<Vec<Vec<u8>>> {
    let mut ways = vec![Vec::new()];
    for condition in conditions {
        let any_of = condition.any_of.iter();
        if condition.negated {
            let none: Vec<_> = any_of.flat_map(|one| one.expressions(family, COMPARE_OTHER)).collect();
            ways.iter_mut().for_each(|way| way.extend(none.iter().cloned()));
        } else {
            let one: Vec<_> = any_of.map(|one| one.expressions(family, COMPARE_EQUAL)).collect();
            ways = ways
                .iter()
                .flat_map(|way| one.iter().map(|more| [way.clone(), more.clone()].concat()))
                .collect();
        }
    }
    ways
}

/// The names of a device's chains: those that look at conditions, that of the ports, and that of masquerade.
fn names(device: &str) -> [String; 4] {
    ["", "-out", "-ports", "-masq"].map(|end| format!("{PREFIX}{device}{end}"))
}

/// Opens ports of one family to the pod of a device, for whoever meets all the conditions. In place of what it had open.
///
/// In the calling thread's namespace.
pub fn open(device: &str, ports: &[HostPort], conditions: &[Condition]) -> Result<()> {
    let action = Action { verb: "open host ports of link", object: &device };
    let Some(first) = ports.first() else { return Ok(()) };
    let family = Family::of(first.address);
    let mut filter = PacketFilter::open().map_err(|error| action.io(error))?;
    forget(&mut filter, family, device).map_err(|error| action.io(error))?;
    let [before, out, behind, back] = names(device);
    let regular = (NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, named_chain(FILTER_TABLE, &behind));
    let mut parts = vec![(NEW_TABLE, NLM_F_CREATE, text(1, FILTER_TABLE)), regular];
    parts.extend(ports.iter().map(|port| rule(&behind, &to_port(family, port))));
    if first.masquerade {
        let pod = IpNet::from(first.address);
        let mut expressions = matches(family.destination, pod, COMPARE_EQUAL).to_vec();
        expressions.extend(was_translated());
        expressions.push(expression("masq", &[]));
        parts.push(chain(&back, "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT));
        parts.push(rule(&back, &expressions));
    }
    let verdict = nested(2, &[nested(2, &[number(1, JUMP), text(2, &behind)])]);
    let jump = expression("immediate", &[number(1, 0), verdict]);
    for (name, hook) in [(&before, PREROUTING.1), (&out, OUTPUT.1)] {
        parts.push(chain(name, "nat", hook, PRIORITY_DSTNAT));
        for mut way in ways(family, conditions) {
            way.extend(is_local());
            way.push(jump.clone());
            parts.push(rule(name, &way));
        }
    }
    if let Some(last) = parts.last_mut() {
        last.1 |= NLM_F_ACK;
    }
    filter.transact(family.number, &parts).map_err(|error| action.io(error))
}

/// What leads to a port.
fn to_port(family: Family, port: &HostPort) -> Vec<Vec<u8>> {
    let mut expressions = Vec::new();
    if !port.host_ip.is_unspecified() {
        expressions.extend(matches(family.destination, port.host_ip.into(), COMPARE_EQUAL));
    }
    let immediate = |register: u32, bytes: &[u8]| {
        expression("immediate", &[number(1, register), nested(2, &[attribute(1, bytes)])])
    };
    expressions.extend([
        meta_into(1, META_PROTOCOL),
        compare(COMPARE_EQUAL, &[port.protocol]),
        load(TRANSPORT_HEADER, 2, 2),
        compare(COMPARE_EQUAL, &port.host_port.to_be_bytes()),
        immediate(1, &octets(port.address)),
        immediate(2, &port.port.to_be_bytes()),
        to_destination(family, 1, 2),
    ]);
    expressions
}

/// Whether [`open`] holds for a device, in the family of IPv4 or the other.
pub fn is_open(filter: &mut PacketFilter, device: &str, v4: bool) -> Result<bool> {
    let action = Action { verb: "look up host ports of link", object: &device };
    let family = if v4 { V4 } else { V6 };
    let [before, ..] = names(device);
    has_chain(filter, family, &before).map_err(|error| action.io(error))
}

/// The devices that have ports open, in either family.
pub fn list(filter: &mut PacketFilter) -> Result<BTreeSet<String>> {
    let mut devices = BTreeSet::new();
    for family in [V4, V6] {
        let part = (GET_CHAIN, NLM_F_DUMP, Vec::new());
        let found = filter.dump(family.number, part, |_, message| devices.extend(device(message)));
        match found {
            Err(error) if !is_unknown(&error) => {
                return Err(Action { verb: "list", object: &"host ports" }.io(error));
            }
            _ => {}
        }
    }
    Ok(devices)
}

/// The device that a chain is of, if it is one of these.
fn device(message: &[u8]) -> Option<String> {
    let (mut table, mut name) = (String::new(), String::new());
    attributes::for_each(message, |kind, value| {
        match kind {
            1 => table = attributes::text(value),
            3 => name = attributes::text(value),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    let device = name.strip_prefix(PREFIX).filter(|_| table == FILTER_TABLE)?.split('-').next()?;
    owned::is_host_veth_name(device).then(|| device.to_owned())
}

/// Closes the ports of a device in both families. That there are none is no error.
pub fn close(filter: &mut PacketFilter, device: &str) -> Result<()> {
    let action = Action { verb: "close host ports of link", object: &device };
    for family in [V4, V6] {
        forget(filter, family, device).map_err(|error| action.io(error))?;
    }
    Ok(())
}

fn forget(filter: &mut PacketFilter, family: Family, device: &str) -> io::Result<()> {
    let mut parts: Vec<Part> = Vec::new();
    // They are made together, and go together.
    for name in names(device) {
        if has_chain(filter, family, &name)? {
            parts.push((DELETE_RULE, 0, rules_of(FILTER_TABLE, &name)));
            parts.push((DELETE_CHAIN, 0, named_chain(FILTER_TABLE, &name)));
        }
    }
    let Some(last) = parts.last_mut() else { return Ok(()) };
    last.1 |= NLM_F_ACK;
    match filter.transact(family.number, &parts) {
        // Somebody else was faster.
        Err(error) if !is(&error, &[Errno::ENOENT]) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(networks: &[&str], negated: bool) -> Condition {
        let any_of = networks.iter().map(|text| Match::Source(text.parse().unwrap())).collect();
        Condition { negated, any_of }
    }

    #[test]
    fn there_is_a_rule_for_each_way_to_meet_all_conditions() {
        let conditions = [
            from(&["10.0.0.0/8", "192.0.2.0/24"], false),
            from(&["10.1.0.0/16", "10.2.0.0/16"], true),
            Condition {
                negated: false,
                any_of: vec![Match::Device("eth0".into()), Match::DevicePrefix("en".into())],
            },
        ];
        let ways = ways(V4, &conditions);
        assert_eq!((ways.len(), alternatives(&conditions)), (4, 4));
        // Three expressions a network, two a device.
        assert!(ways.iter().all(|way| way.len() == 3 + 6 + 2));
        assert_eq!(super::ways(V4, &[]), [Vec::<Vec<u8>>::new()]);
    }

    #[test]
    fn chains_of_others_are_nobodys() {
        let message = |table: &str, name: &str| named_chain(table, name);
        assert_eq!(
            device(&message("sluice-cni", "if-sluice0123abcd-out")),
            Some("sluice0123abcd".to_owned())
        );
        for (table, name) in
            [("x", "if-sluice0123abcd"), ("sluice-cni", "if-eth0"), ("sluice-cni", "10.0.0.0-8")]
        {
            assert_eq!(device(&message(table, name)), None, "{table} {name}");
        }
    }
}
