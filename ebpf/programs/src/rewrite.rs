//! Gives a packet the tuple that its flow says.

#![expect(unsafe_code, reason = "direct packet access, and a function that the verifier looks at by itself")]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{
    Be16, DropReason, Flow, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, crc32c_multiply, crc32c_replace,
    csum_add, csum_fold, csum_replace_addr, csum_replace_u16,
};

use crate::{
    kernel,
    packet::{ETH_LEN, Ethernet, Ipv4, Ipv6, Packet, V4_PLAIN, V6_PLAIN, at, is_echo},
};

/// `BPF_F_MARK_MANGLED_0`: a UDP checksum of zero means that there is none.
const UDP_ZERO: u64 = 1 << 5;

/// Changes addresses, ports and checksums; `hop` takes one from the time to live as well.
#[inline(always)]
pub fn apply(ctx: &TcContext, packet: &Packet, flow: &Flow, hop: bool) -> Result<(), DropReason> {
    match readdress(ctx, packet, flow, hop) {
        true => Ok(()),
        false => Err(DropReason::RewriteFailed),
    }
}

/// A function of its own for its share of the stack.
#[inline(never)]
fn readdress(ctx: &TcContext, packet: &Packet, flow: &Flow, hop: bool) -> bool {
    try_readdress(ctx, packet, flow, hop).is_ok()
}

#[inline(always)]
fn try_readdress(ctx: &TcContext, packet: &Packet, flow: &Flow, hop: bool) -> Result<(), DropReason> {
    let key = &packet.key;
    let sum = csum_replace_addr(csum_replace_addr(0, &key.src, &flow.src), &key.dst, &flow.dst);
    if !packet.later {
        transport_checksum(ctx, packet, flow, sum)?;
    }
    // The helpers may have moved the packet: its pointers are taken anew.
    if packet.v4 {
        let ip = at::<Ipv4>(ctx, ETH_LEN).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: `at` has checked that the header is there.
        unsafe {
            let sum = csum_add(u32::from(!(*ip).checksum), sum);
            (*ip).checksum = csum_fold(if hop { hop_v4(ip, sum) } else { sum });
            (*ip).src = flow.src.v4_word();
            (*ip).dst = flow.dst.v4_word();
        }
    } else {
        let ip = at::<Ipv6>(ctx, ETH_LEN).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: `at` has checked that the header is there.
        unsafe {
            if hop {
                hop_v6(ctx, ip);
            }
            (*ip).src = flow.src.words();
            (*ip).dst = flow.dst.words();
        }
    }
    if packet.later { Ok(()) } else { ports(ctx, packet, flow) }
}

/// Takes one from the time to live of a packet that is forwarded as it is.
#[inline(always)]
pub fn hop(ctx: &TcContext, packet: &Packet) -> Result<(), DropReason> {
    if packet.v4 {
        let ip = at::<Ipv4>(ctx, ETH_LEN).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: `at` has checked that the header is there.
        unsafe { (*ip).checksum = csum_fold(hop_v4(ip, u32::from(!(*ip).checksum))) };
    } else {
        let ip = at::<Ipv6>(ctx, ETH_LEN).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: `at` has checked that the header is there.
        unsafe { hop_v6(ctx, ip) };
    }
    Ok(())
}

/// Takes one from an IPv4 header's time to live; the header's partial sum after that.
///
/// # Safety
///
/// The header must have been checked to be in the packet.
#[inline(always)]
unsafe fn hop_v4(ip: *mut Ipv4, sum: u32) -> u32 {
    // SAFETY: as the caller says.
    unsafe {
        let old = u16::from_ne_bytes([(*ip).ttl, (*ip).proto]);
        (*ip).ttl -= 1;
        csum_replace_u16(sum, old, u16::from_ne_bytes([(*ip).ttl, (*ip).proto]))
    }
}

/// Takes one from an IPv6 header's hop limit, which no checksum of its own makes up for in the device's sum.
///
/// # Safety
///
/// The header must have been checked to be in the packet.
#[inline(always)]
unsafe fn hop_v6(ctx: &TcContext, ip: *mut Ipv6) {
    // SAFETY: as the caller says.
    let change = unsafe {
        let old = u16::from_ne_bytes([(*ip).next, (*ip).hop_limit]);
        (*ip).hop_limit -= 1;
        csum_replace_u16(0, old, u16::from_ne_bytes([(*ip).next, (*ip).hop_limit]))
    };
    kernel::add_to_device_sum(ctx, change);
}

