//! From bytes to a [`Packet`]: the tuple, where the headers are, and nothing else.

#![expect(unsafe_code, reason = "direct packet access; each access follows a check against the packet's end")]

use aya_ebpf::programs::TcContext;
use sluice_ebpf_common::{
    Addr, Be16, DropReason, FlowKey, FragmentKey, FragmentPorts, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP,
    PROTO_TCP, PROTO_UDP, TCP_RST, TCP_SYN,
};

use crate::{icmp, maps};

/// Length of an Ethernet header. Every device that the programs attach to has one.
pub const ETH_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of the fixed IPv6 header.
pub const IPV6_LEN: usize = 40;
/// How many IPv6 extension headers are looked past.
const MAX_EXTENSIONS: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

/// Ethernet header (IEEE 802.3).
#[repr(C)]
pub struct Ethernet {
    /// Destination and source, six bytes each, as words: the datapath copies them together or not at all.
    pub macs: [u16; 6],
    /// Type, network byte order.
    pub ethertype: u16,
}

/// IPv4 header (RFC 791), without options. Multi-byte fields are in network byte order.
#[repr(C)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_len: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub proto: u8,
    pub checksum: u16,
    pub src: u32,
    pub dst: u32,
}

/// IPv6 header (RFC 8200). Multi-byte fields are in network byte order.
#[repr(C)]
pub struct Ipv6 {
    pub version_class_flow: u32,
    pub payload_len: u16,
    pub next: u8,
    pub hop_limit: u8,
    pub src: [u32; 4],
    pub dst: [u32; 4],
}

/// A packet that the datapath may have an opinion on: TCP, UDP, SCTP or ICMP echo.
pub struct Packet {
    /// The tuple as it stands in the packet.
    pub key: FlowKey,
    /// Where the layer-4 header starts.
    pub l4: usize,
    /// TCP flags (`TCP_*`), or what stands for them in SCTP; otherwise 0.
    pub tcp_flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IPv4 or IPv6.
    pub v4: bool,
    /// A fragment that is not the first: there is no layer-4 header, and the ports are those of the first.
    pub later: bool,
}

/// What [`parse`] found.
pub enum Parsed {
    /// A packet to look at.
    Packet(Packet),
    /// Not IP, or link-scope IPv6 (neighbour discovery): the kernel's, whatever the hook.
    Foreign,
    /// An ICMP error; with its source and destination.
    Error(Addr, Addr),
    /// IP that the datapath does not translate; with its source and destination.
    Opaque(Addr, Addr),
}

/// A pointer to a `T` in the packet, if it is there whole.
#[inline(always)]
pub fn at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() { None } else { Some(start as *mut T) }
}

/// Reads the headers.
#[inline(always)]
pub fn parse(ctx: &TcContext) -> Result<Parsed, DropReason> {
    let Some(eth) = at::<Ethernet>(ctx, 0) else { return Ok(Parsed::Foreign) };
    // SAFETY: `at` has checked that the header is there.
    match unsafe { (*eth).ethertype } {
        ETHERTYPE_IPV4 => parse_v4(ctx),
        ETHERTYPE_IPV6 => parse_v6(ctx),
        _ => Ok(Parsed::Foreign),
    }
}

/// Makes the headers reachable where the packet's linear part is short of them.
#[inline(always)]
fn header<T>(ctx: &TcContext, offset: usize) -> Result<*mut T, DropReason> {
    if let Some(header) = at::<T>(ctx, offset) {
        return Ok(header);
    }
    let wanted = (offset + size_of::<T>()) as u32;
    if ctx.len() < wanted || ctx.pull_data(wanted).is_err() {
        return Err(DropReason::Malformed);
    }
    at::<T>(ctx, offset).ok_or(DropReason::Malformed)
}

