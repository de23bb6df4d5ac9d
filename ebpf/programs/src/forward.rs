//! Where a packet goes once its tuple is right.

use core::mem::MaybeUninit;

use aya_ebpf::programs::TcContext;
use sluice_ebpf_common::{
    Addr, DropReason, ENDPOINT_SHAPED, Endpoint, FLOW_REPLY, FLOW_SERVICE, Flow, NODE_MAC, mac_words,
};

use crate::{
    kernel::{self, Route, RouteKind},
    maps,
    packet::{self, Packet},
    pipeline::Hook,
    rewrite,
    verdict::{PASS, Verdict},
};

/// Rewrites a packet of a flow and sends it on: to a pod of this node, to the node itself, or along the
/// kernel's routes.
#[inline(always)]
pub fn translated(ctx: &TcContext, packet: &Packet, flow: &Flow, hook: Hook) -> Verdict {
    let mut hook = hook;
    if hook == Hook::ToWire {
        // Past this hook there is only the device that the kernel has chosen; but for what is now for a backend,
        // which the node itself has sent.
        if flow.flags & (FLOW_SERVICE | FLOW_REPLY) != FLOW_SERVICE {
            rewrite::apply(ctx, packet, flow, false)?;
            return Ok(PASS);
        }
        hook = Hook::FromHost;
    }
    if let Some(endpoint) = maps::endpoint(&flow.dst) {
        let hop = hook == Hook::FromWire;
        if hop && packet.ttl <= 1 {
            // What stays as it is the kernel can answer.
            return if flow.dst == packet.key.dst { Ok(PASS) } else { Err(DropReason::TtlExpired) };
        }
        rewrite::apply(ctx, packet, flow, hop)?;
        return to_pod(ctx, endpoint, hook);
    }
    if maps::is_node_address(&flow.dst) {
        rewrite::apply(ctx, packet, flow, false)?;
        return to_node(ctx, &flow.src, &flow.dst);
    }
    routed(ctx, packet, flow, hook)
}

/// Into a pod of this node.
#[inline(always)]
pub fn to_pod(ctx: &TcContext, endpoint: &Endpoint, hook: Hook) -> Verdict {
    rewrite::link(ctx, &endpoint.macs())?;
    Ok(match hook {
        Hook::FromPod | Hook::FromWire if endpoint.flags & ENDPOINT_SHAPED == 0 => {
            kernel::redirect_peer(ctx, endpoint.ifindex)
        }
        // Only an ingress hook can skip the veth's queue, and only where it is no limit of the pod's. On the egress of a
        // veth without a bridge the node's own packets are looked at, too: this one has been.
        _ => {
            kernel::set_translated(ctx);
            kernel::redirect_egress(endpoint.ifindex)
        }
    })
}

/// The link-layer addresses of a packet that the node sends itself.
const NODE_TO_NODE: [u16; 6] = mac_words(&NODE_MAC, &NODE_MAC);

/// The link-layer addresses of a packet on the loopback device.
const LOOPBACK: [u16; 6] = [0; 6];

/// To a socket of the node: the packet arrives on the service device, from where any source is believed. It
/// may bear a service's address or one of the node's own, which the kernel takes for forged elsewhere. What is
/// for `::1`, or from it, arrives on the loopback device, the only one where the kernel takes it (for `127.0.0.1` there
/// is a setting, `route_localnet`).
#[inline(always)]
pub fn to_node(ctx: &TcContext, src: &Addr, dst: &Addr) -> Verdict {
    if dst.is_v6_loopback() || src.is_v6_loopback() {
        rewrite::link(ctx, &LOOPBACK)?;
        return Ok(kernel::redirect_ingress(kernel::LOOPBACK_IFINDEX));
    }
    rewrite::link(ctx, &NODE_TO_NODE)?;
    Ok(kernel::redirect_ingress(maps::service_ifindex()))
}

