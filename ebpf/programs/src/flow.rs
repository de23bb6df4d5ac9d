//! Packets of connections that are known.

use sluice_ebpf_common::{
    FLOW_ANSWERED, FLOW_FIN, FLOW_REPLY, FLOW_RST, FLOW_SERVICE, Flow, FlowKey, PROTO_SCTP, PROTO_TCP,
    PROTO_UDP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
};

use crate::{kernel, maps, packet::Packet, service};

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
    if flow.flags & (FLOW_REPLY | FLOW_ANSWERED) == FLOW_REPLY {
        flow.flags |= FLOW_ANSWERED;
    }
    let ends = packet.tcp_flags & (TCP_FIN | TCP_RST);
    // Who goes on after a reset was not reset: the segment was a stray one, which its receiver has passed over.
    if ends & TCP_RST == 0 && flow.flags & FLOW_RST != 0 {
        flow.flags &= !FLOW_RST;
    }
    if ends != 0 {
        let seen = if ends & TCP_RST != 0 { FLOW_RST } else { FLOW_FIN };
        if flow.flags & seen == 0 {
            flow.flags |= seen;
        }
    }
    Some(flow)
}

/// Whether a packet that is not to be translated would be taken for another connection's: that the answers to
/// it would look like replies of a flow, and be given that flow's frontend as their source. So it goes when a
/// client uses one port to reach a backend both directly and through its service.
///
/// A connection that has ended gives way.
#[inline(always)]
pub fn clashes(packet: &Packet) -> bool {
    if !matches!(packet.key.proto as u8, PROTO_TCP | PROTO_UDP | PROTO_SCTP) || !begins(packet) {
        return false;
    }
    replies_taken(&packet.key)
}

/// Whether a packet may be the first of a connection: of TCP only a SYN (of SCTP an INIT) is.
#[inline(always)]
pub fn begins(packet: &Packet) -> bool {
    match packet.key.proto as u8 {
        PROTO_TCP | PROTO_SCTP => packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN,
        _ => true,
    }
}

/// Whether the replies to this tuple belong to a flow that lives. A function of its own for its share of the
/// stack.
#[inline(never)]
fn replies_taken(key: &FlowKey) -> bool {
    let reply_key = key.inverse();
    let Some(reply) = maps::flow(&reply_key) else { return false };
    if reply.flags & FLOW_REPLY == 0 {
        return false;
    }
    let flow_key = reply.tuple(key.proto).inverse();
    if !ended(maps::flow(&flow_key).map(|flow| flow.flags), reply.flags) {
        return true;
    }
    maps::flow_remove(&flow_key);
    maps::flow_remove(&reply_key);
    false
}

/// A datagram whose backend is gone goes to another at once; a TCP connection drains, and only a new one (a
/// SYN on the tuple of one that has ended, or whose backend is gone) gets a new choice.
#[inline(always)]
fn must_choose_again(packet: &Packet, flow: &Flow) -> bool {
    if flow.flags & (FLOW_SERVICE | FLOW_REPLY) != FLOW_SERVICE {
        return false;
    }
    match packet.key.proto as u8 {
        PROTO_UDP => service::is_gone(&packet.key, flow),
        PROTO_TCP | PROTO_SCTP if begins(packet) => {
            service::is_gone(&packet.key, flow) || has_ended(&packet.key, flow)
        }
        _ => false,
    }
}

/// Whether the flow's two entries say that its connection has ended.
#[inline(never)]
fn has_ended(key: &FlowKey, flow: &Flow) -> bool {
    let reply = maps::flow(&flow.tuple(key.proto).inverse()).map(|reply| reply.flags);
    ended(reply, flow.flags)
}

/// Both sides have closed, or either has reset, or one of the entries is gone.
#[inline(always)]
fn ended(one: Option<u16>, other: u16) -> bool {
    one.is_none_or(|one| (one | other) & FLOW_RST != 0 || one & other & FLOW_FIN != 0)
}