#[inline(always)]
fn parse_v4(ctx: &TcContext) -> Result<Parsed, DropReason> {
    /// How far from the packet's start the fragment is, in units of eight bytes.
    const OFFSET: u16 = 0x1fff_u16.to_be();
    /// More fragments follow.
    const MORE: u16 = 0x2000_u16.to_be();

    let ip = header::<Ipv4>(ctx, ETH_LEN)?;
    // SAFETY: `header` has checked that it is there; the fields are copied before the packet is touched.
    let (version_ihl, id, fragment, ttl, proto, src, dst) = unsafe {
        ((*ip).version_ihl, (*ip).id, (*ip).fragment, (*ip).ttl, (*ip).proto, (*ip).src, (*ip).dst)
    };
    let (src, dst) = (Addr::from_v4_word(src), Addr::from_v4_word(dst));
    if version_ihl >> 4 != 4 || version_ihl & 0xf < 5 {
        return Err(DropReason::Malformed);
    }
    let l4 = ETH_LEN + usize::from(version_ihl & 0xf) * 4;
    let packet = Packet { key: tuple(src, dst, proto), l4, tcp_flags: 0, ttl, v4: true, later: false };
    if fragment & (OFFSET | MORE) != 0 {
        return of_fragment(ctx, packet, u32::from(id), fragment & OFFSET != 0);
    }
    transport(ctx, packet)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext) -> Result<Parsed, DropReason> {
    let ip = header::<Ipv6>(ctx, ETH_LEN)?;
    // SAFETY: `header` has checked that it is there; the fields are copied before the packet is touched.
    let (mut next, ttl, src, dst) =
        unsafe { ((*ip).next, (*ip).hop_limit, Addr::from_words((*ip).src), Addr::from_words((*ip).dst)) };
    if src.is_v6_link_scope() || dst.is_v6_link_scope() {
        return Ok(Parsed::Foreign);
    }
    let mut extensions = Extensions { next: u32::from(next), l4: V6_PLAIN as u32, fragment: 0, id: 0 };
    if !is_transport(next) && skip_extensions(ctx, &mut extensions) == 0 {
        return Ok(Parsed::Opaque(src, dst));
    }
    next = extensions.next as u8;
    let l4 = extensions.l4 as usize;
    let packet = Packet { key: tuple(src, dst, next), l4, tcp_flags: 0, ttl, v4: false, later: false };
    if extensions.fragment != 0 {
        return of_fragment(ctx, packet, extensions.id, extensions.fragment == LATER);
    }
    transport(ctx, packet)
}

#[inline(always)]
fn is_transport(proto: u8) -> bool {
    matches!(proto, PROTO_TCP | PROTO_UDP | PROTO_SCTP | PROTO_ICMPV6)
}

/// What an IPv6 packet's extension headers say.
struct Extensions {
    /// The protocol behind them.
    next: u32,
    /// Where that begins.
    l4: u32,
    /// [`FIRST`] or [`LATER`]; 0 for a whole packet.
    fragment: u32,
    /// A fragment's identification.
    id: u32,
}

/// The first fragment of a packet.
const FIRST: u32 = 1;
/// Another one.
const LATER: u32 = 2;

/// Looks past hop-by-hop, routing and destination options and the fragment header (RFC 8200 section 4). Anything
/// else ends the walk, without a result: 0.
#[inline(never)]
fn skip_extensions(ctx: &TcContext, found: &mut Extensions) -> u32 {
    const FRAGMENT: u32 = 44;
    for _ in 0..MAX_EXTENSIONS {
        let length = match found.next {
            0 | 43 | 60 => {
                let Ok([next, length]) = ctx.load::<[u8; 2]>(found.l4 as usize) else { return 0 };
                found.next = u32::from(next);
                (u32::from(length) + 1) * 8
            }
            FRAGMENT => {
                let Ok([next, _, high, low]) = ctx.load::<[u8; 4]>(found.l4 as usize) else { return 0 };
                let Ok(id) = ctx.load::<u32>(found.l4 as usize + 4) else { return 0 };
                found.next = u32::from(next);
                found.id = id;
                // The offset is in units of eight bytes; below it, the last bit says that more follow. A packet
                // in one piece (RFC 6946) is a whole one.
                found.fragment = match (u32::from(high) << 8 | u32::from(low)) & 0xfff9 {
                    0 => 0,
                    1 => FIRST,
                    _ => LATER,
                };
                8
            }
            _ => return 0,
        };
        found.l4 += length;
        if is_transport(found.next as u8) {
            return 1;
        }
    }
    0
}

/// The first fragment is a packet like any other, but that its ports are kept for the rest; a later one takes
/// them from there. One that comes before its first is not known to belong to anything.
#[inline(always)]
fn of_fragment(ctx: &TcContext, mut packet: Packet, id: u32, later: bool) -> Result<Parsed, DropReason> {
    if later {
        packet.later = true;
        return match recall_ports(&mut packet.key, id) {
            0 => Ok(Parsed::Opaque(packet.key.src, packet.key.dst)),
            _ => Ok(Parsed::Packet(packet)),
        };
    }
    let parsed = transport(ctx, packet)?;
    if let Parsed::Packet(packet) = &parsed {
        keep_ports(&packet.key, id);
    }
    Ok(parsed)
}

/// A function of its own for its share of the stack, as the next one.
#[inline(never)]
fn keep_ports(tuple: &FlowKey, id: u32) -> u32 {
    let key = FragmentKey { src: tuple.src, dst: tuple.dst, id, proto: tuple.proto };
    maps::fragment_put(&key, &FragmentPorts { sport: tuple.sport, dport: tuple.dport });
    0
}

#[inline(never)]
fn recall_ports(tuple: &mut FlowKey, id: u32) -> u32 {
    let key = FragmentKey { src: tuple.src, dst: tuple.dst, id, proto: tuple.proto };
    let Some(ports) = maps::fragment(&key) else { return 0 };
    tuple.sport = ports.sport;
    tuple.dport = ports.dport;
    1
}

