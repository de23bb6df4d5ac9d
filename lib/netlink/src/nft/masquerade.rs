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

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use nix::errno::Errno;

use super::wire::{
    COMPARE_EQUAL, COMPARE_OTHER, DELETE_TABLE, FAMILY_V4, FAMILY_V6, GET_CHAIN, NEW_CHAIN, NEW_RULE,
    NEW_TABLE, PacketFilter, expression, is_unknown, matches, named_chain, nested, number, rules_of, text,
};
use crate::{Result, owned::FILTER_TABLE, socket::Action};

const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_SRCNAT: u32 = 100;

/// Makes packets from `network` that leave for elsewhere take the node's address. Says whether that is new.
///
/// In the calling thread's namespace.
pub fn ensure(network: IpNet) -> Result<bool> {
    let action = Action { verb: "masquerade", object: &network };
    let network = network.trunc();
    let mut filter = PacketFilter::open().map_err(|error| action.io(error))?;
    if is_ensured(&mut filter, network)? {
        return Ok(false);
    }
    let (family, chain) = place(network);
    let made = filter.transact(
        family,
        &[
            (NEW_TABLE, NLM_F_CREATE, text(1, FILTER_TABLE)),
            (NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, hooked_chain(&chain)),
            (NEW_RULE, NLM_F_CREATE | NLM_F_ACK, rule(&chain, network)),
        ],
    );
    match made {
        Ok(()) => Ok(true),
        // Another process was faster; its chain has the same rule.
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(false),
        Err(error) => Err(action.io(error)),
    }
}

/// Whether [`ensure`] holds for a network.
pub fn is_ensured(filter: &mut PacketFilter, network: IpNet) -> Result<bool> {
    let (family, chain) = place(network.trunc());
    match filter.get(family, (GET_CHAIN, NLM_F_ACK, named_chain(FILTER_TABLE, &chain))) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Err(error) => Err(Action { verb: "look up the masquerade of", object: &network }.io(error)),
    }
}

/// The family and the name of a network's chain.
fn place(network: IpNet) -> (u8, String) {
    let family = if network.addr().is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    (family, format!("{}-{}", network.addr(), network.prefix_len()))
}

/// Takes back all that [`ensure`] and [`super::host_port::open`] made. That there is nothing is no error.
pub fn remove_all() -> Result<()> {
    let action = Action { verb: "remove", object: &"the masquerade" };
    for family in [FAMILY_V4, FAMILY_V6] {
        let mut filter = match PacketFilter::open() {
            Ok(filter) => filter,
            Err(error) if is_unknown(&error) => return Ok(()),
            Err(error) => return Err(action.io(error)),
        };
        match filter.transact(family, &[(DELETE_TABLE, NLM_F_ACK, text(1, FILTER_TABLE))]) {
            Err(error) if !is_unknown(&error) => return Err(action.io(error)),
            _ => {}
        }
    }
    Ok(())
}

fn hooked_chain(name: &str) -> Vec<u8> {
    let hook = nested(4, &[number(1, HOOK_POSTROUTING), number(2, PRIORITY_SRCNAT)]);
    [named_chain(FILTER_TABLE, name), hook, text(7, "nat")].concat()
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
    [rules_of(FILTER_TABLE, chain), nested(4, &expressions)].concat()
}
