//! Fragments: only the first one bears the ports, the others are told by the packet's identification.

use sluice_ebpf_common::{FlowKey, FragmentKey, FragmentPorts};

use crate::maps;

/// What of a packet this is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Piece {
    /// All of it.
    Whole = 0,
    /// Its first fragment.
    First,
    /// Another one.
    Later,
}

/// Keeps the ports of a first fragment for those that follow. A function of its own for its share of the stack.
#[inline(never)]
pub fn keep_ports(tuple: &FlowKey, id: u32) {
    maps::fragment_put(&key(tuple, id), &FragmentPorts { sport: tuple.sport, dport: tuple.dport });
}

/// Gives a later fragment the ports of its first; `false` where that has not been seen. A function of its own for its
/// share of the stack.
#[inline(never)]
pub fn recall_ports(tuple: &mut FlowKey, id: u32) -> bool {
    let Some(ports) = maps::fragment(&key(tuple, id)) else { return false };
    tuple.sport = ports.sport;
    tuple.dport = ports.dport;
    true
}

/// What the fragments of a packet have in common (RFC 791, RFC 8200 section 4.5).
#[inline(always)]
fn key(tuple: &FlowKey, id: u32) -> FragmentKey {
    FragmentKey { src: tuple.src, dst: tuple.dst, id, proto: tuple.proto }
}
