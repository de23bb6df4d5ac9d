//! The kernel's helpers that the stages use, with types instead of pointers.

#![expect(unsafe_code, reason = "every helper is a foreign function")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_fib_lookup, bpf_redir_neigh, bpf_sock_tuple},
    helpers::generated as helper,
    programs::TcContext,
};
use sluice_ebpf_common::{Addr, Be16, FlowKey, PROTO_TCP, mac_words};

use crate::maps;

/// `AF_INET`.
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;
/// The current network namespace, where a helper wants one (`BPF_F_CURRENT_NETNS`).
const CURRENT_NETNS: u64 = u64::MAX;
/// `PACKET_HOST` of linux/if_packet.h.
const PACKET_HOST: u32 = 0;
/// `BPF_FIB_LKUP_RET_SUCCESS`.
const FIB_SUCCESS: i64 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const FIB_NO_NEIGHBOUR: i64 = 7;
/// `LOOPBACK_IFINDEX`: the loopback device is the first of every network namespace.
pub const LOOPBACK_IFINDEX: u32 = 1;
/// `BPF_F_INGRESS`.
const INGRESS: u64 = 1;

/// Fills a place with zeroes, word by word: what the compiler makes of `Default` or `zeroed`, or of a copy of zeroes, is
/// a call of a loop over bytes, which takes as long as a look-up in a map.
///
/// # Safety
///
/// All zeroes must be a value of the type.
#[inline(always)]
pub unsafe fn clear<T>(place: &mut MaybeUninit<T>) -> &mut T {
    const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>().is_multiple_of(4)) };
    for index in 0..size_of::<T>() / 4 {
        // SAFETY: the index is inside of the place. Volatile, or it would become that loop again.
        unsafe { place.as_mut_ptr().cast::<u32>().add(index).write_volatile(0) };
    }
    // SAFETY: every byte is written.
    unsafe { place.assume_init_mut() }
}

/// Seconds of the monotonic clock, to the precision of a timer tick (kernel 5.11).
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: takes nothing, returns a number.
    (unsafe { helper::bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
}

/// A random number.
#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: takes nothing, returns a number.
    unsafe { helper::bpf_get_prandom_u32() }
}

/// The index of the device that the program runs on.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Whether a packet that comes in is meant for this node, and for the device itself: another station's is seen where the
/// device listens to everything (a packet capture is enough), and what bears a VLAN's tag belongs to a device above.
#[inline(always)]
pub fn is_for_device(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST && (*ctx.skb.skb).vlan_present == 0 }
}

/// What a translated packet bears on its further way through the node: `tc_index`, which the kernel keeps with
/// the packet and gives no meaning (unlike the mark, over which firewalls and policy routing quarrel).
const TRANSLATED: u32 = 0x51ce;

/// Marks a packet as translated.
#[inline(always)]
pub fn set_translated(ctx: &TcContext) {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).tc_index = TRANSLATED };
}

/// Whether a packet has been translated on this node.
#[inline(always)]
pub fn is_translated(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid while the program runs.
    (unsafe { (*ctx.skb.skb).tc_index }) == TRANSLATED
}

/// Sends the packet out of a device. Returns the verdict.
#[inline(always)]
pub fn redirect_egress(ifindex: u32) -> i32 {
    // SAFETY: takes and returns numbers.
    (unsafe { helper::bpf_redirect(ifindex, 0) }) as i32
}

/// Lets the packet arrive on a device. Returns the verdict.
#[inline(always)]
pub fn redirect_ingress(ifindex: u32) -> i32 {
    // SAFETY: takes and returns numbers.
    (unsafe { helper::bpf_redirect(ifindex, INGRESS) }) as i32
}

/// Lets the packet arrive on the other end of a veth, in its namespace, without a queue in between (kernel
/// 5.10; from ingress hooks only). Returns the verdict.
#[inline(always)]
pub fn redirect_peer(ctx: &TcContext, ifindex: u32) -> i32 {
    // SAFETY: the context is valid while the program runs. The packet was addressed to the bridge or to a
    // neighbour on it, which the receiver of the other end would take for somebody else's.
    unsafe {
        if (*ctx.skb.skb).pkt_type != PACKET_HOST {
            helper::bpf_skb_change_type(ctx.skb.skb, PACKET_HOST);
        }
        helper::bpf_redirect_peer(ifindex, 0) as i32
    }
}

