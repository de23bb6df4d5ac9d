//! Manifests, pod records and other nodes' pod status to one set of objects, and what changes in it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

use sluice_model::{Changes, EndpointSlice, IpFamily, Object, ObjectKey, ObjectName, Pod, Snapshot};

use super::{
    files::{Files, Note},
    status::PodStatus,
};
use crate::{endpoints, source::Delta};

/// The addresses of a node's pods.
pub type PodAddresses = BTreeMap<ObjectName, Vec<IpAddr>>;

/// Everything that folder mode knows.
#[derive(Debug)]
pub struct View {
    node: Arc<str>,
    files: Files,
    /// What the plugin's records of this node say.
    records: PodAddresses,
    /// What other nodes say of their pods, by the file that says it.
    others: BTreeMap<Arc<str>, PodStatus>,
    /// The objects of the manifests, pods with their addresses.
    objects: Snapshot,
    /// The slices that the endpoints controller made, by service.
    made: BTreeMap<ObjectName, BTreeMap<ObjectName, EndpointSlice>>,
    /// Objects that may differ from what `objects` holds.
    dirty: BTreeSet<ObjectKey>,
    notes: Vec<Note>,
}

impl View {
    /// Nothing known yet; `node` is the name of this node.
    pub fn new(node: Arc<str>) -> Self {
        Self {
            node,
            files: Files::default(),
            records: BTreeMap::new(),
            others: BTreeMap::new(),
            objects: Snapshot::default(),
            made: BTreeMap::new(),
            dirty: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// Takes in a manifest file's text.
    pub fn put_file(&mut self, file: &Arc<str>, text: &str) {
        let changed = self.files.put(file, text, &mut self.notes);
        self.dirty.extend(changed);
    }

    /// Forgets a manifest file.
    pub fn remove_file(&mut self, file: &Arc<str>) {
        let changed = self.files.remove(file);
        self.dirty.extend(changed);
    }

    /// Takes in the addresses of this node's pods.
    pub fn put_records(&mut self, records: PodAddresses) {
        let before = std::mem::replace(&mut self.records, records);
        self.mark_pods(&before, &self.records.clone());
    }

    /// Takes in what another node says of its pods; `None` if its file is gone.
    pub fn put_other(&mut self, file: &Arc<str>, status: Option<PodStatus>) {
        let after = status.as_ref().map(|s| s.pods.clone()).unwrap_or_default();
        let before = match status {
            Some(status) => self.others.insert(file.clone(), status),
            None => self.others.remove(file),
        };
        self.mark_pods(&before.map(|status| status.pods).unwrap_or_default(), &after);
    }

    fn mark_pods(&mut self, before: &PodAddresses, after: &PodAddresses) {
        let names = before.keys().chain(after.keys());
        let changed = names.filter(|name| before.get(*name) != after.get(*name));
        self.dirty.extend(changed.cloned().map(ObjectKey::Pod));
    }

    /// What the author of the manifests should know, since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// How many files have a mistake in them.
    pub fn bad_files(&self) -> usize {
        self.files.bad()
    }

    /// The changes since the last call. `now` is the time that slices made here carry as the time of the
    /// change that led to them.
    pub fn take_deltas(&mut self, now: SystemTime) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let mut services = BTreeSet::new();
        let dirty = std::mem::take(&mut self.dirty);
        // Nodes first: pods in the host's network take their addresses from them.
        let (nodes, others): (Vec<_>, Vec<_>) =
            dirty.into_iter().partition(|key| matches!(key, ObjectKey::Node(_)));
        if !nodes.is_empty() {
            services.extend(self.objects.services.keys().cloned());
        }
        let host_pods: Vec<_> = if nodes.is_empty() {
            Vec::new()
        } else {
            let pods = self.objects.pods.iter().filter(|(_, pod)| pod.host_network);
            pods.map(|(name, _)| ObjectKey::Pod(name.clone())).collect()
        };
        for key in nodes.into_iter().chain(others).chain(host_pods) {
            self.affected_services(&key, &mut services);
            self.refresh(&key, &mut services, &mut deltas);
            self.affected_services(&key, &mut services);
        }
        for service in services {
            self.make_slices(&service, now, &mut deltas);
        }
        deltas
    }

    /// Brings one object up to date.
    fn refresh(&mut self, key: &ObjectKey, services: &mut BTreeSet<ObjectName>, deltas: &mut Vec<Delta>) {
        let mut changes = Changes::default();
        match self.files.get(key).map(|entry| self.complete(&entry.object)) {
            Some(object) => {
                self.objects.apply(object.clone(), &mut changes);
                if !changes.is_empty() {
                    deltas.push(Delta::Put(object));
                }
            }
            None => {
                self.objects.remove(key, &mut changes);
                if !changes.is_empty() {
                    deltas.push(Delta::Remove(key.clone()));
                }
            }
        }
        services.extend(changes.services);
    }

    /// The object with what the manifest need not say: a pod's addresses and its node.
    fn complete(&self, object: &Object) -> Object {
        match object {
            Object::Pod(pod) if pod.addresses.is_empty() => Object::Pod(self.with_addresses(pod.clone())),
            other => other.clone(),
        }
    }

    fn with_addresses(&self, mut pod: Pod) -> Pod {
        if pod.host_network {
            let node = pod.node.as_ref().and_then(|node| self.objects.nodes.get(node));
            pod.addresses = node.map(|node| node.primary_addresses().collect()).unwrap_or_default();
            return pod;
        }
        let here = (&self.node, &self.records);
        let elsewhere = self.others.values().map(|status| (&status.node, &status.pods));
        let found = std::iter::once(here).chain(elsewhere).find_map(|(node, pods)| {
            let may_be_there = pod.node.as_ref().is_none_or(|wanted| wanted == node);
            pods.get(&pod.name).filter(|_| may_be_there).map(|addresses| (node, addresses))
        });
        if let Some((node, addresses)) = found {
            pod.addresses = addresses.clone();
            pod.node = Some(node.clone());
        }
        pod
    }

    /// The services whose endpoints this pod, as it is held now, belongs to.
    fn affected_services(&self, key: &ObjectKey, services: &mut BTreeSet<ObjectName>) {
        let ObjectKey::Pod(name) = key else { return };
        let Some(pod) = self.objects.pods.get(name) else { return };
        let first = ObjectName::new(name.namespace.clone(), "");
        let there = self.objects.services.range(first..).take_while(|(s, _)| s.namespace == name.namespace);
        let selecting = there.filter(|(_, service)| endpoints::selects(service, &pod.labels));
        services.extend(selecting.map(|(name, _)| name.clone()));
    }

    /// Brings the slices of one service up to date.
    fn make_slices(&mut self, name: &ObjectName, now: SystemTime, deltas: &mut Vec<Delta>) {
        let mut made = self.made.remove(name).unwrap_or_default();
        for mut slice in self.desired_slices(name) {
            match made.remove(&slice.name) {
                Some(before) => {
                    slice.last_change = before.last_change;
                    if slice != before {
                        slice.last_change = Some(now);
                        deltas.push(Delta::Put(Object::EndpointSlice(slice.clone())));
                    }
                }
                None => {
                    slice.last_change = Some(now);
                    deltas.push(Delta::Put(Object::EndpointSlice(slice.clone())));
                }
            }
            self.made.entry(name.clone()).or_default().insert(slice.name.clone(), slice);
        }
        let gone = made.into_keys().map(|slice| Delta::Remove(ObjectKey::EndpointSlice(slice)));
        deltas.extend(gone);
    }

    fn desired_slices(&self, name: &ObjectName) -> Vec<EndpointSlice> {
        let Some(service) = self.objects.services.get(name) else { return Vec::new() };
        // Who writes slices by hand gets those and no others.
        if self.objects.slices_of(name).next().is_some() {
            return Vec::new();
        }
        let first = ObjectName::new(name.namespace.clone(), "");
        let pods = self.objects.pods.range(first..).take_while(|(p, _)| p.namespace == name.namespace);
        let zone = |node: &str| self.objects.nodes.get(node).and_then(|node| node.zone.clone());
        endpoints::desired(service, self.families(name), pods.map(|(_, pod)| &**pod), zone)
    }

    fn families(&self, service: &ObjectName) -> Option<&[IpFamily]> {
        self.files.get(&ObjectKey::Service(service.clone()))?.families.as_deref()
    }
}
