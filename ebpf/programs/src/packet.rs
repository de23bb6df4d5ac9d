//! From bytes to a [`Packet`]: the tuple, where the headers are, and nothing else.

#![expect(unsafe_code, reason = "direct packet access, and a function that the verifier looks at by itself")]

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{
    Addr, Be16, DropReason, FlowKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, TCP_RST,
    TCP_SYN,
};

use crate::{
    fragment::{self, Piece},
    icmp, kernel,
};

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
#[repr(C)]
pub struct Packet {
    /// The tuple as it stands in the packet.
    pub key: FlowKey,
    /// Where the layer-4 header starts.
    l4: u32,
    /// TCP flags (`TCP_*`), or what stands for them in SCTP; otherwise 0.
    pub tcp_flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IPv4 or IPv6.
    pub v4: bool,
    /// A fragment that is not the first: there is no layer-4 header, and the ports are those of the first.
    pub later: bool,
}

impl Packet {
    /// None yet.
    #[inline(always)]
    pub fn empty(place: &mut MaybeUninit<Self>) -> &mut Self {
        // SAFETY: numbers and `false`.
        unsafe { kernel::clear(place) }
    }

    /// Where the layer-4 header starts.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        self.l4 as usize
    }

    /// Whether there are neither options nor extensions in front of the layer-4 header.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.l4 == if self.v4 { V4_PLAIN as u32 } else { V6_PLAIN as u32 }
    }
}

/// What [`parse`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A packet to look at.
    Packet = 0,
    /// Not IP, or link-scope IPv6 (neighbour discovery): the kernel's, whatever the hook.
    Foreign = 1,
    /// An ICMP error; of the packet, only the addresses are known.
    Error = 2,
    /// IP that the datapath does not translate; of the packet, only the addresses are known.
    Opaque = 3,
}

/// A pointer to a `T` in the packet, if it is there whole.
#[inline(always)]
pub fn at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() { None } else { Some(start as *mut T) }
}

/// Reads the headers.
#[inline(always)]
pub fn parse(ctx: &TcContext, packet: &mut Packet) -> Result<Parsed, DropReason> {
    const PACKET: u32 = Parsed::Packet as u32;
    const FOREIGN: u32 = Parsed::Foreign as u32;
    const ERROR: u32 = Parsed::Error as u32;
    const OPAQUE: u32 = Parsed::Opaque as u32;
    match parse_packet(ctx.skb.skb, packet) {
        PACKET => Ok(Parsed::Packet),
        FOREIGN => Ok(Parsed::Foreign),
        ERROR => Ok(Parsed::Error),
        OPAQUE => Ok(Parsed::Opaque),
        _ => Err(DropReason::Malformed),
    }
}

/// Returns a [`Parsed`], or [`MALFORMED`]. Global in the sense of BTF: looked at once by the verifier, with a share
/// of the stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_packet(skb: *mut __sk_buff, packet: *mut Packet) -> u32 {
    // SAFETY: the caller passes a reference; that the verifier does not know it costs a comparison.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return MALFORMED };
    let ctx = TcContext::new(skb);
    let Some(eth) = at::<Ethernet>(&ctx, 0) else { return Parsed::Foreign as u32 };
    // SAFETY: `at` has checked that the header is there.
    let parsed = match unsafe { (*eth).ethertype } {
        ETHERTYPE_IPV4 => parse_v4(&ctx, packet),
        ETHERTYPE_IPV6 => parse_v6(&ctx, packet),
        _ => Ok(Parsed::Foreign),
    };
    parsed.map_or(MALFORMED, |parsed| parsed as u32)
}