/// How a packet leaves the node.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// The kernel must look at it: too large for the way, or no way.
    Kernel = 0,
    /// With these link-layer addresses.
    Direct,
    /// To a next hop whose link-layer address is not known yet.
    Neighbour,
}

/// What the kernel's routing said.
#[repr(C)]
pub struct Route {
    /// The next hop, if its link-layer address is not known.
    pub next_hop: Addr,
    /// How.
    pub kind: RouteKind,
    /// Out of which device.
    pub ifindex: u32,
    /// The frame's addresses, destination and source, if direct.
    pub macs: [u16; 6],
    /// Always 0.
    pad: u32,
}

impl Route {
    /// Nothing said yet: the kernel's.
    #[inline(always)]
    pub fn unknown(place: &mut MaybeUninit<Self>) -> &mut Self {
        // SAFETY: numbers, and `RouteKind::Kernel`.
        unsafe { clear(place) }
    }
}

/// Asks the kernel's routing tables where packets go, as if they had come in on `iif`. A function of its own
/// for its share of the stack.
#[inline(never)]
pub fn route(ctx: &TcContext, route: &mut Route, src: &Addr, dst: &Addr, iif: u32) -> u32 {
    let mut params = MaybeUninit::<bpf_fib_lookup>::uninit();
    // SAFETY: all-zero is a valid value of this plain C struct.
    let params = unsafe { clear(&mut params) };
    params.ifindex = iif;
    // Protocol and ports are left out: rules that match on them are rare, and hashing by address keeps
    // the two directions of multipath routes together.
    if dst.is_v4() {
        params.family = AF_INET;
        params.__bindgen_anon_3.ipv4_src = src.v4_word();
        params.__bindgen_anon_4.ipv4_dst = dst.v4_word();
    } else {
        params.family = AF_INET6;
        params.__bindgen_anon_3.ipv6_src = src.words();
        params.__bindgen_anon_4.ipv6_dst = dst.words();
    }
    // SAFETY: the struct and its size go together.
    let result =
        unsafe { helper::bpf_fib_lookup(ctx.as_ptr(), params, size_of::<bpf_fib_lookup>() as i32, 0) };
    route.ifindex = params.ifindex;
    match result {
        FIB_SUCCESS => {
            route.kind = RouteKind::Direct;
            route.macs = mac_words(&params.dmac, &params.smac);
        }
        FIB_NO_NEIGHBOUR => {
            route.kind = RouteKind::Neighbour;
            // SAFETY: the helper has left the next hop in the destination's place, in the family's form.
            route.next_hop = unsafe {
                if params.family == AF_INET {
                    Addr::from_v4_word(params.__bindgen_anon_4.ipv4_dst)
                } else {
                    Addr::from_words(params.__bindgen_anon_4.ipv6_dst)
                }
            };
        }
        _ => route.kind = RouteKind::Kernel,
    }
    0
}

/// Sends the packet out of a device to a next hop, resolving its link-layer address (kernel 5.10). Returns
/// the verdict.
#[inline(always)]
pub fn redirect_neighbour(ifindex: u32, hop: &Addr) -> i32 {
    let mut params = MaybeUninit::<bpf_redir_neigh>::uninit();
    // SAFETY: all-zero is a valid value of this plain C struct.
    let params = unsafe { clear(&mut params) };
    if hop.is_v4() {
        params.nh_family = u32::from(AF_INET);
        params.__bindgen_anon_1.ipv4_nh = hop.v4_word();
    } else {
        params.nh_family = u32::from(AF_INET6);
        params.__bindgen_anon_1.ipv6_nh = hop.words();
    }
    // SAFETY: the struct and its size go together.
    (unsafe { helper::bpf_redirect_neigh(ifindex, params, size_of::<bpf_redir_neigh>() as i32, 0) }) as i32
}

