//! From a packet's destination to a backend.

#![expect(unsafe_code, reason = "a function that the verifier looks at by itself takes raw pointers")]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use sluice_ebpf_common::{
    Addr, Affinity, AffinityKey, Backend, Be16, DropReason, FRONTEND_EXTERNAL, FRONTEND_LOCAL_INSIDE,
    FRONTEND_LOCAL_OUTSIDE, FRONTEND_LOCAL_SERVER, FRONTEND_SOURCE_RANGES, Flow, FlowKey, FrontendKey,
    HOST_PORT_BACKEND, HOST_PORT_MASQUERADE, MemberKey, NODE_ADDRESS_INNER, NODE_ADDRESS_PORTS, PROTO_SCTP,
    PROTO_TCP, PROTO_UDP, SERVICE_DROP_IF_EMPTY, Service, SlotKey, pick_slot,
};

use crate::{
    kernel, maps,
    nat::Target,
    pipeline::Hook,
    source::{self, Source},
};

/// A service's answer to a new connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A backend, and that is the target now.
    Backend = 0,
    /// No service has this address.
    None = 1,
    /// A server on this node holds the address itself.
    Local = 2,
}

/// Looks the packet's destination up among the frontends: its very address first, then, where the address
/// is the node's, the node ports and the host ports.
#[inline(always)]
pub fn choose(ctx: &TcContext, key: &FlowKey, hook: u32, target: &mut Target) -> Result<Choice, DropReason> {
    if !is_transport(key.proto as u8) {
        return Ok(Choice::None);
    }
    const BACKEND: u32 = Choice::Backend as u32;
    const LOCAL: u32 = Choice::Local as u32;
    Ok(match DropReason::outcome(choose_backend(ctx.skb.skb, key, hook, target))? {
        BACKEND => Choice::Backend,
        LOCAL => Choice::Local,
        _ => Choice::None,
    })
}

/// Global in the sense of BTF: looked at once by the verifier, with a share of the stack of its own. Returns a
/// [`Choice`], or the code of a [`DropReason`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_backend(
    skb: *mut __sk_buff,
    key: *const FlowKey,
    hook: u32,
    target: *mut Target,
) -> u32 {
    // SAFETY: the caller passes references; that the verifier does not know it costs a comparison.
    let (Some(key), Some(target)) = (unsafe { key.as_ref() }, unsafe { target.as_mut() }) else {
        return DropReason::Malformed.code();
    };
    match try_choose(&TcContext::new(skb), key, hook, target) {
        Ok(choice) => choice as u32,
        Err(reason) => reason.code(),
    }
}

#[inline(always)]
fn try_choose(ctx: &TcContext, key: &FlowKey, hook: u32, target: &mut Target) -> Result<Choice, DropReason> {
    let exact = frontend_key(key.dst, key.dport, key.proto as u8);
    let frontend = match maps::frontend(&exact) {
        Some(frontend) => frontend,
        None => {
            let Some(is_own) = maps::node_address(&key.dst) else { return Ok(Choice::None) };
            // What is forged to be for a loopback address never gets in from a device.
            if *is_own & NODE_ADDRESS_INNER != 0 && hook != Hook::FromHost as u32 {
                return Ok(Choice::None);
            }
            let any = FrontendKey { addr: Addr::any(key.dst.is_v4()), ..exact };
            let node_port = if *is_own & NODE_ADDRESS_PORTS != 0 { maps::frontend(&any) } else { None };
            match node_port {
                Some(frontend) => frontend,
                None => {
                    let Some(backend) = maps::host_port(&exact).or_else(|| maps::host_port(&any)) else {
                        return Ok(Choice::None);
                    };
                    let masquerades = backend.service & HOST_PORT_MASQUERADE != 0;
                    let source = if masquerades { Source::Masqueraded } else { Source::Kept };
                    target.set(HOST_PORT_BACKEND, backend, 0);
                    source::of_service(key, target, source, hook)?;
                    return Ok(Choice::Backend);
                }
            }
        }
    };
    let flags = frontend.flags;
    if flags & FRONTEND_SOURCE_RANGES != 0 && !maps::in_source_ranges(frontend.service, &key.src) {
        return Err(DropReason::SourceRange);
    }
    // Clients of this node are inside, wherever the policy for outside clients would send those; and so is whoever
    // else counts as a pod (row 7 of the behaviour table: with a cluster's CIDR, those of other nodes).
    let outside = hook == Hook::FromWire as u32
        && flags & FRONTEND_LOCAL_OUTSIDE != 0
        && !source::is_local_pod(&key.src);
    let service =
        if outside || flags & FRONTEND_LOCAL_INSIDE != 0 { frontend.local } else { frontend.service };
    let local_server = flags & FRONTEND_LOCAL_SERVER != 0;
    if local_server && kernel::socket_exists(ctx, key) {
        return Ok(Choice::Local);
    }
    let (id, backend) = match pick(service, &key.src) {
        // Nobody stands in for a server that is not there: its own kernel says so.
        Err(_) if local_server => return Ok(Choice::Local),
        picked => picked?,
    };
    // Inside, the policy Local never costs a pod its address either.
    let keeps_source = outside || hook == Hook::FromPod as u32 && flags & FRONTEND_LOCAL_OUTSIDE != 0;
    let source = match flags & FRONTEND_EXTERNAL != 0 {
        _ if keeps_source => Source::Kept,
        true => Source::Masqueraded,
        false => Source::AsOfTheCluster,
    };
    target.set(id, backend, service);
    source::of_service(key, target, source, hook)?;
    Ok(Choice::Backend)
}

