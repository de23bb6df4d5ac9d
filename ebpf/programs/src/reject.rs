//! Refuses a packet aloud: a TCP reset, or ICMP port unreachable for a datagram (row 20 of the behaviour table).
//!
//! The packet itself is turned into the answer and goes back where it came from.

#![expect(unsafe_code, reason = "direct packet access, and a function that the verifier looks at by itself")]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{
    Addr, DropReason, FlowKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
    csum_add, csum_fold, csum_replace_addr,
};

use crate::{
    forward, kernel, maps,
    packet::{ETH_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, Packet, at},
    pipeline::Hook,
    rewrite,
    verdict::Verdict,
};

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;
/// Length of an ICMP header, and of a UDP header.
const ICMP_LEN: usize = 8;
/// Time to live of an answer.
const TTL: u8 = 64;

/// TCP header (RFC 9293) without options. Multi-byte fields are in network byte order.
#[repr(C)]
struct Tcp {
    sport: u16,
    dport: u16,
    seq: u32,
    ack: u32,
    data_offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Answers a packet that cannot be served, and counts it as dropped for `reason`.
#[inline(always)]
pub fn answer(ctx: &TcContext, packet: &Packet, hook: Hook, reason: DropReason) -> Verdict {
    // A reset is not answered, lest two such answer each other for ever; options and extensions are too
    // rare to carry along.
    if packet.tcp_flags & TCP_RST != 0 || !packet.is_plain() {
        return Err(reason);
    }
    if build_answer(ctx.skb.skb, &packet.key) == 0 {
        return Err(reason);
    }
    maps::count_drop(reason);
    if hook == Hook::FromHost {
        return forward::to_node(ctx, &packet.key.dst, &packet.key.src);
    }
    rewrite::turn_around(ctx)?;
    kernel::set_translated(ctx);
    Ok(kernel::redirect_egress(kernel::ifindex(ctx)))
}

/// Turns the packet into its answer; 0 where that fails. Global in the sense of BTF: looked at once by the
/// verifier, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn build_answer(skb: *mut __sk_buff, key: *const FlowKey) -> u32 {
    // SAFETY: the caller passes a reference; that the verifier does not know it costs a comparison.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    let ctx = TcContext::new(skb);
    let built = match (key.proto as u8 == PROTO_TCP, key.dst.is_v4()) {
        (true, true) => reset(&ctx, key, ETH_LEN + IPV4_LEN),
        (true, false) => reset(&ctx, key, ETH_LEN + IPV6_LEN),
        (false, true) => unreachable_v4(&ctx, key),
        (false, false) => unreachable_v6(&ctx, key),
    };
    u32::from(built.is_some())
}

/// RFC 9293 section 3.10.7.1: what a segment to a closed port gets.
#[inline(always)]
fn reset(ctx: &TcContext, key: &FlowKey, l4: usize) -> Option<()> {
    let tcp = at::<Tcp>(ctx, l4)?;
    // SAFETY: `at` has checked that the header is there.
    let (seq, ack, data_offset, flags) =
        unsafe { ((*tcp).seq, (*tcp).ack, (*tcp).data_offset, (*tcp).flags) };
    let payload = ctx.len().wrapping_sub(l4 as u32).wrapping_sub(u32::from(data_offset >> 4) * 4);
    let length = payload + u32::from(flags & TCP_SYN != 0) + u32::from(flags & TCP_FIN != 0);
    let (new_seq, new_ack, new_flags) = if flags & TCP_ACK != 0 {
        (ack, 0, TCP_RST)
    } else {
        (0, u32::from_be(seq).wrapping_add(length).to_be(), TCP_RST | TCP_ACK)
    };
    kernel::change_length(ctx, l4 + TCP_LEN)?;
    let partial = kernel::checksum_is_partial(ctx, l4 + 16)?;
    let tcp = at::<Tcp>(ctx, l4)?;
    let pseudo = pseudo_header(key, PROTO_TCP, TCP_LEN as u16);
    // SAFETY: `at` has checked that what is written to is in the packet.
    unsafe {
        (*tcp).sport = key.dport.0;
        (*tcp).dport = key.sport.0;
        (*tcp).seq = new_seq;
        (*tcp).ack = new_ack;
        (*tcp).data_offset = (TCP_LEN as u8 / 4) << 4;
        (*tcp).flags = new_flags;
        (*tcp).window = 0;
        (*tcp).urgent = 0;
        (*tcp).checksum = 0;
        (*tcp).checksum = if partial {
            // The device, or nobody, will add the rest.
            !csum_fold(pseudo)
        } else {
            csum_fold(csum_add(pseudo, words_sum::<5>(tcp.cast())))
        };
    }
    if key.dst.is_v4() {
        write_ipv4(ctx, key, PROTO_TCP, TCP_LEN)
    } else {
        write_ipv6(ctx, key, PROTO_TCP, TCP_LEN)
    }
}

