//! Packets of connections that are known.

use sluice_ebpf_common::{
    FLOW_FIN, FLOW_REPLY, FLOW_RST, FLOW_SERVICE, Flow, FlowKey, PROTO_TCP, PROTO_UDP, TCP_ACK, TCP_FIN,
    TCP_RST, TCP_SYN,
};

use crate::{kernel, maps, packet::Packet};

/// The flow that the packet belongs to, brought up to date; `None` where there is none or where its backend
/// must be chosen again.
#[inline(always)]
pub fn known(packet: &Packet) -> Option<&'static mut Flow> {
    let flow = maps::flow(&packet.key)?;
    if must_choose_again(packet, flow) {
        let reply = flow.tuple(packet.key.proto).inverse();
        maps::flow_remove(&packet.key);
        maps::flow_remove(&reply);
        return None;
    }
    let now = kernel::now();
    if flow.seen != now {
        flow.seen = now;
    }
    let ends = packet.tcp_flags & (TCP_FIN | TCP_RST);
    if ends != 0 {
        let seen = if ends & TCP_RST != 0 { FLOW_RST } else { FLOW_FIN };
        if flow.flags & seen == 0 {
            flow.flags |= seen;
        }
    }
    Some(flow)
}

/// A datagram whose backend is gone goes to another at once; a TCP connection drains, and only a new one (a
/// SYN on the tuple of one that has ended, or whose backend is gone) gets a new choice.
#[inline(always)]
fn must_choose_again(packet: &Packet, flow: &Flow) -> bool {
    if flow.flags & (FLOW_SERVICE | FLOW_REPLY) != FLOW_SERVICE {
        return false;
    }
    match packet.key.proto as u8 {
        PROTO_UDP => maps::backend(&flow.backend).is_none(),
        PROTO_TCP if packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN => {
            maps::backend(&flow.backend).is_none() || has_ended(&packet.key, flow)
        }
        _ => false,
    }
}

/// Whether both sides have closed, or either has reset.
#[inline(always)]
fn has_ended(key: &FlowKey, flow: &Flow) -> bool {
    let reply = maps::flow(&flow.tuple(key.proto).inverse()).map_or(FLOW_RST, |reply| reply.flags);
    (flow.flags | reply) & FLOW_RST != 0 || flow.flags & reply & FLOW_FIN != 0
}
