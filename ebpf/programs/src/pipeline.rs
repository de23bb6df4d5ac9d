//! The order of the stages.

#![expect(unsafe_code, reason = "a function that the verifier looks at by itself takes raw pointers")]

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{Addr, DropReason, ENDPOINT_BRIDGED, Endpoint};

use crate::{
    flow, forward, icmp, kernel, maps,
    nat::{self, Target},
    packet::{self, Packet, Parsed},
    reject, rewrite,
    service::{self, Choice},
    source,
    verdict::{PASS, Verdict},
};

/// Where a program is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Ingress of a pod's host veth.
    FromPod,
    /// Ingress of an uplink.
    FromWire,
    /// Egress of an uplink.
    ToWire,
    /// Egress of the service device, of the loopback device, and of what leads to pods: the bridge, or veths without one.
    FromHost,
}

/// Runs a packet through the stages.
#[inline(always)]
pub fn run(ctx: &TcContext, hook: Hook) -> Verdict {
    // What another hook has translated is as it should be; looked at again, it would seem to be a connection
    // of its own.
    if matches!(hook, Hook::ToWire | Hook::FromHost) && kernel::is_translated(ctx) {
        return Ok(PASS);
    }
    if hook == Hook::FromWire && !kernel::is_for_device(ctx) {
        return Ok(PASS);
    }
    let mut packet = MaybeUninit::uninit();
    let packet = Packet::empty(&mut packet);
    let parsed = packet::parse(ctx, packet)?;
    if parsed == Parsed::Foreign {
        return Ok(PASS);
    }
    // Whether the bridge has a say in whom the sender reaches; see [`ENDPOINT_BRIDGED`].
    let bridged = hook == Hook::FromPod && sender(ctx, &packet.key.src)?.flags & ENDPOINT_BRIDGED != 0;
    match parsed {
        Parsed::Packet => {}
        Parsed::Error => {
            let translated = icmp::translate(ctx, packet.v4, hook);
            return translated.unwrap_or_else(|| untranslated(ctx, packet, hook, bridged));
        }
        _ => return untranslated(ctx, packet, hook, bridged),
    }
    let known = match flow::known(packet) {
        Some(flow) => flow,
        None if packet.later => return untranslated(ctx, packet, hook, bridged),
        // Most of what goes between pods, and nothing that a pod could begin.
        None if hook == Hook::FromPod && !flow::begins(packet) => {
            return untranslated(ctx, packet, hook, bridged);
        }
        None => match begin(ctx, packet, hook) {
            Ok(Beginning::Flow) => {
                // What was just entered: by this packet, or by another of the same connection on another CPU.
                maps::flow(&packet.key).ok_or(DropReason::FlowTableFull)?
            }
            Ok(Beginning::Local) => return Ok(PASS),
            Ok(Beginning::None) if hook == Hook::FromHost && is_refused(ctx, packet) => {
                return reject::answer(ctx, packet, hook, DropReason::NoService);
            }
            Ok(Beginning::None) => return untranslated(ctx, packet, hook, bridged),
            Err(reason @ DropReason::NoEndpoints) => return reject::answer(ctx, packet, hook, reason),
            Err(reason) => return Err(reason),
        },
    };
    forward::translated(ctx, packet, known, hook)
}

/// What a packet that belongs to no known flow begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// A connection, now entered into the table.
    Flow = 0,
    /// A conversation with a server that holds the address itself.
    Local = 1,
    /// Nothing of the datapath's.
    None = 2,
}

/// Begins a connection: to a service's backend, or, on its way out, from the node's address.
#[inline(always)]
fn begin(ctx: &TcContext, packet: &Packet, hook: Hook) -> Result<Beginning, DropReason> {
    const FLOW: u32 = Beginning::Flow as u32;
    const LOCAL: u32 = Beginning::Local as u32;
    Ok(match DropReason::outcome(begin_flow(ctx.skb.skb, packet, hook as u32))? {
        FLOW => Beginning::Flow,
        LOCAL => Beginning::Local,
        _ => Beginning::None,
    })
}