/// Changes the transport's checksum by what the addresses and ports change.
#[inline(always)]
fn transport_checksum(
    ctx: &TcContext,
    packet: &Packet,
    flow: &Flow,
    addresses: u32,
) -> Result<(), DropReason> {
    let key = &packet.key;
    if key.proto as u8 == PROTO_SCTP {
        return sctp_checksum(ctx, packet, flow);
    }
    let (offset, flags, covers_addresses) = match key.proto as u8 {
        PROTO_TCP => (packet.l4() + 16, 0, true),
        PROTO_UDP => (packet.l4() + 6, UDP_ZERO, true),
        PROTO_ICMPV6 => (packet.l4() + 2, 0, true),
        _ => (packet.l4() + 2, 0, false),
    };
    if covers_addresses && !kernel::address_checksum(ctx, packet.v4, offset, addresses, flags) {
        return Err(DropReason::RewriteFailed);
    }
    if key.sport != flow.sport || key.dport != flow.dport {
        let mut change = csum_replace_u16(0, key.sport.0, flow.sport.0);
        if !is_echo(key.proto) {
            change = csum_replace_u16(change, key.dport.0, flow.dport.0);
        }
        if !kernel::l4_checksum(ctx, offset, change, flags) {
            return Err(DropReason::RewriteFailed);
        }
    }
    Ok(())
}

/// SCTP's checksum does not cover the addresses.
#[inline(always)]
fn sctp_checksum(ctx: &TcContext, packet: &Packet, flow: &Flow) -> Result<(), DropReason> {
    let key = &packet.key;
    if key.sport == flow.sport && key.dport == flow.dport {
        return Ok(());
    }
    let word = |sport: Be16, dport: Be16| u32::from(sport.0) | u32::from(dport.0) << 16;
    let (old, new) = (word(key.sport, key.dport), word(flow.sport, flow.dport));
    match change_sctp_checksum(ctx.skb.skb, packet.l4() as u32, old, new) {
        0 => Err(DropReason::RewriteFailed),
        _ => Ok(()),
    }
}

/// Changes the checksum for ports that change from `old` to `new`; 0 where that fails. Global in the sense of BTF:
/// looked at once by the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn change_sctp_checksum(skb: *mut __sk_buff, l4: u32, old: u32, new: u32) -> u32 {
    let ctx = TcContext::new(skb);
    let offset = l4 as usize + 8;
    let Ok(checksum) = ctx.load::<u32>(offset) else { return 0 };
    // None yet: the device will make it, or nobody need.
    if checksum == 0 {
        return 1;
    }
    let Some(length) = transport_length(&ctx, l4) else { return 0 };
    let checksum = checksum ^ crc32c_replace(old, new, length, |a, b| multiply(a, b));
    u32::from(ctx.store(offset, &checksum, 0).is_ok())
}

/// Global, too: looked at once, and not for each bit of the length.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn multiply(a: u32, b: u32) -> u32 {
    crc32c_multiply(a, b)
}

/// How long the packet is from the layer-4 header on, by what its IP header says.
#[inline(always)]
fn transport_length(ctx: &TcContext, l4: u32) -> Option<u32> {
    let end = match ctx.load::<u8>(ETH_LEN).ok()? >> 4 {
        4 => ETH_LEN as u32 + u32::from(u16::from_be(ctx.load(ETH_LEN + 2).ok()?)),
        _ => V6_PLAIN as u32 + u32::from(u16::from_be(ctx.load(ETH_LEN + 4).ok()?)),
    };
    end.checked_sub(l4)
}

/// Writes the ports, or an echo's identifier.
#[inline(always)]
fn ports(ctx: &TcContext, packet: &Packet, flow: &Flow) -> Result<(), DropReason> {
    let key = &packet.key;
    if key.sport == flow.sport && key.dport == flow.dport {
        return Ok(());
    }
    if is_echo(key.proto) {
        return ctx.store(packet.l4() + 4, &flow.sport.0, 0).map_err(|_| DropReason::RewriteFailed);
    }
    let both = [flow.sport.0, flow.dport.0];
    let place = match packet.l4() {
        V4_PLAIN => at::<[u16; 2]>(ctx, V4_PLAIN),
        V6_PLAIN => at::<[u16; 2]>(ctx, V6_PLAIN),
        offset => return ctx.store(offset, &both, 0).map_err(|_| DropReason::RewriteFailed),
    };
    let place = place.ok_or(DropReason::RewriteFailed)?;
    // SAFETY: `at` has checked that the ports are there.
    unsafe { place.write_unaligned(both) };
    Ok(())
}

/// Gives the frame new link-layer addresses: destination, then source.
#[inline(always)]
pub fn link(ctx: &TcContext, macs: &[u16; 6]) -> Result<(), DropReason> {
    let eth = at::<Ethernet>(ctx, 0).ok_or(DropReason::RewriteFailed)?;
    // SAFETY: `at` has checked that the header is there.
    unsafe { (*eth).macs = *macs };
    Ok(())
}

/// Sends the frame back to whom it came from.
#[inline(always)]
pub fn turn_around(ctx: &TcContext) -> Result<(), DropReason> {
    let eth = at::<Ethernet>(ctx, 0).ok_or(DropReason::RewriteFailed)?;
    // SAFETY: `at` has checked that the header is there.
    unsafe {
        let [d0, d1, d2, s0, s1, s2] = (*eth).macs;
        (*eth).macs = [s0, s1, s2, d0, d1, d2];
    }
    Ok(())
}
