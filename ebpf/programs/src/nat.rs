//! New connections: the pair of entries, and the source port.

#![expect(unsafe_code, reason = "a function that the verifier looks at by itself takes raw pointers")]

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{
    Addr, Backend, Be16, DropReason, FLOW_MASQUERADE, FLOW_REPLY, FLOW_SERVICE, Flow, FlowKey, PROTO_TCP,
    PROTO_UDP,
};

use crate::{
    kernel,
    maps::{self, FlowError},
    packet::{self, Packet},
};

/// How many ports are tried before a connection is refused for want of one.
const ATTEMPTS: u32 = 32;

/// What a new connection shall become.
#[repr(C)]
pub struct Target {
    /// Destination.
    pub dst: Addr,
    /// The node's address that takes the place of the source; all zeroes keep the source.
    pub masquerade: Addr,
    /// Destination port.
    pub dport: Be16,
    /// Always 0.
    pad: u16,
    /// The service's id, or 0.
    pub service: u32,
    /// The backend's id, or 0.
    pub backend: u32,
    /// Always 0.
    pad2: u32,
}

impl Target {
    /// The destination that the packet has, and the source.
    #[inline(always)]
    pub fn unchanged<'a>(place: &'a mut MaybeUninit<Self>, key: &FlowKey) -> &'a mut Self {
        // SAFETY: numbers.
        let target = unsafe { kernel::clear(place) };
        target.dst = key.dst;
        target.dport = key.dport;
        target
    }

    /// Makes a service's backend the destination.
    #[inline(always)]
    pub fn set(&mut self, id: u32, backend: &Backend, service: u32) {
        self.dst = backend.addr;
        self.dport = backend.port;
        self.backend = id;
        self.service = service;
    }

    #[inline(always)]
    fn masquerades(&self) -> bool {
        self.masquerade != Addr::ANY_V6
    }
}

/// Enters a connection into the table. The source port stays where it is free, which it is not where another
/// connection's replies would look the same, or where a socket of the node holds it.
#[inline(always)]
pub fn establish(ctx: &TcContext, packet: &Packet, target: &Target) -> Result<(), DropReason> {
    DropReason::outcome(enter_flow(ctx.skb.skb, &packet.key, target)).map(drop)
}

/// A global function in the sense of BTF: the verifier looks at it once, whatever the callers, where an inlined
/// or static one would be walked through again for every kind of packet; and it has a share of the stack of
/// its own. Returns 0, or the code of a [`DropReason`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enter_flow(skb: *mut __sk_buff, key: *const FlowKey, target: *const Target) -> u32 {
    // SAFETY: the callers pass references; that the verifier does not know it costs a comparison.
    let (key, target) = match unsafe { (key.as_ref(), target.as_ref()) } {
        (Some(key), Some(target)) => (key, target),
        _ => return DropReason::Malformed.code(),
    };
    match try_enter(&TcContext::new(skb), key, target) {
        Ok(()) => 0,
        Err(reason) => reason.code(),
    }
}

#[inline(always)]
fn try_enter(ctx: &TcContext, key: &FlowKey, target: &Target) -> Result<(), DropReason> {
    let is_echo = packet::is_echo(key.proto);
    let mut entry = Flow::to(&key.inverse(), FLOW_REPLY, kernel::now());
    entry.service = target.service;
    entry.backend = target.backend;

    // The reply's key: source and destination are the other way round.
    let mut reply_key = FlowKey {
        src: target.dst,
        dst: if target.masquerades() { target.masquerade } else { key.src },
        sport: if is_echo { key.sport } else { target.dport },
        dport: key.sport,
        proto: key.proto,
    };
    let mut attempt = 0;
    while !reserve(ctx, &reply_key, &entry, target.masquerades())? {
        attempt += 1;
        if attempt == ATTEMPTS {
            return Err(DropReason::NatExhausted);
        }
        reply_key.dport = kernel::random_port();
        if is_echo {
            reply_key.sport = reply_key.dport;
        }
    }

    entry.flags = if target.backend != 0 { FLOW_SERVICE } else { 0 };
    if target.masquerades() {
        entry.flags |= FLOW_MASQUERADE;
    }
    entry.src = reply_key.dst;
    entry.dst = reply_key.src;
    entry.sport = reply_key.dport;
    entry.dport = reply_key.sport;
    match maps::flow_add(key, &entry) {
        Ok(()) => Ok(()),
        Err(FlowError::Full) => {
            maps::flow_remove(&reply_key);
            Err(DropReason::FlowTableFull)
        }
        // Another CPU was faster with a packet of the same connection: its choice holds.
        Err(FlowError::Exists) => {
            let same = maps::flow(key).is_some_and(|first| {
                first.src == entry.src
                    && first.dst == entry.dst
                    && first.sport == entry.sport
                    && first.dport == entry.dport
            });
            if !same {
                maps::flow_remove(&reply_key);
            }
            Ok(())
        }
    }
}

/// Takes a reply key. `false` where it is taken.
#[inline(always)]
fn reserve(ctx: &TcContext, reply_key: &FlowKey, reply: &Flow, masquerade: bool) -> Result<bool, DropReason> {
    if masquerade
        && matches!(reply_key.proto as u8, PROTO_TCP | PROTO_UDP)
        && kernel::socket_exists(ctx, reply_key)
    {
        return Ok(false);
    }
    match maps::flow_add(reply_key, reply) {
        Ok(()) => Ok(true),
        Err(FlowError::Full) => Err(DropReason::FlowTableFull),
        // The same connection's, left when its other entry was evicted or removed, may be taken over.
        Err(FlowError::Exists) => Ok(maps::flow(reply_key).is_some_and(|held| {
            let same = held.flags & FLOW_REPLY != 0
                && held.dst == reply.dst
                && held.dport == reply.dport
                && held.src == reply.src
                && held.sport == reply.sport;
            if same {
                *held = *reply;
            }
            same
        })),
    }
}
