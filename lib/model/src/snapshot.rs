//! One consistent view of the cluster, and what changed since the view before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{EndpointSlice, Namespace, Node, ObjectName, Pod, Service, ServiceCidr};

/// Everything that is known of the cluster at one moment.
///
/// Kept by the agent's loop, which applies [`Object`]s to it one by one; the consumers get it by reference
/// together with the [`Changes`] since they last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Services by name.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// Slices by the service they belong to, in the order of their own names. A list: almost all services have one
    /// or two, for which a map would take more memory than they do.
    pub slices: BTreeMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    /// Nodes by name.
    pub nodes: BTreeMap<Arc<str>, Arc<Node>>,
    /// Pods by name.
    pub pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    /// ServiceCIDRs by name.
    pub service_cidrs: BTreeMap<Arc<str>, Arc<ServiceCidr>>,
    /// Which service each slice is held under, so that a removal costs no search.
    slice_services: BTreeMap<ObjectName, ObjectName>,
}

/// An object of any kind that a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Node(Node),
    Pod(Pod),
    Namespace(Namespace),
    ServiceCidr(ServiceCidr),
}

/// What names an object within a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum ObjectKey {
    Service(ObjectName),
    EndpointSlice(ObjectName),
    Node(Arc<str>),
    Pod(ObjectName),
    Namespace(Arc<str>),
    ServiceCidr(Arc<str>),
}

impl Object {
    /// The key under which the object is held.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(o) => ObjectKey::Service(o.name.clone()),
            Self::EndpointSlice(o) => ObjectKey::EndpointSlice(o.name.clone()),
            Self::Node(o) => ObjectKey::Node(o.name.clone()),
            Self::Pod(o) => ObjectKey::Pod(o.name.clone()),
            Self::Namespace(o) => ObjectKey::Namespace(o.name.clone()),
            Self::ServiceCidr(o) => ObjectKey::ServiceCidr(o.name.clone()),
        }
    }
}

/// What differs between two snapshots, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything may differ (the first snapshot, or a periodic full pass); the sets may be empty then.
    pub everything: bool,
    /// Services that changed, or whose endpoints did.
    pub services: BTreeSet<ObjectName>,
    /// Nodes that changed.
    pub nodes: BTreeSet<Arc<str>>,
    /// Pods that changed.
    pub pods: BTreeSet<ObjectName>,
    /// Namespaces that changed.
    pub namespaces: BTreeSet<Arc<str>>,
    /// ServiceCIDRs that changed.
    pub service_cidrs: BTreeSet<Arc<str>>,
}

impl Changes {
    /// Changes that say: look at everything.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Snapshot {
    /// Adds an object or puts it in the place of the one with its key; records in `changes` what that alters.
    /// An object equal to the one held changes nothing.
    pub fn apply(&mut self, object: Object, changes: &mut Changes) {
        match object {
            Object::Service(o) => {
                let name = o.name.clone();
                if put(&mut self.services, name.clone(), o) {
                    changes.services.insert(name);
                }
            }
            Object::EndpointSlice(o) => {
                let (name, service) = (o.name.clone(), o.service.clone());
                // A slice whose label moved to another service leaves the one it was in.
                if self.slice_services.get(&name).is_some_and(|held| *held != service) {
                    self.remove_slice(&name, changes);
                }
                self.slice_services.insert(name.clone(), service.clone());
                if put_slice(self.slices.entry(service.clone()).or_default(), o) {
                    changes.services.insert(service);
                }
            }
            Object::Node(o) => {
                let name = o.name.clone();
                if put(&mut self.nodes, name.clone(), o) {
                    changes.nodes.insert(name);
                }
            }
            Object::Pod(o) => {
                let name = o.name.clone();
                if put(&mut self.pods, name.clone(), o) {
                    changes.pods.insert(name);
                }
            }
            Object::Namespace(o) => {
                let name = o.name.clone();
                if put(&mut self.namespaces, name.clone(), o) {
                    changes.namespaces.insert(name);
                }
            }
            Object::ServiceCidr(o) => {
                let name = o.name.clone();
                if put(&mut self.service_cidrs, name.clone(), o) {
                    changes.service_cidrs.insert(name);
                }
            }
        }
    }