/// ICMP type 3 code 3 (RFC 792), around the datagram's headers.
#[inline(always)]
fn unreachable_v4(ctx: &TcContext, key: &FlowKey) -> Option<()> {
    const INNER: usize = IPV4_LEN + ICMP_LEN;
    kernel::change_length(ctx, ETH_LEN + INNER)?;
    kernel::make_room(ctx, IPV4_LEN + ICMP_LEN)?;
    write_icmp::<7>(ctx, ETH_LEN + IPV4_LEN, [3, 3], 0)?;
    write_ipv4(ctx, key, PROTO_ICMP, ICMP_LEN + INNER)
}

/// ICMPv6 type 1 code 4 (RFC 4443), around the datagram's headers.
#[inline(always)]
fn unreachable_v6(ctx: &TcContext, key: &FlowKey) -> Option<()> {
    const INNER: usize = IPV6_LEN + ICMP_LEN;
    kernel::change_length(ctx, ETH_LEN + INNER)?;
    kernel::make_room(ctx, IPV6_LEN + ICMP_LEN)?;
    let pseudo = pseudo_header(key, PROTO_ICMPV6, (ICMP_LEN + INNER) as u16);
    write_icmp::<12>(ctx, ETH_LEN + IPV6_LEN, [1, 4], pseudo)?;
    write_ipv6(ctx, key, PROTO_ICMPV6, ICMP_LEN + INNER)
}

/// Writes an ICMP header in front of `WORDS` words of the packet that it is about.
#[inline(always)]
fn write_icmp<const WORDS: usize>(ctx: &TcContext, offset: usize, kind: [u8; 2], pseudo: u32) -> Option<()> {
    let first = u32::from_ne_bytes([kind[0], kind[1], 0, 0]);
    let inner = at::<[u32; WORDS]>(ctx, offset + ICMP_LEN)?;
    // SAFETY: `at` has checked that the words are in the packet.
    let sum = csum_add(csum_add(pseudo, first), unsafe { words_sum::<WORDS>(inner.cast()) });
    let icmp = at::<[u32; 2]>(ctx, offset)?;
    let checksum = csum_fold(sum).to_ne_bytes();
    // SAFETY: `at` has checked that the words are in the packet.
    unsafe { icmp.write_unaligned([u32::from_ne_bytes([kind[0], kind[1], checksum[0], checksum[1]]), 0]) };
    Some(())
}

/// The partial sum of `WORDS` words.
///
/// # Safety
///
/// They must have been checked to be in the packet.
#[inline(always)]
unsafe fn words_sum<const WORDS: usize>(words: *const u32) -> u32 {
    let mut sum = 0u64;
    for index in 0..WORDS {
        // SAFETY: within the words that the caller has checked.
        sum += u64::from(unsafe { words.add(index).read_unaligned() });
    }
    csum_add(sum as u32, (sum >> 32) as u32)
}

/// The sum over the pseudo-header; source and destination may stand in either order.
#[inline(always)]
fn pseudo_header(key: &FlowKey, proto: u8, length: u16) -> u32 {
    // The difference to nothing is the sum itself: all zeroes and their complement weigh nothing.
    let addresses = csum_replace_addr(csum_replace_addr(0, &Addr::ANY_V6, &key.src), &Addr::ANY_V6, &key.dst);
    csum_add(addresses, u32::from(u16::from(proto).to_be()) + u32::from(length.to_be()))
}

#[inline(always)]
fn write_ipv4(ctx: &TcContext, key: &FlowKey, proto: u8, length: usize) -> Option<()> {
    let ip = at::<Ipv4>(ctx, ETH_LEN)?;
    // SAFETY: `at` has checked that what is written to is in the packet.
    unsafe {
        (*ip).version_ihl = 0x45;
        (*ip).tos = 0;
        (*ip).total_len = ((IPV4_LEN + length) as u16).to_be();
        (*ip).id = 0;
        (*ip).fragment = 0x4000_u16.to_be();
        (*ip).ttl = TTL;
        (*ip).proto = proto;
        (*ip).src = key.dst.v4_word();
        (*ip).dst = key.src.v4_word();
        (*ip).checksum = 0;
        (*ip).checksum = csum_fold(words_sum::<5>(ip.cast()));
    }
    Some(())
}

#[inline(always)]
fn write_ipv6(ctx: &TcContext, key: &FlowKey, proto: u8, length: usize) -> Option<()> {
    let ip = at::<Ipv6>(ctx, ETH_LEN)?;
    // SAFETY: `at` has checked that what is written to is in the packet.
    unsafe {
        (*ip).version_class_flow = 0x6000_0000_u32.to_be();
        (*ip).payload_len = (length as u16).to_be();
        (*ip).next = proto;
        (*ip).hop_limit = TTL;
        (*ip).src = key.dst.words();
        (*ip).dst = key.src.words();
    }
    Some(())
}
