//! One consistent view of the cluster, and what changed since the view before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{EndpointSlice, Namespace, Node, ObjectName, Pod, Service, ServiceCidr, ServiceImport, Slices};

/// Everything that is known of the cluster at one moment.
///
/// Kept by the agent's loop, which applies [`Object`]s to it one by one; the consumers get it by reference
/// together with the [`Changes`] since they last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Services by name.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// Slices by the service they belong to.
    pub slices: Slices,
    /// Nodes by name.
    pub nodes: BTreeMap<Arc<str>, Arc<Node>>,
    /// Pods by name.
    pub pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    /// ServiceCIDRs by name.
    pub service_cidrs: BTreeMap<Arc<str>, Arc<ServiceCidr>>,
    /// Services of a set of clusters, by name.
    pub imports: BTreeMap<ObjectName, Arc<ServiceImport>>,
    /// Slices by the import they belong to; one may be a service's, too.
    pub imported: Slices,
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
    ServiceImport(ServiceImport),
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
    ServiceImport(ObjectName),
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
            Self::ServiceImport(o) => ObjectKey::ServiceImport(o.name.clone()),
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
    /// Imports that changed, or whose endpoints did.
    pub imports: BTreeSet<ObjectName>,
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
                let slice = Arc::new(o);
                let Changes { services, imports, .. } = changes;
                self.slices.put(slice.service.as_ref(), &slice, |name| {
                    services.insert(name);
                });
                let import = slice.imported.as_ref().map(|imported| &imported.service);
                self.imported.put(import, &slice, |name| {
                    imports.insert(name);
                });
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
            Object::ServiceImport(o) => {
                let name = o.name.clone();
                if put(&mut self.imports, name.clone(), o) {
                    changes.imports.insert(name);
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
            ObjectKey::EndpointSlice(name) => {
                let Changes { services, imports, .. } = changes;
                self.slices.remove(name, |name| {
                    services.insert(name);
                });
                self.imported.remove(name, |name| {
                    imports.insert(name);
                });
            }
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
            ObjectKey::ServiceImport(name) => {
                if self.imports.remove(name).is_some() {
                    changes.imports.insert(name.clone());
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
        self.slices.of(service)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Imported, IpFamily};

    fn slice(name: &str, service: &str) -> Object {
        of(name, Some(service), None)
    }

    fn of(name: &str, service: Option<&str>, import: Option<&str>) -> Object {
        let owner = |name| ObjectName::new("default", name);
        let imported = |import| Box::new(Imported { service: owner(import), cluster: "one".into() });
        Object::EndpointSlice(EndpointSlice {
            name: ObjectName::new("default", name),
            service: service.map(owner),
            imported: import.map(imported),
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
    #[test]
    fn a_slice_may_be_a_services_and_an_imports() {
        let mut snapshot = Snapshot::default();
        let mut changed = |object| {
            let mut changes = Changes::default();
            snapshot.apply(object, &mut changes);
            (changes.services.len(), changes.imports.len())
        };
        assert_eq!(changed(of("s", None, Some("far"))), (0, 1));
        assert_eq!(changed(of("s", Some("derived"), Some("far"))), (1, 1));
        assert_eq!(changed(of("s", Some("derived"), Some("far"))), (0, 0));
        assert_eq!(changed(of("s", Some("derived"), None)), (1, 1));
        let far = ObjectName::new("default", "far");
        assert_eq!(snapshot.imported.of(&far).count(), 0);
        snapshot.remove(&ObjectKey::EndpointSlice(ObjectName::new("default", "s")), &mut Changes::default());
        assert_eq!(snapshot, Snapshot::default());
    }
}