/// Whether a protocol has ports that services are made of.
#[inline(always)]
fn is_transport(proto: u8) -> bool {
    matches!(proto, PROTO_TCP | PROTO_UDP | PROTO_SCTP)
}

/// Whether an address is a service's, though none of its ports was meant.
#[inline(always)]
pub fn is_service_address(addr: &Addr) -> bool {
    maps::frontend(&FrontendKey { addr: *addr, ..FrontendKey::default() }).is_some()
}

/// Whether the backend that a flow goes to takes no more: of a service, or of a host port. A function of its own
/// for its share of the stack.
#[inline(never)]
pub fn is_gone(key: &FlowKey, flow: &Flow) -> bool {
    if flow.backend != HOST_PORT_BACKEND {
        return maps::backend(&flow.backend).is_none();
    }
    let exact = frontend_key(key.dst, key.dport, key.proto as u8);
    let any = FrontendKey { addr: Addr::any(key.dst.is_v4()), ..exact };
    let now = maps::host_port(&exact).or_else(|| maps::host_port(&any));
    now.is_none_or(|backend| backend.addr != flow.dst || backend.port != flow.dport)
}

/// The key of a frontend.
#[inline(always)]
pub fn frontend_key(addr: Addr, port: Be16, proto: u8) -> FrontendKey {
    FrontendKey { addr, port, proto: u16::from(proto), pad: 0 }
}

/// Picks one of a service's backends: the one that the client is used to, or any, all with the same
/// probability.
///
/// The service's count may fall between reading it and reading the slot, and the slot's backend may go; then
/// the second try reads a count, and so a slot, that is newer than that change.
#[inline(always)]
pub fn pick(service: u32, client: &Addr) -> Result<(u32, &'static Backend), DropReason> {
    for _ in 0..2 {
        let Some(entry) = maps::service(&service) else { return Err(DropReason::NoService) };
        if entry.count == 0 {
            let silent = entry.flags & SERVICE_DROP_IF_EMPTY != 0;
            return Err(if silent { DropReason::NoLocalEndpoints } else { DropReason::NoEndpoints });
        }
        let mut id = 0;
        if entry.affinity != 0 {
            id = accustomed(service, entry, client);
        }
        if id == 0 {
            let index = pick_slot(kernel::random(), entry.count);
            id = maps::slot(&SlotKey { service, index }).copied().unwrap_or(0);
        }
        if let Some(backend) = maps::backend(&id) {
            if entry.affinity != 0 {
                remember(entry, client, backend);
            }
            return Ok((id, backend));
        }
    }
    Err(DropReason::NoBackend)
}

/// The backend that a client went to last, if that was not too long ago and it still takes connections;
/// otherwise 0.
#[inline(never)]
fn accustomed(service: u32, entry: &Service, client: &Addr) -> u32 {
    let key = AffinityKey { client: *client, service: entry.affinity_id, pad: 0 };
    let Some(last) = maps::affinity(&key) else { return 0 };
    if kernel::now().wrapping_sub(last.seen) > entry.affinity {
        return 0;
    }
    maps::member(&MemberKey { addr: last.addr, port: last.port, pad: 0, service }).copied().unwrap_or(0)
}

/// Remembers where a client goes, as of now.
#[inline(never)]
fn remember(entry: &Service, client: &Addr, backend: &Backend) -> u32 {
    let key = AffinityKey { client: *client, service: entry.affinity_id, pad: 0 };
    let value = Affinity { addr: backend.addr, port: backend.port, pad: 0, seen: kernel::now() };
    maps::affinity_put(&key, &value);
    0
}