#[inline(always)]
fn tuple(src: Addr, dst: Addr, proto: u8) -> FlowKey {
    FlowKey { src, dst, sport: Be16(0), dport: Be16(0), proto: u32::from(proto) }
}

/// Reads ports, TCP flags and the ICMP identifier.
#[inline(always)]
fn transport(ctx: &TcContext, mut packet: Packet) -> Result<Parsed, DropReason> {
    let proto = packet.key.proto as u8;
    let bytes: [u8; 8] = match packet.l4 {
        // Direct access needs an offset that the verifier can see; other offsets are rare.
        V4_PLAIN => read(ctx, V4_PLAIN)?,
        V6_PLAIN => read(ctx, V6_PLAIN)?,
        offset => ctx.load(offset).map_err(|_| DropReason::Malformed)?,
    };
    match proto {
        PROTO_TCP | PROTO_UDP | PROTO_SCTP => {
            packet.key.sport = Be16(u16::from_ne_bytes([bytes[0], bytes[1]]));
            packet.key.dport = Be16(u16::from_ne_bytes([bytes[2], bytes[3]]));
            if proto == PROTO_TCP {
                packet.tcp_flags = match packet.l4 {
                    V4_PLAIN => read::<u8>(ctx, V4_PLAIN + 13)?,
                    V6_PLAIN => read::<u8>(ctx, V6_PLAIN + 13)?,
                    offset => ctx.load(offset + 13).map_err(|_| DropReason::Malformed)?,
                };
            }
            if proto == PROTO_SCTP {
                packet.tcp_flags = sctp_flags(ctx.load(packet.l4 + 12).map_err(|_| DropReason::Malformed)?);
            }
            Ok(Parsed::Packet(packet))
        }
        PROTO_ICMP if packet.v4 && matches!(bytes[0], 0 | 8) => Ok(Parsed::Packet(echo(packet, bytes))),
        PROTO_ICMPV6 if !packet.v4 && matches!(bytes[0], 128 | 129) => {
            Ok(Parsed::Packet(echo(packet, bytes)))
        }
        // Behind options or extensions, an error is too rare to be looked into.
        PROTO_ICMP | PROTO_ICMPV6
            if matches!(packet.l4, V4_PLAIN | V6_PLAIN) && icmp::is_error(packet.v4, bytes[0]) =>
        {
            Ok(Parsed::Error(packet.key.src, packet.key.dst))
        }
        _ => Ok(Parsed::Opaque(packet.key.src, packet.key.dst)),
    }
}

/// What a packet's first chunk (RFC 9260 section 3.2) is to a connection: INIT begins one, ABORT and SHUTDOWN
/// COMPLETE end it.
#[inline(always)]
fn sctp_flags(chunk: u8) -> u8 {
    match chunk {
        1 => TCP_SYN,
        6 | 14 => TCP_RST,
        _ => 0,
    }
}

/// The addresses that stand in a packet now.
#[inline(always)]
pub fn addresses(ctx: &TcContext, v4: bool) -> Option<(Addr, Addr)> {
    if v4 {
        let ip = at::<Ipv4>(ctx, ETH_LEN)?;
        // SAFETY: `at` has checked that the header is there.
        Some(unsafe { (Addr::from_v4_word((*ip).src), Addr::from_v4_word((*ip).dst)) })
    } else {
        let ip = at::<Ipv6>(ctx, ETH_LEN)?;
        // SAFETY: `at` has checked that the header is there.
        Some(unsafe { (Addr::from_words((*ip).src), Addr::from_words((*ip).dst)) })
    }
}

/// Offset of the layer-4 header behind an IPv4 header without options.
pub const V4_PLAIN: usize = ETH_LEN + IPV4_LEN;
/// Offset of the layer-4 header behind an IPv6 header without extensions.
pub const V6_PLAIN: usize = ETH_LEN + IPV6_LEN;

#[inline(always)]
fn read<T: Copy>(ctx: &TcContext, offset: usize) -> Result<T, DropReason> {
    let value = header::<T>(ctx, offset)?;
    // SAFETY: `header` has checked that it is there.
    Ok(unsafe { value.read_unaligned() })
}

/// Whether a protocol's packets have an identifier in the place of ports.
#[inline(always)]
pub fn is_echo(proto: u32) -> bool {
    matches!(proto as u8, PROTO_ICMP | PROTO_ICMPV6)
}

/// An echo's identifier stands for both ports, so that request and reply are each other's inverse.
#[inline(always)]
fn echo(mut packet: Packet, bytes: [u8; 8]) -> Packet {
    let id = Be16(u16::from_ne_bytes([bytes[4], bytes[5]]));
    packet.key.sport = id;
    packet.key.dport = id;
    packet
}
