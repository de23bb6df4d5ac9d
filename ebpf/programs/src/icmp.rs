//! ICMP errors about translated packets: told to whom they concern, about the packet as that one knows it (row 34
//! of the behaviour table). Path-MTU discovery and traceroute through a service rest on this.
//!
//! An error quotes the packet that it is about. A reply to that packet would have the inverse tuple, so the entry
//! for replies says what the quoted packet was before it was translated:
//!
//! ```text
//! entry of the inverse       backend ─▶ source   becomes   frontend ─▶ client
//! quoted    source ─▶ backend                    becomes   client ─▶ frontend
//! error     (anybody) ─▶ source                  becomes   (anybody) ─▶ client
//! ```

#![expect(unsafe_code, reason = "direct packet access, and a function that the verifier looks at by itself")]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{
    Addr, Be16, Flow, FlowKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, csum_add,
    csum_fold, csum_replace_addr, csum_replace_u16,
};

use crate::{
    forward, kernel, maps,
    packet::{ETH_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, at, is_echo},
    pipeline::Hook,
    verdict::Verdict,
};

/// Length of an ICMP header.
const ICMP_LEN: usize = 8;

/// Whether an ICMP message is an error (RFC 792, RFC 4443): it quotes a packet.
#[inline(always)]
pub fn is_error(v4: bool, kind: u8) -> bool {
    if v4 { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
}

/// Translates an error about a packet of a known flow and sends it on; `None` where no flow is known.
#[inline(always)]
pub fn translate(ctx: &TcContext, v4: bool, hook: Hook) -> Option<Verdict> {
    if rewrite_error(ctx.skb.skb, u32::from(v4)) == 0 {
        return None;
    }
    Some(forward::to_destination(ctx, v4, hook))
}

/// Changes the error and what it quotes; 0 where there is nothing to change. Global in the sense of BTF: looked
/// at once by the verifier, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rewrite_error(skb: *mut __sk_buff, v4: u32) -> u32 {
    let ctx = TcContext::new(skb);
    let done = if v4 != 0 { error_v4(&ctx) } else { error_v6(&ctx) };
    u32::from(done.is_some())
}

#[inline(always)]
fn error_v4(ctx: &TcContext) -> Option<()> {
    const ICMP: usize = ETH_LEN + IPV4_LEN;
    const QUOTED: usize = ICMP + ICMP_LEN;

    let ip = at::<Ipv4>(ctx, QUOTED)?;
    // SAFETY: `at` has checked that the header is there.
    let (version_ihl, proto, src, dst) = unsafe { ((*ip).version_ihl, (*ip).proto, (*ip).src, (*ip).dst) };
    if version_ihl != 0x45 {
        return None;
    }
    let key = quoted_key(ctx, QUOTED + IPV4_LEN, Addr::from_v4_word(src), Addr::from_v4_word(dst), proto)?;
    let entry = maps::flow(&key.inverse())?;
    // The quoted header's checksum takes up what its addresses change; what is left are the ports.
    let change = change_ports(0, &key, entry);
    if !kernel::l4_checksum(ctx, ICMP + 2, change, 0) {
        return None;
    }
    let ip = at::<Ipv4>(ctx, QUOTED)?;
    // SAFETY: `at` has checked that the header is there.
    unsafe { readdress_v4(ip, &entry.dst, &entry.src) };
    write_ports(ctx, QUOTED + IPV4_LEN, &key, entry)?;
    let ip = at::<Ipv4>(ctx, ETH_LEN)?;
    // SAFETY: `at` has checked that the header is there.
    unsafe {
        let src = Addr::from_v4_word((*ip).src);
        readdress_v4(ip, &sender(&src, &key, entry), &entry.dst);
    }
    Some(())
}

