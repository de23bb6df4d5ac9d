//! Hands the server what the cluster looks like.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use sluice_model::{Changes, ObjectName, Pod, Snapshot};

use crate::{
    PodRecords, Saved,
    desired::{import_records, service_key, service_records},
    handler::ZoneSlot,
    metrics::Metrics,
    name::push_label,
    zone::{Origin, PodAt, Zone},
};

/// The side of the server that the agent's loop feeds. Cheap to clone; all clones feed one server.
#[derive(Clone, Debug)]
pub struct Publisher {
    slot: ZoneSlot,
    metrics: Metrics,
    state: Arc<Mutex<State>>,
}

/// What the zone holds of each pod.
type HeldPods = BTreeMap<ObjectName, (PodAt, Vec<IpAddr>)>;

/// What the publisher remembers between two snapshots.
#[derive(Debug)]
struct State {
    zone: Zone,
    /// The addresses under which the zone holds each pod.
    pods: HeldPods,
    /// When the endpoints of headless services changed last, as far as that has been measured.
    measured: BTreeMap<ObjectName, SystemTime>,
    is_published: bool,
    /// Names of pods of this node.
    aliases: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The zone lacks what was published before.
    must_rebuild: bool,
}

impl Publisher {
    pub(crate) fn new(origin: Arc<Origin>, slot: ZoneSlot, metrics: Metrics) -> Self {
        let state = State {
            zone: Zone::new(origin),
            pods: BTreeMap::new(),
            measured: BTreeMap::new(),
            is_published: false,
            aliases: BTreeMap::new(),
            must_rebuild: false,
        };
        Self { slot, metrics, state: Arc::new(Mutex::new(state)) }
    }

    /// Makes the answers agree with `snapshot`, at a cost in proportion to `changes` (what differs from the
    /// snapshot published before). Queries under way see the state before or the state after, nothing
    /// between.
    pub fn publish(&self, snapshot: &Snapshot, changes: &Changes) {
        self.publish_at(snapshot, changes, SystemTime::now());
    }

    /// Whether anything has been published: the server's part of readiness.
    pub fn is_ready(&self) -> bool {
        self.slot.load().as_ref().is_some_and(|zone| !zone.is_stale)
    }

    /// What is published, to be kept for the start of a later server; `None` before the first publish.
    /// `clients`: who is answered, for that server to know as early.
    pub fn save(&self, clients: &[IpNet]) -> Option<Saved> {
        self.slot.load().as_ref().filter(|zone| !zone.is_stale).map(|zone| Saved::of(zone, clients))
    }

    /// The serial number of what is published, which moves with every change; `None` before the first publish.
    pub fn serial(&self) -> Option<u32> {
        self.slot.load().as_ref().filter(|zone| !zone.is_stale).map(|zone| zone.serial)
    }

    /// Serves what an earlier server has saved, until the first publish: what it holds is told with a time to live
    /// of 0, and of what it lacks nothing is known. Does nothing where the cluster is known, or was another.
    pub fn restore(&self, saved: &Saved) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = saved.zone(&state.zone.origin).filter(|_| !state.is_published) {
            self.slot.store(Some(Arc::new(zone)));
        }
    }

    /// What is published.
    #[cfg(test)]
    pub(crate) fn zone(&self) -> Arc<Zone> {
        self.slot.load_full().unwrap()
    }

    /// Gives names to pods of this node, beside what the cluster says: no other names have these addresses from now on.
    pub fn set_aliases(&self, names: &BTreeMap<String, BTreeSet<IpAddr>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.aliases == *names {
            return;
        }
        state.aliases.clone_from(names);
        state.zone.set_aliases(names);
        if state.is_published {
            state.zone.serial = serial_after(state.zone.serial, SystemTime::now());
            self.slot.store(Some(Arc::new(state.zone.clone())));
        }
    }

    /// Publishes `snapshot` anew in a zone that is made otherwise.
    pub(crate) fn change(&self, origin: Arc<Origin>, snapshot: &Snapshot) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state.zone.origin == *origin {
            return;
        }
        let is_same = origin.has_records_of(&state.zone.origin);
        if is_same {
            state.zone.origin = origin;
        } else {
            let mut zone = Zone::new(origin);
            zone.serial = state.zone.serial;
            state.zone = zone;
            state.must_rebuild = true;
        }
        let is_published = state.is_published;
        drop(state);
        if is_published {
            self.publish(snapshot, &if is_same { Changes::default() } else { Changes::everything() });
        }
    }

    fn publish_at(&self, snapshot: &Snapshot, changes: &Changes, now: SystemTime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let everything = changes.everything || !state.is_published || state.must_rebuild;
        let (zone, pods) = if everything {
            // From nothing, so that whatever went wrong before is gone.
            let mut fresh = (Zone::new(state.zone.origin.clone()), BTreeMap::new());
            apply(&mut fresh.0, &mut fresh.1, snapshot, &all(snapshot));
            fresh.0.set_aliases(&state.aliases);
            fresh
        } else {
            let mut zone = state.zone.clone();
            let mut pods = std::mem::take(&mut state.pods);
            apply(&mut zone, &mut pods, snapshot, changes);
            (zone, pods)
        };
        let differs = !everything || zone != state.zone;
        let serial = state.zone.serial;
        state.zone = zone;
        state.pods = pods;
        // The serial follows the clock but moves with every change, and never back.
        state.zone.serial = if differs || !state.is_published { serial_after(serial, now) } else { serial };
        self.slot.store(Some(Arc::new(state.zone.clone())));
        self.metrics.synced.set(1);
        self.measure(&mut state, snapshot, changes, now);
        state.is_published = true;
        state.must_rebuild = false;
    }

    /// Observes how long ago the endpoints changed that are answered from now on. What changed before the
    /// first publish waited for us to start, which is not what is measured.
    fn measure(&self, state: &mut State, snapshot: &Snapshot, changes: &Changes, now: SystemTime) {
        let all = state.is_published && !changes.everything;
        let names: Vec<&ObjectName> =
            if all { changes.services.iter().collect() } else { snapshot.services.keys().collect() };
        for name in names {
            let service = snapshot.services.get(name).filter(|s| s.headless && !s.selector.is_empty());
            let changed = snapshot.slices_of(name).filter_map(|slice| slice.last_change).max();
            let (Some(_), Some(changed)) = (service, changed) else {
                state.measured.remove(name);
                continue;
            };
            let is_new = state.measured.insert(name.clone(), changed).is_none_or(|old| old < changed);
            if is_new && state.is_published {
                let took = now.duration_since(changed).unwrap_or(Duration::ZERO);
                let kind = self.metrics.programming.with_label_values(&["headless_with_selector"]);
                kind.observe(took.as_secs_f64());
            }
        }
    }
}

