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
//! beyond it do. The property tests in `tests/plan/` hold every prefix of every plan against this.

use std::collections::{BTreeMap, BTreeSet};

use sluice_ebpf_common::{Addr, Backend, Be16, Frontend, MemberKey, Service, SlotKey};

use crate::{DesiredService, MapOp, Observed, SourceRange};

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

/// Under which ids a service is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedIds {
    /// The service's own.
    pub id: u32,
    /// That of this node's endpoints, for frontends whose traffic policy is Local; 0 where there is none.
    pub local: u32,
    /// That under which its clients are remembered.
    pub affinity: u32,
}

/// The operations that make a service what `desired` says; `None` takes it away.
pub fn plan_service(
    observed: &Observed,
    ids: &mut Ids,
    planned: PlannedIds,
    desired: Option<&DesiredService>,
) -> Vec<MapOp> {
    match desired {
        Some(desired) => change(observed, ids, planned, desired),
        None => remove(observed, planned.id),
    }
}

fn change(observed: &Observed, ids: &mut Ids, planned: PlannedIds, desired: &DesiredService) -> Vec<MapOp> {
    let id = planned.id;
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
    if *ids != ids_before || u64::from(id.max(planned.local)) >= observed.next_service {
        ops.insert(0, ids.put());
    }

    // A client that is led to where it went last must find that this still takes connections; so members go as
    // soon as the endpoint does.
    let member = |(addr, port): (Addr, Be16)| MemberKey { addr, port, pad: 0, service: id };
    let members: BTreeMap<MemberKey, u32> = match desired.affinity {
        0 => BTreeMap::new(),
        _ => desired.backends.iter().map(|at| (member(*at), backend_ids[at])).collect(),
    };
    let changed = members.iter().filter(|(key, backend)| observed.members.get(key) != Some(backend));
    ops.extend(changed.map(|(key, backend)| MapOp::PutMember { key: *key, backend: *backend }));
    let stale = observed.members_of(id).filter(|key| !members.contains_key(key));
    ops.extend(stale.map(|key| MapOp::RemoveMember { key }));

    let wanted: BTreeSet<u32> = desired.backends.iter().map(|backend| backend_ids[backend]).collect();
    let value = Service {
        count: wanted.len() as u32,
        flags: desired.flags,
        affinity: desired.affinity,
        affinity_id: if desired.affinity == 0 { 0 } else { planned.affinity },
    };
    slots(&mut ops, observed, id, value, &wanted);

    // Ranges before the frontends that ask for them; a wider list never shuts anybody out.
    let ranges: BTreeSet<SourceRange> = desired
        .source_ranges
        .iter()
        .map(|(client, prefix)| SourceRange { service: id, client: *client, prefix: *prefix })
        .collect();
    let new = ranges.iter().filter(|range| !observed.source_ranges.contains(range));
    ops.extend(new.map(|range| MapOp::PutSourceRange { range: *range }));
    for (key, flags) in &desired.frontends {
        let frontend = Frontend { service: id, local: planned.local, flags: *flags };
        if observed.frontends.get(key) != Some(&frontend) {
            ops.push(MapOp::PutFrontend { key: *key, frontend });
        }
    }
    let stale = observed.frontends_of(id).filter(|key| !desired.frontends.contains_key(key));
    ops.extend(stale.map(|key| MapOp::RemoveFrontend { key }));
    let stale = observed.source_ranges_of(id).filter(|range| !ranges.contains(range));
    ops.extend(stale.map(|range| MapOp::RemoveSourceRange { range }));
    let kept: BTreeSet<u32> = backend_ids.into_values().collect();
    let gone = observed.backends_of(id).filter(|backend| !kept.contains(backend));
    ops.extend(gone.map(|id| MapOp::RemoveBackend { id }));
    ops
}

/// Fills the slots with just the wanted backends, changing as few as can be.
fn slots(ops: &mut Vec<MapOp>, observed: &Observed, service: u32, value: Service, wanted: &BTreeSet<u32>) {
    let held = observed.services.get(&service);
    let old_count = held.map_or(0, |service| service.count);
    let current: Vec<(u32, u32)> = observed.slots_of(service).collect();
    let in_use: BTreeMap<u32, u32> =
        current.iter().copied().filter(|(index, _)| *index < old_count).collect();

    // Backends stay where they are, if that is a place that remains; the places left over are filled with
    // the backends left over.
    let mut missing = wanted.clone();
    let mut free = Vec::new();
    for index in 0..value.count {
        match in_use.get(&index) {
            Some(backend) if missing.remove(backend) => {}
            _ => free.push(index),
        }
    }
    for (index, backend) in free.into_iter().zip(missing) {
        ops.push(MapOp::PutSlot { key: SlotKey { service, index }, backend });
    }
    if held != Some(&value) {
        ops.push(MapOp::PutService { id: service, service: value });
    }
    let beyond = current.iter().filter(|(index, _)| *index >= value.count);
    ops.extend(beyond.map(|(index, _)| MapOp::RemoveSlot { key: SlotKey { service, index: *index } }));
}

fn remove(observed: &Observed, id: u32) -> Vec<MapOp> {
    let frontends = observed.frontends_of(id).map(|key| MapOp::RemoveFrontend { key });
    let ranges = observed.source_ranges_of(id).map(|range| MapOp::RemoveSourceRange { range });
    let service = observed.services.contains_key(&id).then_some(MapOp::RemoveService { id });
    let slots =
        observed.slots_of(id).map(|(index, _)| MapOp::RemoveSlot { key: SlotKey { service: id, index } });
    let members = observed.members_of(id).map(|key| MapOp::RemoveMember { key });
    let backends = observed.backends_of(id).map(|id| MapOp::RemoveBackend { id });
    frontends.chain(ranges).chain(service).chain(slots).chain(members).chain(backends).collect()
}
