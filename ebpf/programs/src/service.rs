//! From a packet's destination to a backend.

use sluice_ebpf_common::{
    Addr, Affinity, AffinityKey, Backend, Be16, DropReason, FRONTEND_EXTERNAL, FRONTEND_LOCAL_INSIDE,
    FRONTEND_LOCAL_OUTSIDE, FRONTEND_LOCAL_SERVER, FRONTEND_SOURCE_RANGES, FrontendKey, MemberKey, PROTO_TCP,
    PROTO_UDP, SERVICE_DROP_IF_EMPTY, Service, SlotKey, pick_slot,
};

use crate::{kernel, maps, packet::Packet, pipeline::Hook};

/// What becomes of the client's address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It stays.
    Kept,
    /// It becomes the node's.
    Masqueraded,
    /// It becomes the node's where the client is not of the cluster.
    AsOfTheCluster,
}

/// A service's answer to a new connection.
pub enum Choice {
    /// No service has this address.
    None,
    /// A server on this node holds the address itself.
    Local,
    /// This backend.
    Backend {
        /// The backend.
        backend: &'static Backend,
        /// Its id.
        id: u32,
        /// The service's id.
        service: u32,
        /// What becomes of the client's address.
        source: Source,
    },
}

/// Looks the packet's destination up among the frontends: its very address first, then, where the address
/// is the node's, the node ports.
#[inline(always)]
pub fn choose(packet: &Packet, hook: Hook) -> Result<Choice, DropReason> {
    let key = &packet.key;
    if !matches!(key.proto as u8, PROTO_TCP | PROTO_UDP) {
        return Ok(Choice::None);
    }
    let exact = frontend_key(key.dst, key.dport, key.proto as u8);
    let frontend = match maps::frontend(&exact) {
        Some(frontend) => frontend,
        None if maps::is_node_address(&key.dst) => {
            match maps::frontend(&FrontendKey { addr: Addr::any(packet.v4), ..exact }) {
                Some(frontend) => frontend,
                None => return Ok(Choice::None),
            }
        }
        None => return Ok(Choice::None),
    };
    let flags = frontend.flags;
    if flags & FRONTEND_LOCAL_SERVER != 0 {
        return Ok(Choice::Local);
    }
    if flags & FRONTEND_SOURCE_RANGES != 0 && !maps::in_source_ranges(frontend.service, &key.src) {
        return Err(DropReason::SourceRange);
    }
    // Clients of this node are inside, wherever the policy for outside clients would send those.
    let outside = hook == Hook::FromWire && flags & FRONTEND_LOCAL_OUTSIDE != 0;
    let service =
        if outside || flags & FRONTEND_LOCAL_INSIDE != 0 { frontend.local } else { frontend.service };
    let (id, backend) = pick(service, &key.src)?;
    // Inside, the policy Local never costs a pod its address either.
    let keeps_source = outside || hook == Hook::FromPod && flags & FRONTEND_LOCAL_OUTSIDE != 0;
    let source = match flags & FRONTEND_EXTERNAL != 0 {
        _ if keeps_source => Source::Kept,
        true => Source::Masqueraded,
        false => Source::AsOfTheCluster,
    };
    Ok(Choice::Backend { backend, id, service, source })
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