/// The serial number after this one.
fn serial_after(serial: u32, now: SystemTime) -> u32 {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() as u32;
    seconds.max(serial.wrapping_add(1))
}

/// Changes that name every object there is.
fn all(snapshot: &Snapshot) -> Changes {
    Changes {
        everything: true,
        services: snapshot.services.keys().cloned().collect(),
        pods: snapshot.pods.keys().cloned().collect(),
        namespaces: snapshot.namespaces.keys().cloned().collect(),
        imports: snapshot.imports.keys().cloned().collect(),
        ..Changes::default()
    }
}

/// Makes the zone agree with the snapshot in the objects that are named.
fn apply(zone: &mut Zone, pods: &mut HeldPods, snapshot: &Snapshot, changes: &Changes) {
    let origin = zone.origin.clone();
    let by_namespace = origin.exposure.namespace_labels.is_some();
    // Whether a namespace is seen decides about its services.
    let revealed = changes.namespaces.iter().filter(|_| by_namespace).flat_map(|namespace| {
        let first = ObjectName::new(namespace.clone(), "");
        snapshot.services.range(first..).map(|(name, _)| name).take_while(|name| name.namespace == *namespace)
    });
    let services: BTreeSet<&ObjectName> = changes.services.iter().chain(revealed).collect();
    for name in services {
        let Some(key) = service_key(name) else {
            tracing::warn!(service = %name, "the name cannot be a DNS name: the service has none");
            continue;
        };
        let is_seen = origin.exposure.has_namespace(&name.namespace, snapshot);
        let service = snapshot
            .services
            .get(name)
            .filter(|service| is_seen && origin.exposure.has_labels(service.labels.as_deref()));
        let records = service.map(|service| {
            service_records(service, snapshot.slices_of(name).map(|slice| &**slice), &origin.options)
        });
        zone.set_service(&key, records);
    }
    if !origin.multicluster.is_empty() {
        apply_imports(zone, snapshot, changes);
    }
    for name in &changes.namespaces {
        let mut label = Vec::new();
        if push_label(&mut label, name.as_bytes()) {
            let exists = snapshot.namespaces.contains_key(name);
            zone.set_namespace(&label, exists && origin.exposure.has_namespace(name, snapshot));
        }
    }
    for name in &changes.pods {
        if let Some((pod, addresses)) = pods.remove(name) {
            addresses.iter().for_each(|address| zone.set_pod(&pod, *address, false));
        }
        let Some(pod) = snapshot.pods.get(name).filter(|pod| is_needed(&origin, pod)) else { continue };
        let held = PodAt { name: name.clone(), is_plain: !pod.host_network && !pod.own_search };
        pod.addresses.iter().for_each(|address| zone.set_pod(&held, *address, true));
        pods.insert(name.clone(), (held, pod.addresses.clone()));
    }
}

/// The same for imports.
fn apply_imports(zone: &mut Zone, snapshot: &Snapshot, changes: &Changes) {
    let Origin { exposure, options, .. } = &*zone.origin.clone();
    let by_namespace = exposure.namespace_labels.is_some();
    let revealed =
        snapshot.imports.keys().filter(|name| by_namespace && changes.namespaces.contains(&name.namespace));
    for name in changes.imports.iter().chain(revealed).collect::<BTreeSet<_>>() {
        let Some(key) = service_key(name) else { continue };
        let is_seen = exposure.has_namespace(&name.namespace, snapshot);
        let import = snapshot
            .imports
            .get(name)
            .filter(|import| is_seen && exposure.has_labels(import.labels.as_deref()));
        let slices = snapshot.imported.of(name).map(|slice| &**slice);
        zone.set_import(&key, import.map(|import| import_records(import, slices, options)));
    }
}

/// Whether an answer may depend on a pod: on any for its own name, on those of this node for their clients.
fn is_needed(origin: &Origin, pod: &Pod) -> bool {
    let is_here = origin.node.is_none() || origin.node.as_deref() == pod.node.as_deref();
    origin.pods == PodRecords::Verified || origin.autopath && is_here
}