/// Out of the node, by the kernel's routing tables. A function of its own for its share of the stack.
#[inline(never)]
fn routed(ctx: &TcContext, packet: &Packet, flow: &Flow, hook: Hook) -> Verdict {
    // The node's own packets have not been forwarded by anybody yet.
    let hop = hook != Hook::FromHost;
    match hook {
        // As it came, so that the kernel tells the pod: routed to the service device, it ends there.
        Hook::FromPod if packet.ttl <= 1 => return Ok(PASS),
        Hook::FromWire if packet.ttl <= 1 => return Err(DropReason::TtlExpired),
        _ => {}
    }
    kernel::set_translated(ctx);
    let mut route = MaybeUninit::uninit();
    let route = find_route(ctx, &mut route, &flow.src, &flow.dst);
    if route.kind != RouteKind::Kernel {
        rewrite::apply(ctx, packet, flow, hop)?;
        return depart(ctx, route);
    }
    // With its own source the kernel forwards it, or tells the sender why it cannot (too large for the way, no way);
    // with the node's it would be taken for forged.
    if hook == Hook::FromPod && flow.src == packet.key.src {
        rewrite::apply(ctx, packet, flow, false)?;
        return Ok(PASS);
    }
    Err(DropReason::NoRoute)
}

/// Asks the kernel where a packet goes that is the node's to forward.
#[inline(always)]
fn find_route<'a>(ctx: &TcContext, place: &'a mut MaybeUninit<Route>, src: &Addr, dst: &Addr) -> &'a Route {
    let route = Route::unknown(place);
    kernel::route(ctx, route, src, dst, maps::service_ifindex());
    route
}

/// Sends a packet along a route that is not left to the kernel.
#[inline(always)]
fn depart(ctx: &TcContext, route: &Route) -> Verdict {
    if route.kind == RouteKind::Neighbour {
        return Ok(kernel::redirect_neighbour(route.ifindex, &route.next_hop));
    }
    rewrite::link(ctx, &route.macs)?;
    Ok(kernel::redirect_egress(route.ifindex))
}

/// A pod's packet to somewhere else, as it is: out of an uplink, if that is where the kernel's routes lead. All else is left
/// to the kernel (too large for the way, no way, a device that is not the node's network).
///
/// What comes in for a pod goes past the kernel's forwarding, so what goes out must too: a firewall that follows
/// connections takes one direction alone for invalid. A function of its own for its share of the stack.
#[inline(never)]
pub fn leave(ctx: &TcContext, packet: &Packet) -> Verdict {
    let mut route = MaybeUninit::uninit();
    let route = find_route(ctx, &mut route, &packet.key.src, &packet.key.dst);
    if route.kind == RouteKind::Kernel || maps::uplink(&route.ifindex).is_none() {
        return Ok(PASS);
    }
    rewrite::hop(ctx, packet)?;
    depart(ctx, route)
}

/// Sends a packet on that is right already (an ICMP error), by the addresses that stand in it.
#[inline(always)]
pub fn to_destination(ctx: &TcContext, v4: bool, hook: Hook) -> Verdict {
    if hook == Hook::ToWire {
        return Ok(PASS);
    }
    let is_ingress = matches!(hook, Hook::FromPod | Hook::FromWire);
    match by_addresses(ctx, v4, is_ingress) {
        FAILED => Err(DropReason::NoRoute),
        action => Ok(action),
    }
}

/// No action of the kernel's.
const FAILED: i32 = i32::MAX;

/// A function of its own for its share of the stack.
#[inline(never)]
fn by_addresses(ctx: &TcContext, v4: bool, is_ingress: bool) -> i32 {
    let Some((src, dst)) = packet::addresses(ctx, v4) else { return FAILED };
    let hook = if is_ingress { Hook::FromPod } else { Hook::FromHost };
    if let Some(endpoint) = maps::endpoint(&dst) {
        return to_pod(ctx, endpoint, hook).unwrap_or(FAILED);
    }
    if maps::is_node_address(&dst) {
        return to_node(ctx, &src, &dst).unwrap_or(FAILED);
    }
    kernel::set_translated(ctx);
    let mut route = MaybeUninit::uninit();
    let route = find_route(ctx, &mut route, &src, &dst);
    if route.kind == RouteKind::Kernel { FAILED } else { depart(ctx, route).unwrap_or(FAILED) }
}