/// Returns a [`Beginning`], or the code of a [`DropReason`]. Global in the sense of BTF: looked at once by the
/// verifier, with a share of the stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_flow(skb: *mut __sk_buff, packet: *const Packet, hook: u32) -> u32 {
    // SAFETY: the caller passes a reference; that the verifier does not know it costs a comparison.
    let Some(packet) = (unsafe { packet.as_ref() }) else {
        return DropReason::Malformed.code();
    };
    match try_begin(&TcContext::new(skb), packet, hook) {
        Ok(beginning) => beginning as u32,
        Err(reason) => {
            if matches!(reason, DropReason::NatExhausted | DropReason::FlowTableFull) {
                maps::refused_put(reason, &packet.key);
            }
            reason.code()
        }
    }
}

#[inline(always)]
fn try_begin(ctx: &TcContext, packet: &Packet, hook: u32) -> Result<Beginning, DropReason> {
    let mut target = MaybeUninit::uninit();
    let target = Target::unchanged(&mut target, &packet.key);
    let leaves = hook == Hook::ToWire as u32;
    let chosen = match leaves {
        true if source::masquerade(ctx, &packet.key, target)? => Choice::Backend,
        // The node's own packets to addresses of services that are not routed to the service device: external
        // ones, and those of load balancers.
        true if flow::begins(packet) && maps::is_node_address(&packet.key.src) => {
            service::choose(ctx, &packet.key, Hook::FromHost as u32, target)?
        }
        true => Choice::None,
        // A stray segment begins nothing: entered as a connection it could give its source port a second meaning. What
        // the kernel makes of it as it is, is what its sender should be told: a reset.
        false if !flow::begins(packet) => Choice::None,
        false => service::choose(ctx, &packet.key, hook, target)?,
    };
    match chosen {
        Choice::Backend => {}
        Choice::Local => return Ok(Beginning::Local),
        Choice::None if hook != Hook::FromWire as u32 && flow::clashes(packet) => {}
        Choice::None
            if hook == Hook::FromWire as u32 && source::visits(&packet.key) && !is_own(&packet.key.src) => {}
        Choice::None => return Ok(Beginning::None),
    }
    nat::establish(ctx, packet, target)?;
    Ok(Beginning::Flow)
}

/// The pod that a packet comes from, which sends from its own addresses only.
#[inline(always)]
fn sender(ctx: &TcContext, src: &Addr) -> Result<&'static Endpoint, DropReason> {
    match maps::endpoint(src) {
        Some(endpoint) if endpoint.ifindex == kernel::ifindex(ctx) => Ok(endpoint),
        _ => Err(DropReason::Spoofed),
    }
}

/// A packet that no service wants: straight to the pod that it is for, where that is one of this node's, and, from a
/// pod, straight out of the node.
#[inline(always)]
fn untranslated(ctx: &TcContext, packet: &Packet, hook: Hook, bridged: bool) -> Verdict {
    let device = kernel::ifindex(ctx);
    // What the kernel would do more than forward it (options, an end of its time to live, a source that can only be
    // forged) is left to the kernel.
    let simple = packet.is_plain() && packet.ttl > 1;
    match hook {
        // What is routed to the service device has a service's address and nowhere else to go: left to
        // itself it would come in at the other end and be routed here again.
        Hook::FromHost if device == maps::service_ifindex() => return Err(DropReason::NoService),
        Hook::FromHost if device == kernel::LOOPBACK_IFINDEX => return Ok(PASS),
        Hook::FromPod if bridged => return Ok(PASS),
        Hook::FromWire if !simple => return Ok(PASS),
        Hook::ToWire => return Ok(PASS),
        _ => {}
    }
    let dst = &packet.key.dst;
    let Some(endpoint) = maps::endpoint(dst) else {
        let leaves = hook == Hook::FromPod && simple && !maps::is_node_address(dst);
        return if leaves { forward::leave(ctx, packet) } else { Ok(PASS) };
    };
    if endpoint.flags & ENDPOINT_BRIDGED != 0 {
        return Ok(PASS);
    }
    if hook == Hook::FromWire {
        if is_own(&packet.key.src) {
            return Ok(PASS);
        }
        rewrite::hop(ctx, packet)?;
    }
    forward::to_pod(ctx, endpoint, hook)
}

/// Whether an address is the node's, or one of its pods'.
#[inline(always)]
fn is_own(addr: &Addr) -> bool {
    maps::endpoint(addr).is_some() || maps::is_node_address(addr)
}

/// Whether a packet on the service device has a service's address, but none of its ports (row 21 of the behaviour
/// table).
#[inline(always)]
fn is_refused(ctx: &TcContext, packet: &Packet) -> bool {
    kernel::ifindex(ctx) == maps::service_ifindex() && service::is_service_address(&packet.key.dst)
}