/// Whether a socket of this node would take packets of this tuple (TCP and UDP).
#[inline(always)]
pub fn socket_exists(ctx: &TcContext, tuple: &FlowKey) -> bool {
    let (src, dst) = (tuple.src.words(), tuple.dst.words());
    let ports = u32::from(tuple.sport.0) | u32::from(tuple.dport.0) << 16;
    // `struct bpf_sock_tuple` in either of its forms, which the helper tells apart by their size: both
    // addresses, and both ports.
    let mut words = [src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], ports];
    let mut size = size_of_val(&words) as u32;
    if tuple.dst.is_v4() {
        (words[0], words[1], words[2]) = (src[3], dst[3], ports);
        size = 3 * size_of::<u32>() as u32;
    }
    let key = (&raw mut words).cast::<bpf_sock_tuple>();
    // SAFETY: the tuple and its size go together; a socket found is released before anything else happens.
    unsafe {
        let socket = if tuple.proto as u8 == PROTO_TCP {
            helper::bpf_sk_lookup_tcp(ctx.as_ptr(), key, size, CURRENT_NETNS, 0)
        } else {
            helper::bpf_sk_lookup_udp(ctx.as_ptr(), key, size, CURRENT_NETNS, 0)
        };
        if socket.is_null() {
            return false;
        }
        helper::bpf_sk_release(socket.cast());
    }
    true
}

/// `BPF_F_PSEUDO_HDR`: the change is of the pseudo-header, which the kernel has summed even where it leaves the
/// rest of the checksum to the device.
const PSEUDO_HEADER: u64 = 1 << 4;

/// Changes a layer-4 checksum by a difference. Returns whether the kernel did.
#[inline(always)]
pub fn l4_checksum(ctx: &TcContext, offset: usize, difference: u32, flags: u64) -> bool {
    // SAFETY: the context is valid while the program runs; the kernel checks the offset.
    unsafe { helper::bpf_l4_csum_replace(ctx.skb.skb, offset as u32, 0, u64::from(difference), flags) == 0 }
}

/// Changes a layer-4 checksum by what the addresses change, which stand in the header before. Returns whether the kernel
/// did.
#[inline(always)]
pub fn address_checksum(ctx: &TcContext, v4: bool, offset: usize, difference: u32, flags: u64) -> bool {
    let family = if v4 { 0 } else { maps::csum_v6_flag() };
    if !l4_checksum(ctx, offset, difference, flags | PSEUDO_HEADER | family) {
        return false;
    }
    // A kernel that does not know the flag has taken the change out of the device's sum, as is right for IPv4, whose
    // header has a checksum that changes as well.
    if !v4 && family == 0 {
        add_to_device_sum(ctx, difference);
    }
    true
}

/// Adds to the sum over the packet that a device has made on receipt (`CHECKSUM_COMPLETE`), if it has (kernel 4.9).
#[inline(always)]
pub fn add_to_device_sum(ctx: &TcContext, difference: u32) {
    // SAFETY: the context is valid while the program runs. Where there is no such sum the helper says so and does
    // nothing.
    unsafe { helper::bpf_csum_update(ctx.skb.skb, difference) };
}

/// Cuts or extends the packet.
#[inline(always)]
pub fn change_length(ctx: &TcContext, length: usize) -> Option<()> {
    // SAFETY: the context is valid while the program runs; the kernel checks the length.
    (unsafe { helper::bpf_skb_change_tail(ctx.skb.skb, length as u32, 0) } == 0).then_some(())
}

/// Makes room between the link-layer and the network header.
#[inline(always)]
pub fn make_room(ctx: &TcContext, length: usize) -> Option<()> {
    /// `BPF_ADJ_ROOM_MAC`.
    const BEHIND_MAC: u32 = 1;
    // SAFETY: the context is valid while the program runs; the kernel checks the length.
    (unsafe { helper::bpf_skb_adjust_room(ctx.skb.skb, length as i32, BEHIND_MAC, 0) } == 0).then_some(())
}

/// Whether the checksum at `offset` is still to be completed by a device (`CHECKSUM_PARTIAL`), which no field
/// tells: a change that is not the pseudo-header's leaves such a one as it is. Spoils the checksum.
#[inline(always)]
pub fn checksum_is_partial(ctx: &TcContext, offset: usize) -> Option<bool> {
    let before: u16 = ctx.load(offset).ok()?;
    if !l4_checksum(ctx, offset, 1, 0) {
        return None;
    }
    let after: u16 = ctx.load(offset).ok()?;
    Some(before == after)
}

/// A random port of those that are handed out for masquerade: 1024 to 65535.
#[inline(always)]
pub fn random_port() -> Be16 {
    Be16::from_host(1024 + sluice_ebpf_common::pick_slot(random(), 65_536 - 1024) as u16)
}
