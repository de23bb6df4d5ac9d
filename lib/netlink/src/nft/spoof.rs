//! A pod's device lets nobody but the pod's own link-layer address through, by the kernel's own packet filter.
//!
//! ```text
//! table netdev sluice-cni {
//!     chain sluice0123abcd {                 one chain a device, of its name
//!         type filter hook ingress device sluice0123abcd priority filter
//!         ether saddr != 02:00:00:00:00:01 drop
//!     }
//! }
//! ```
//!
//! At the device itself, so that a packet meets one rule however many pods there are.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use nix::errno::Errno;

use super::wire::{
    COMPARE_OTHER, DELETE_CHAIN, DELETE_RULE, GET_CHAIN, LINK_HEADER, NEW_CHAIN, NEW_RULE, NEW_TABLE,
    PacketFilter, compare, expression, load, named_chain, nested, number, rules_of, text,
};
use crate::{MacAddress, Result, owned::FILTER_TABLE, socket::Action};

const FAMILY_NETDEV: u8 = 5;
const HOOK_INGRESS: u32 = 0;
/// Where the source address stands in the Ethernet header.
const SOURCE: u32 = 6;
/// The register of verdicts, and the verdict.
const VERDICT: u32 = 0;
const DROP: u32 = 0;

/// Drops what comes in by `device` from another address than `mac`. In place of what was said of the device before.
///
/// In the calling thread's namespace.
pub fn allow_only(device: &str, mac: MacAddress) -> Result<()> {
    let action = Action { verb: "filter link", object: &device };
    let mut filter = PacketFilter::open().map_err(|error| action.io(error))?;
    forget(&mut filter, device)?;
    let hook = nested(4, &[number(1, HOOK_INGRESS), number(2, 0), text(3, device)]);
    let chain = [named_chain(FILTER_TABLE, device), hook, text(7, "filter")].concat();
    let verdict = nested(2, &[nested(2, &[number(1, DROP)])]);
    let expressions = [
        load(LINK_HEADER, SOURCE, 6),
        compare(COMPARE_OTHER, &mac.0),
        expression("immediate", &[number(1, VERDICT), verdict]),
    ];
    let rule = [rules_of(FILTER_TABLE, device), nested(4, &expressions)].concat();
    let parts = [
        (NEW_TABLE, NLM_F_CREATE, text(1, FILTER_TABLE)),
        (NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, chain),
        (NEW_RULE, NLM_F_CREATE | NLM_F_ACK, rule),
    ];
    filter.transact(FAMILY_NETDEV, &parts).map_err(|error| action.io(error))
}

/// Whether [`allow_only`] holds for a device.
pub fn is_filtered(filter: &mut PacketFilter, device: &str) -> Result<bool> {
    let action = Action { verb: "look up the filter of link", object: &device };
    match filter.get(FAMILY_NETDEV, (GET_CHAIN, NLM_F_ACK, named_chain(FILTER_TABLE, device))) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Err(error) => Err(action.io(error)),
    }
}

/// Takes [`allow_only`] back; the device may be gone already. That there is nothing is no error.
pub fn forget(filter: &mut PacketFilter, device: &str) -> Result<()> {
    if !is_filtered(filter, device)? {
        return Ok(());
    }
    let action = Action { verb: "remove the filter of link", object: &device };
    let parts = [
        (DELETE_RULE, 0, rules_of(FILTER_TABLE, device)),
        (DELETE_CHAIN, NLM_F_ACK, named_chain(FILTER_TABLE, device)),
    ];
    match filter.transact(FAMILY_NETDEV, &parts) {
        Err(error) if error.raw_os_error() != Some(Errno::ENOENT as i32) => Err(action.io(error)),
        _ => Ok(()),
    }
}