#[inline(always)]
fn error_v6(ctx: &TcContext) -> Option<()> {
    const ICMP: usize = ETH_LEN + IPV6_LEN;
    const QUOTED: usize = ICMP + ICMP_LEN;

    let ip = at::<Ipv6>(ctx, QUOTED)?;
    // SAFETY: `at` has checked that the header is there.
    let (proto, src, dst) = unsafe { ((*ip).next, Addr::from_words((*ip).src), Addr::from_words((*ip).dst)) };
    let key = quoted_key(ctx, QUOTED + IPV6_LEN, src, dst, proto)?;
    let entry = maps::flow(&key.inverse())?;
    let outer = at::<Ipv6>(ctx, ETH_LEN)?;
    // SAFETY: `at` has checked that the header is there.
    let (old_src, old_dst) = unsafe { (Addr::from_words((*outer).src), Addr::from_words((*outer).dst)) };
    let new_src = sender(&old_src, &key, entry);
    let quoted = csum_replace_addr(csum_replace_addr(0, &key.src, &entry.dst), &key.dst, &entry.src);
    let outside = csum_replace_addr(csum_replace_addr(0, &old_src, &new_src), &old_dst, &entry.dst);
    if !kernel::l4_checksum(ctx, ICMP + 2, change_ports(quoted, &key, entry), 0)
        || !kernel::address_checksum(ctx, false, ICMP + 2, outside, 0)
    {
        return None;
    }
    let ip = at::<Ipv6>(ctx, QUOTED)?;
    // SAFETY: `at` has checked that the header is there.
    unsafe {
        (*ip).src = entry.dst.words();
        (*ip).dst = entry.src.words();
    }
    write_ports(ctx, QUOTED + IPV6_LEN, &key, entry)?;
    let ip = at::<Ipv6>(ctx, ETH_LEN)?;
    // SAFETY: `at` has checked that the header is there.
    unsafe {
        (*ip).src = new_src.words();
        (*ip).dst = entry.dst.words();
    }
    Some(())
}

/// The tuple of the quoted packet.
#[inline(always)]
fn quoted_key(ctx: &TcContext, l4: usize, src: Addr, dst: Addr, proto: u8) -> Option<FlowKey> {
    // SAFETY: `at` has checked that the bytes are there.
    let words = unsafe { at::<[u16; 4]>(ctx, l4)?.read_unaligned() };
    let (sport, dport) = match proto {
        PROTO_TCP | PROTO_UDP | PROTO_SCTP => (words[0], words[1]),
        PROTO_ICMP | PROTO_ICMPV6 => (words[2], words[2]),
        _ => return None,
    };
    Some(FlowKey { src, dst, sport: Be16(sport), dport: Be16(dport), proto: u32::from(proto) })
}

/// Whom the error seems to come from: the frontend where it comes from the quoted packet's destination itself,
/// otherwise the router that it does come from.
#[inline(always)]
fn sender(src: &Addr, key: &FlowKey, entry: &Flow) -> Addr {
    if *src == key.dst { entry.src } else { *src }
}

/// Adds to a partial sum what the quoted ports change.
#[inline(always)]
fn change_ports(sum: u32, key: &FlowKey, entry: &Flow) -> u32 {
    let sum = csum_replace_u16(sum, key.sport.0, entry.dport.0);
    if is_echo(key.proto) { sum } else { csum_replace_u16(sum, key.dport.0, entry.sport.0) }
}

#[inline(always)]
fn write_ports(ctx: &TcContext, l4: usize, key: &FlowKey, entry: &Flow) -> Option<()> {
    if is_echo(key.proto) {
        let id = at::<u16>(ctx, l4 + 4)?;
        // SAFETY: `at` has checked that the identifier is there.
        unsafe { id.write_unaligned(entry.dport.0) };
    } else {
        let ports = at::<[u16; 2]>(ctx, l4)?;
        // SAFETY: `at` has checked that the ports are there.
        unsafe { ports.write_unaligned([entry.dport.0, entry.sport.0]) };
    }
    Some(())
}

/// Gives an IPv4 header other addresses.
///
/// # Safety
///
/// The header must have been checked to be in the packet.
#[inline(always)]
unsafe fn readdress_v4(ip: *mut Ipv4, src: &Addr, dst: &Addr) {
    // SAFETY: as the caller says.
    unsafe {
        let (old_src, old_dst) = (Addr::from_v4_word((*ip).src), Addr::from_v4_word((*ip).dst));
        let change = csum_replace_addr(csum_replace_addr(0, &old_src, src), &old_dst, dst);
        (*ip).checksum = csum_fold(csum_add(u32::from(!(*ip).checksum), change));
        (*ip).src = src.v4_word();
        (*ip).dst = dst.v4_word();
    }
}