/// Nothing of [`Parsed`].
const MALFORMED: u32 = u32::MAX;

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
fn parse_v4(ctx: &TcContext, packet: &mut Packet) -> Result<Parsed, DropReason> {
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
    packet.key = tuple(src, dst, proto);
    packet.l4 = ETH_LEN as u32 + u32::from(version_ihl & 0xf) * 4;
    (packet.ttl, packet.v4) = (ttl, true);
    let piece = match fragment & (OFFSET | MORE) {
        0 => Piece::Whole,
        MORE => Piece::First,
        _ => Piece::Later,
    };
    of_piece(ctx, packet, u32::from(id), piece)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext, packet: &mut Packet) -> Result<Parsed, DropReason> {
    let ip = header::<Ipv6>(ctx, ETH_LEN)?;
    // SAFETY: `header` has checked that it is there; the fields are copied before the packet is touched.
    let (next, ttl, src, dst) =
        unsafe { ((*ip).next, (*ip).hop_limit, Addr::from_words((*ip).src), Addr::from_words((*ip).dst)) };
    if src.is_v6_link_scope() || dst.is_v6_link_scope() {
        return Ok(Parsed::Foreign);
    }
    packet.key = tuple(src, dst, next);
    (packet.ttl, packet.v4) = (ttl, false);
    let mut extensions =
        Extensions { next: u32::from(next), l4: V6_PLAIN as u32, piece: Piece::Whole, id: 0 };
    if !is_transport(next) && skip_extensions(ctx, &mut extensions) == 0 {
        return Ok(Parsed::Opaque);
    }
    packet.key.proto = extensions.next;
    packet.l4 = extensions.l4;
    of_piece(ctx, packet, extensions.id, extensions.piece)
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
    /// Whether the packet is a fragment.
    piece: Piece,
    /// A fragment's identification.
    id: u32,
}

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
                found.piece = match (u32::from(high) << 8 | u32::from(low)) & 0xfff9 {
                    0 => Piece::Whole,
                    1 => Piece::First,
                    _ => Piece::Later,
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
fn of_piece(ctx: &TcContext, packet: &mut Packet, id: u32, piece: Piece) -> Result<Parsed, DropReason> {
    if piece == Piece::Later {
        packet.later = true;
        return Ok(if fragment::recall_ports(&mut packet.key, id) { Parsed::Packet } else { Parsed::Opaque });
    }
    let parsed = transport(ctx, packet)?;
    if piece == Piece::First && parsed == Parsed::Packet {
        fragment::keep_ports(&packet.key, id);
    }
    Ok(parsed)
}

#[inline(always)]
fn tuple(src: Addr, dst: Addr, proto: u8) -> FlowKey {
    FlowKey { src, dst, sport: Be16(0), dport: Be16(0), proto: u32::from(proto) }
}

/// Reads ports, TCP flags and the ICMP identifier.
#[inline(always)]
fn transport(ctx: &TcContext, packet: &mut Packet) -> Result<Parsed, DropReason> {
    const PLAIN: [u32; 2] = [V4_PLAIN as u32, V6_PLAIN as u32];
    let proto = packet.key.proto as u8;
    let l4 = packet.l4 as usize;
    let bytes = load::<u64>(ctx, l4, 0)?.to_ne_bytes();
    match proto {
        PROTO_TCP | PROTO_UDP | PROTO_SCTP => {
            packet.key.sport = Be16(u16::from_ne_bytes([bytes[0], bytes[1]]));
            packet.key.dport = Be16(u16::from_ne_bytes([bytes[2], bytes[3]]));
            packet.tcp_flags = match proto {
                PROTO_TCP => load(ctx, l4, 13)?,
                PROTO_SCTP => sctp_flags(load(ctx, l4, 12)?),
                _ => 0,
            };
            Ok(Parsed::Packet)
        }
        PROTO_ICMP if packet.v4 && matches!(bytes[0], 0 | 8) => Ok(echo(packet, bytes)),
        PROTO_ICMPV6 if !packet.v4 && matches!(bytes[0], 128 | 129) => Ok(echo(packet, bytes)),
        // Behind options or extensions, an error is too rare to be looked into.
        PROTO_ICMP | PROTO_ICMPV6 if PLAIN.contains(&packet.l4) && icmp::is_error(packet.v4, bytes[0]) => {
            Ok(Parsed::Error)
        }
        _ => Ok(Parsed::Opaque),
    }
}

/// Reads a number of a layer-4 header: from the packet itself where the header is in its usual place and the packet's
/// linear part reaches so far, by a call into the kernel otherwise.
#[inline(always)]
fn load<T: Copy>(ctx: &TcContext, l4: usize, offset: usize) -> Result<T, DropReason> {
    let place = match l4 {
        V4_PLAIN => at::<T>(ctx, V4_PLAIN + offset),
        V6_PLAIN => at::<T>(ctx, V6_PLAIN + offset),
        _ => None,
    };
    match place {
        // SAFETY: `at` has checked that the number is there.
        Some(place) => Ok(unsafe { place.read_unaligned() }),
        None => ctx.load(l4 + offset).map_err(|_| DropReason::Malformed),
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

/// Whether a protocol's packets have an identifier in the place of ports.
#[inline(always)]
pub fn is_echo(proto: u32) -> bool {
    matches!(proto as u8, PROTO_ICMP | PROTO_ICMPV6)
}

/// An echo's identifier stands for both ports, so that request and reply are each other's inverse.
#[inline(always)]
fn echo(packet: &mut Packet, bytes: [u8; 8]) -> Parsed {
    let id = Be16(u16::from_ne_bytes([bytes[4], bytes[5]]));
    packet.key.sport = id;
    packet.key.dport = id;
    Parsed::Packet
}
