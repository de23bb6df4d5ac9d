//! What becomes of a new connection's source: whether, and as which of the node's addresses, it is masqueraded.

use aya_ebpf::programs::TcContext;
use sluice_ebpf_common::{
    Addr, DropReason, FlowKey, NETWORK_LOCAL_PODS, NETWORK_NO_MASQUERADE, NETWORK_OVERLAY,
    NODE_ADDRESS_INNER, OVERLAY_UPLINK,
};

use crate::{kernel, maps, nat::Target, pipeline::Hook};

/// What a service wants of the client's address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It stays.
    Kept,
    /// It becomes the node's.
    Masqueraded,
    /// It becomes the node's where the client is not of the cluster.
    AsOfTheCluster,
}

/// Pods reach what is outside the cluster with the node's address, and the node reaches what is behind the overlay with
/// its address there. Returns whether that is so here.
#[inline(always)]
pub fn masquerade(ctx: &TcContext, key: &FlowKey, target: &mut Target) -> Result<bool, DropReason> {
    let network = maps::network_flags(&key.dst);
    let uplink = if network & NETWORK_OVERLAY != 0 {
        if maps::node_address(&key.src).is_none() {
            return Ok(false);
        }
        OVERLAY_UPLINK
    } else {
        if maps::endpoint(&key.src).is_none() || network & NETWORK_NO_MASQUERADE != 0 {
            return Ok(false);
        }
        kernel::ifindex(ctx)
    };
    target.masquerade = node_address(key.src.is_v4(), uplink)?;
    Ok(true)
}

/// Whether somebody outside the cluster reaches a pod of this node by its own address. Nothing is translated then, but
/// it must be known that the pod only answers: what a pod begins towards the outside is masqueraded.
#[inline(always)]
pub fn visits(key: &FlowKey) -> bool {
    maps::endpoint(&key.dst).is_some() && maps::network_flags(&key.src) & NETWORK_NO_MASQUERADE == 0
}

/// Masquerades a connection to a backend where that must be.
#[inline(always)]
pub fn of_service(key: &FlowKey, target: &mut Target, source: Source, hook: u32) -> Result<(), DropReason> {
    let network = maps::network_flags(&target.dst);
    if needs_masquerade(&key.src, &target.dst, network, source, hook) {
        let uplink = if network & NETWORK_OVERLAY != 0 { OVERLAY_UPLINK } else { 0 };
        target.masquerade = node_address(key.src.is_v4(), uplink)?;
    }
    Ok(())
}

/// Whether the connection must come from the node for its replies to pass here (rows 6, 8 and 17 of the
/// behaviour table). `network` is what is known of the backend's.
#[inline(always)]
fn needs_masquerade(src: &Addr, backend: &Addr, network: u32, source: Source, hook: u32) -> bool {
    const FROM_POD: u32 = Hook::FromPod as u32;
    const FROM_HOST: u32 = Hook::FromHost as u32;
    let external = source == Source::Masqueraded;
    match hook {
        FROM_POD => external || *backend == *src || network & NETWORK_NO_MASQUERADE == 0,
        FROM_HOST => match maps::node_address(src) {
            Some(is_own) => *is_own & NODE_ADDRESS_INNER != 0 || network & NETWORK_OVERLAY != 0,
            None => external || maps::endpoint(src).is_none(),
        },
        _ => match source {
            Source::Kept => false,
            Source::Masqueraded => true,
            Source::AsOfTheCluster => !is_local_pod(src),
        },
    }
}

/// Whether an address counts as a local pod's: what that is, `detectLocal` says.
#[inline(always)]
pub fn is_local_pod(src: &Addr) -> bool {
    maps::network_flags(src) & NETWORK_LOCAL_PODS != 0
}

/// The node's address on an uplink, or its primary one, in a family.
#[inline(always)]
fn node_address(v4: bool, ifindex: u32) -> Result<Addr, DropReason> {
    let uplink = maps::uplink(&ifindex).or_else(|| maps::uplink(&0)).ok_or(DropReason::NoRoute)?;
    let addr = if v4 { uplink.v4 } else { uplink.v6 };
    // An uplink without an address in this family has all zeroes there.
    if addr == Addr::ANY_V6 { Err(DropReason::NoRoute) } else { Ok(addr) }
}
