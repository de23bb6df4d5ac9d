//! How the zone comes to be as the cluster is: services, imports, namespaces, pods and aliases come and go, and what their
//! addresses point to with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Map, PodAt, Pointer, Presence, Reverse, Zone};
use crate::{desired::ServiceRecords, name::WireName, query::QueryName, records::AddressSet};

impl Zone {
    /// Puts a service in the place of the one with its key, or takes that away.
    pub(crate) fn set_service(&mut self, key: &Arc<[u8]>, records: Option<ServiceRecords>) {
        let old = self.services.get(key);
        for address in old.iter().flat_map(|old| external_addresses(old)) {
            self.external.remove(address, &Pointer { host: None, service: key.clone() });
        }
        for address in records.iter().flat_map(external_addresses) {
            self.external.add(address, Pointer { host: None, service: key.clone() });
        }
        let (was, is) = set(&mut self.services, &mut self.reverse, key, records);
        self.count_in_namespace(key, was, is);
    }

    /// The same with an import.
    pub(crate) fn set_import(&mut self, key: &Arc<[u8]>, records: Option<ServiceRecords>) {
        let (was, is) = set(&mut self.imports, &mut self.imported, key, records);
        self.count_in_namespace(key, was, is);
    }

    fn count_in_namespace(&mut self, key: &[u8], was: bool, is: bool) {
        self.change_namespace(namespace_of(key), |presence| {
            presence.services = presence.services + u32::from(is) - u32::from(was);
        });
    }

    /// Says whether there is an object for a namespace (its label in wire form).
    pub(crate) fn set_namespace(&mut self, label: &[u8], object: bool) {
        self.change_namespace(label, |presence| presence.object = object);
    }

    /// Says that a pod has an address, or no longer.
    pub(crate) fn set_pod(&mut self, pod: &PodAt, address: IpAddr, present: bool) {
        let mut held = self.pods.get(&address).map(|held| held.to_vec()).unwrap_or_default();
        match (held.binary_search(pod), present) {
            (Err(place), true) => held.insert(place, pod.clone()),
            (Ok(place), false) => drop(held.remove(place)),
            _ => return,
        }
        if held.is_empty() {
            self.pods.remove(&address)
        } else {
            self.pods.insert(address, held.into())
        };
    }

    /// Gives names to pods. Those within the cluster's domain, and what is no name, are passed over.
    pub(crate) fn set_aliases(&mut self, names: &BTreeMap<String, BTreeSet<IpAddr>>) {
        let ttl = self.origin.options.ttl;
        let aliases = names.iter().filter_map(|(name, addresses)| {
            let (name, _) = QueryName::read(WireName::parse(name)?.as_bytes(), 0)?;
            let (v4, v6) = addresses.iter().partition(|address| address.is_ipv4());
            let sets = [AddressSet::new(v4, ttl), AddressSet::new(v6, ttl)];
            (!self.origin.claims(&name)).then(|| (name.as_bytes().into(), sets))
        });
        self.aliases = Arc::new(aliases.collect());
    }

    fn change_namespace(&mut self, label: &[u8], change: impl FnOnce(&mut Presence)) {
        let mut presence = self.namespaces.get(label).copied().unwrap_or_default();
        change(&mut presence);
        if presence == Presence::default() {
            self.namespaces.remove(label);
        } else {
            self.namespaces.insert(label.into(), presence);
        }
    }
}

/// Puts records in the place of those with their key, and pointers to them in the place of the others. Whether there were
/// any, and are.
fn set(
    held: &mut Map<Arc<[u8]>, Arc<ServiceRecords>>,
    reverse: &mut Reverse,
    key: &Arc<[u8]>,
    records: Option<ServiceRecords>,
) -> (bool, bool) {
    let old = held.remove(key);
    for (address, pointer) in old.iter().flat_map(|old| pointers(key, old)) {
        reverse.remove(address, &pointer);
    }
    let is_there = records.is_some();
    if let Some(records) = records {
        for (address, pointer) in pointers(key, &records) {
            reverse.add(address, pointer);
        }
        held.insert(key.clone(), Arc::new(records));
    }
    (old.is_some(), is_there)
}

/// The addresses that a service has for those outside.
fn external_addresses(records: &ServiceRecords) -> impl Iterator<Item = IpAddr> + '_ {
    records.external.iter().flat_map(|external| external.addresses())
}

/// The reverse names that a service gives.
fn pointers<'r>(
    key: &'r Arc<[u8]>,
    records: &'r ServiceRecords,
) -> impl Iterator<Item = (IpAddr, Pointer)> + 'r {
    let own = records.v4.addresses().chain(records.v6.addresses()).filter(|_| !records.headless);
    let own = own.map(|address| (address, Pointer { host: None, service: key.clone() }));
    let hosts = records.hosts.iter().map(|host| {
        let pointer = Pointer { host: Some(host.label.clone()), service: key.clone() };
        (host.address, pointer)
    });
    own.chain(hosts)
}

/// The second label of a service's key, its length before it.
fn namespace_of(key: &[u8]) -> &[u8] {
    key.get(1 + key.first().map_or(0, |length| usize::from(*length))..).unwrap_or_default()
}
