//! From a packet's destination to a backend.

use sluice_ebpf_common::{
    Addr, Backend, Be16, DropReason, FRONTEND_EXTERNAL, FRONTEND_LOCAL_SERVER, FrontendKey, PROTO_TCP,
    PROTO_UDP, SlotKey, pick_slot,
};

use crate::{kernel, maps, packet::Packet};

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
        /// Reached from outside the cluster: the source becomes the node's.
        external: bool,
    },
}

/// Looks the packet's destination up among the frontends: its very address first, then, where the address
/// is the node's, the node ports.
#[inline(always)]
pub fn choose(packet: &Packet) -> Result<Choice, DropReason> {
    if !matches!(packet.key.proto as u8, PROTO_TCP | PROTO_UDP) {
        return Ok(Choice::None);
    }
    let key = frontend_key(packet.key.dst, packet.key.dport, packet.key.proto as u8);
    let frontend = match maps::frontend(&key) {
        Some(frontend) => frontend,
        None if maps::is_node_address(&packet.key.dst) => {
            match maps::frontend(&FrontendKey { addr: Addr::any(packet.v4), ..key }) {
                Some(frontend) => frontend,
                None => return Ok(Choice::None),
            }
        }
        None => return Ok(Choice::None),
    };
    if frontend.flags & FRONTEND_LOCAL_SERVER != 0 {
        return Ok(Choice::Local);
    }
    let (id, backend) = pick(frontend.service)?;
    Ok(Choice::Backend {
        backend,
        id,
        service: frontend.service,
        external: frontend.flags & FRONTEND_EXTERNAL != 0,
    })
}

/// The key of a frontend.
#[inline(always)]
pub fn frontend_key(addr: Addr, port: Be16, proto: u8) -> FrontendKey {
    FrontendKey { addr, port, proto: u16::from(proto), pad: 0 }
}

/// Picks one of a service's backends, all with the same probability.
///
/// The service's count may fall between reading it and reading the slot, and the slot's backend may go; then
/// the second try reads a count, and so a slot, that is newer than that change.
#[inline(always)]
pub fn pick(service: u32) -> Result<(u32, &'static Backend), DropReason> {
    for _ in 0..2 {
        let Some(entry) = maps::service(&service) else { return Err(DropReason::NoService) };
        if entry.count == 0 {
            return Err(DropReason::NoEndpoints);
        }
        let index = pick_slot(kernel::random(), entry.count);
        if let Some(id) = maps::slot(&SlotKey { service, index }) {
            let id = *id;
            if let Some(backend) = maps::backend(&id) {
                return Ok((id, backend));
            }
        }
    }
    Err(DropReason::NoBackend)
}
