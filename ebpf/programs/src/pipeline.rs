//! The order of the stages.

use aya_ebpf::programs::TcContext;
use sluice_ebpf_common::{Addr, DropReason, Flow};

use crate::{
    flow, forward, icmp, kernel, maps,
    nat::{self, Target},
    packet::{self, Packet, Parsed},
    reject,
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
    /// Egress of the service device, of the loopback device and of the bridge.
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
    let packet = match packet::parse(ctx)? {
        Parsed::Packet(packet) => packet,
        Parsed::Foreign => return Ok(PASS),
        Parsed::Error(src, dst) => {
            if hook == Hook::FromPod {
                check_source(ctx, &src)?;
            }
            return icmp::translate(ctx, src.is_v4(), hook).unwrap_or_else(|| untranslated(ctx, &dst, hook));
        }
        Parsed::Opaque(src, dst) => return opaque(ctx, &src, &dst, hook),
    };
    if hook == Hook::FromPod {
        check_source(ctx, &packet.key.src)?;
    }
    let known = match flow::known(&packet) {
        Some(flow) => flow,
        None if packet.later => return untranslated(ctx, &packet.key.dst, hook),
        None => match begin(ctx, &packet, hook) {
            Ok(Beginning::Flow(flow)) => flow,
            Ok(Beginning::Local) => return Ok(PASS),
            Ok(Beginning::None) if hook == Hook::FromHost && is_refused(ctx, &packet) => {
                return reject::answer(ctx, &packet, hook, DropReason::NoService);
            }
            Ok(Beginning::None) => return untranslated(ctx, &packet.key.dst, hook),
            Err(reason @ DropReason::NoEndpoints) => return reject::answer(ctx, &packet, hook, reason),
            Err(reason) => return Err(reason),
        },
    };
    forward::translated(ctx, &packet, known, hook)
}

/// What a packet that belongs to no known flow begins.
enum Beginning {
    /// A connection, now entered into the table.
    Flow(&'static Flow),
    /// A conversation with a server that holds the address itself.
    Local,
    /// Nothing of the datapath's.
    None,
}

/// Begins a connection: to a service's backend, or, on its way out, from the node's address.
#[inline(always)]
fn begin(ctx: &TcContext, packet: &Packet, hook: Hook) -> Result<Beginning, DropReason> {
    let mut target = Target::unchanged(&packet.key);
    if hook == Hook::ToWire {
        if !source::masquerade(ctx, &packet.key, &mut target)? && !flow::clashes(packet) {
            return Ok(Beginning::None);
        }
    } else {
        match service::choose(ctx, packet, hook, &mut target)? {
            Choice::Backend => {}
            Choice::Local => return Ok(Beginning::Local),
            Choice::None if hook != Hook::FromWire && flow::clashes(packet) => {}
            Choice::None => return Ok(Beginning::None),
        }
    }
    nat::establish(ctx, packet, &target)?;
    // What was just entered: by this packet, or by another of the same connection on another CPU.
    maps::flow(&packet.key).map(|flow| Beginning::Flow(flow)).ok_or(DropReason::FlowTableFull)
}

/// A pod sends from its own addresses only.
#[inline(always)]
fn check_source(ctx: &TcContext, src: &Addr) -> Result<(), DropReason> {
    match maps::endpoint(src) {
        Some(endpoint) if endpoint.ifindex == kernel::ifindex(ctx) => Ok(()),
        _ => Err(DropReason::Spoofed),
    }
}

/// A packet that no service wants.
#[inline(always)]
fn untranslated(ctx: &TcContext, dst: &Addr, hook: Hook) -> Verdict {
    match hook {
        Hook::FromPod => match maps::endpoint(dst) {
            Some(endpoint) => forward::to_pod(ctx, endpoint, hook),
            None => Ok(PASS),
        },
        // What is routed to the service device has a service's address and nowhere else to go: left to
        // itself it would come in at the other end and be routed here again.
        Hook::FromHost if kernel::ifindex(ctx) == maps::service_ifindex() => Err(DropReason::NoService),
        _ => Ok(PASS),
    }
}

/// IP that is not translated: fragments, ICMP other than echo, other protocols.
#[inline(always)]
fn opaque(ctx: &TcContext, src: &Addr, dst: &Addr, hook: Hook) -> Verdict {
    if hook == Hook::FromPod {
        check_source(ctx, src)?;
    }
    untranslated(ctx, dst, hook)
}

/// Whether a packet on the service device has a service's address, but none of its ports (row 21 of the behaviour
/// table).
#[inline(always)]
fn is_refused(ctx: &TcContext, packet: &Packet) -> bool {
    kernel::ifindex(ctx) == maps::service_ifindex() && service::is_service_address(&packet.key.dst)
}
