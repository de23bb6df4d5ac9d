//! From what a service has and what it shall have to the operations between the two.
//!
//! The order is a safety property: between any two operations, a packet that looks up any frontend finds a
//! complete answer. So what is pointed to is there before the pointer, and goes after it:
//!
//! ```text
//!  ids ▶ new backends ▶ slots ▶ count ▶ frontends │ frontends ▶ service ▶ slots ▶ backends
//!                 (making and changing)           │           (taking away)
//! ```
//!
//! A slot in use is pointed at another backend before its own goes, and the count falls before the slots
//! beyond it do. The property tests in `tests/plan.rs` hold every prefix of every plan against this.

use std::collections::{BTreeMap, BTreeSet};

use sluice_ebpf_common::{Addr, Backend, Be16, Frontend, Service, SlotKey};

use crate::{DesiredService, MapOp, Observed};

/// Hands out ids, each of them once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    next_service: u64,
    next_backend: u64,
}

impl Ids {
    /// Goes on behind the ids that are in use or were.
    pub fn after(observed: &Observed) -> Self {
        let above = |ids: Option<u32>, next: u64| ids.map_or(0, u64::from).saturating_add(1).max(next);
        Self {
            next_service: above(observed.service_ids().last().copied(), observed.next_service),
            next_backend: above(observed.backends.keys().next_back().copied(), observed.next_backend),
        }
    }

    /// A service's id.
    pub fn service(&mut self) -> u32 {
        take(&mut self.next_service)
    }

    fn backend(&mut self) -> u32 {
        take(&mut self.next_backend)
    }

    fn put(&self) -> MapOp {
        MapOp::PutIds { next_service: self.next_service, next_backend: self.next_backend }
    }
}

/// The next id. After four billion of them the count begins again at 1: an id of then that is still in some
/// flow's entry would be older than any time-out.
fn take(next: &mut u64) -> u32 {
    let id = u32::try_from(*next).unwrap_or(1).max(1);
    *next = u64::from(id) + 1;
    id
}

/// The operations that make service `id` what `desired` says; `None` takes it away.
pub fn plan_service(
    observed: &Observed,
    ids: &mut Ids,
    id: u32,
    desired: Option<&DesiredService>,
) -> Vec<MapOp> {
    match desired {
        Some(desired) => change(observed, ids, id, desired),
        None => remove(observed, id),
    }
}

fn change(observed: &Observed, ids: &mut Ids, id: u32, desired: &DesiredService) -> Vec<MapOp> {
    let mut ops = Vec::new();
    let held: BTreeMap<(Addr, Be16), u32> = observed
        .backends_of(id)
        .filter_map(|backend| observed.backends.get(&backend).map(|b| ((b.addr, b.port), backend)))
        .collect();

    // Backends: those that are there keep their ids.
    let mut backend_ids = BTreeMap::new();
    let ids_before = *ids;
    for backend in desired.backends.iter().chain(&desired.draining) {
        let backend_id = held.get(backend).copied().unwrap_or_else(|| ids.backend());
        if backend_ids.insert(*backend, backend_id).is_none() && !held.contains_key(backend) {
            let (addr, port) = *backend;
            ops.push(MapOp::PutBackend {
                id: backend_id,
                backend: Backend { addr, port, pad: 0, service: id },
            });
        }
    }
    if *ids != ids_before || u64::from(id) >= observed.next_service {
        ops.insert(0, ids.put());
    }

    let current: Vec<(u32, u32)> = observed.slots_of(id).collect();
    let wanted: BTreeSet<u32> =
        desired.backends.iter().filter_map(|backend| backend_ids.get(backend).copied()).collect();
    slots(&mut ops, observed.services.get(&id), id, desired.flags, &current, &wanted);

    for (key, flags) in &desired.frontends {
        let frontend = Frontend { service: id, flags: *flags };
        if observed.frontends.get(key) != Some(&frontend) {
            ops.push(MapOp::PutFrontend { key: *key, frontend });
        }
    }
    let stale = observed.frontends_of(id).filter(|key| !desired.frontends.contains_key(key));
    ops.extend(stale.map(|key| MapOp::RemoveFrontend { key }));
    let kept: BTreeSet<u32> = backend_ids.into_values().collect();
    let gone = observed.backends_of(id).filter(|backend| !kept.contains(backend));
    ops.extend(gone.map(|id| MapOp::RemoveBackend { id }));
    ops
}

/// Fills the slots with just the wanted backends, changing as few as can be.
fn slots(
    ops: &mut Vec<MapOp>,
    observed: Option<&Service>,
    service: u32,
    flags: u32,
    current: &[(u32, u32)],
    wanted: &BTreeSet<u32>,
) {
    let count = wanted.len() as u32;
    let value = Service { count, flags };
    let old_count = observed.map_or(0, |service| service.count);
    let in_use: BTreeMap<u32, u32> =
        current.iter().copied().filter(|(index, _)| *index < old_count).collect();

    // Backends stay where they are, if that is a place that remains; the places left over are filled with
    // the backends left over.
    let mut missing = wanted.clone();
    let mut free = Vec::new();
    for index in 0..count {
        match in_use.get(&index) {
            Some(backend) if missing.remove(backend) => {}
            _ => free.push(index),
        }
    }
    for (index, backend) in free.into_iter().zip(missing) {
        ops.push(MapOp::PutSlot { key: SlotKey { service, index }, backend });
    }
    if observed != Some(&value) {
        ops.push(MapOp::PutService { id: service, service: value });
    }
    let beyond = current.iter().filter(|(index, _)| *index >= count);
    ops.extend(beyond.map(|(index, _)| MapOp::RemoveSlot { key: SlotKey { service, index: *index } }));
}

fn remove(observed: &Observed, id: u32) -> Vec<MapOp> {
    let frontends = observed.frontends_of(id).map(|key| MapOp::RemoveFrontend { key });
    let service = observed.services.contains_key(&id).then_some(MapOp::RemoveService { id });
    let slots =
        observed.slots_of(id).map(|(index, _)| MapOp::RemoveSlot { key: SlotKey { service: id, index } });
    let backends = observed.backends_of(id).map(|id| MapOp::RemoveBackend { id });
    frontends.chain(service).chain(slots).chain(backends).collect()
}