    /// Removes the object with this key, if there is one; records in `changes` what that alters.
    pub fn remove(&mut self, key: &ObjectKey, changes: &mut Changes) {
        match key {
            ObjectKey::Service(name) => {
                if self.services.remove(name).is_some() {
                    changes.services.insert(name.clone());
                }
            }
            ObjectKey::EndpointSlice(name) => self.remove_slice(name, changes),
            ObjectKey::Node(name) => {
                if self.nodes.remove(name).is_some() {
                    changes.nodes.insert(name.clone());
                }
            }
            ObjectKey::Pod(name) => {
                if self.pods.remove(name).is_some() {
                    changes.pods.insert(name.clone());
                }
            }
            ObjectKey::Namespace(name) => {
                if self.namespaces.remove(name).is_some() {
                    changes.namespaces.insert(name.clone());
                }
            }
            ObjectKey::ServiceCidr(name) => {
                if self.service_cidrs.remove(name).is_some() {
                    changes.service_cidrs.insert(name.clone());
                }
            }
        }
    }

    /// All networks that ServiceCIDRs name.
    pub fn service_networks(&self) -> impl Iterator<Item = IpNet> {
        self.service_cidrs.values().flat_map(|object| object.cidrs.iter().copied())
    }

    /// The slices of a service, by the slices' names.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.get(service).into_iter().flatten()
    }

    fn remove_slice(&mut self, slice: &ObjectName, changes: &mut Changes) {
        let Some(service) = self.slice_services.remove(slice) else { return };
        if let Some(held) = self.slices.get_mut(&service) {
            held.retain(|held| held.name != *slice);
            if held.is_empty() {
                self.slices.remove(&service);
            }
        }
        changes.services.insert(service);
    }
}

/// Puts a value into a map of shared values; tells whether that changed anything.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, Arc<V>>, key: K, value: V) -> bool {
    match map.get(&key) {
        Some(held) if **held == value => false,
        _ => {
            map.insert(key, Arc::new(value));
            true
        }
    }
}

/// The same for a slice in its service's list.
fn put_slice(list: &mut Vec<Arc<EndpointSlice>>, slice: EndpointSlice) -> bool {
    match list.binary_search_by(|held| held.name.cmp(&slice.name)) {
        Ok(at) if *list[at] == slice => return false,
        Ok(at) => list[at] = Arc::new(slice),
        Err(at) => {
            list.reserve_exact(1);
            list.insert(at, Arc::new(slice));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IpFamily;

    fn slice(name: &str, service: &str) -> Object {
        Object::EndpointSlice(EndpointSlice {
            name: ObjectName::new("default", name),
            service: ObjectName::new("default", service),
            headless: false,
            family: IpFamily::V4,
            ports: Vec::new(),
            endpoints: Vec::new(),
            last_change: None,
        })
    }

    #[test]
    fn an_equal_object_changes_nothing() {
        let mut snapshot = Snapshot::default();
        let mut changes = Changes::default();
        snapshot.apply(slice("web-1", "web"), &mut changes);
        assert!(changes.services.contains(&ObjectName::new("default", "web")));
        let mut again = Changes::default();
        snapshot.apply(slice("web-1", "web"), &mut again);
        assert!(again.is_empty());
    }

    #[test]
    fn a_slice_that_moves_changes_both_services_and_leaves_no_remains() {
        let mut snapshot = Snapshot::default();
        snapshot.apply(slice("s", "old"), &mut Changes::default());
        let mut changes = Changes::default();
        snapshot.apply(slice("s", "new"), &mut changes);
        assert_eq!(changes.services.len(), 2);
        assert_eq!(snapshot.slices_of(&ObjectName::new("default", "old")).count(), 0);
        assert_eq!(snapshot.slices_of(&ObjectName::new("default", "new")).count(), 1);

        snapshot.remove(&ObjectKey::EndpointSlice(ObjectName::new("default", "s")), &mut changes);
        assert_eq!(snapshot, Snapshot::default());
    }
}
