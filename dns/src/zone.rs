//! The zone: an immutable value that says for every name whether it is ours, whether it exists and what
//! it has. NODATA and NXDOMAIN are told apart here and nowhere else.
//!
//! A service and all below it is one value under the key `service.namespace`, which stands in a query as
//! it stands in the map; a look-up is one hash of those bytes. The maps are persistent: a copy that differs
//! in one service shares everything else with the original.

mod origin;
mod reverse;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};
use sluice_model::{ObjectName, Protocol};

use self::reverse::Reverse;
pub(crate) use self::{origin::Origin, reverse::Pointer};
use crate::{
    PodRecords,
    desired::{Host, Port, ServiceRecords},
    name::{self, WireName},
    query::QueryName,
    records::AddressSet,
    wire::rtype,
};

type Map<K, V> = GenericHashMap<K, V, foldhash::fast::RandomState, DefaultSharedPtr>;

/// The names and addresses of a cluster at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// What does not change.
    pub(crate) origin: Arc<Origin>,
    /// The serial number of the SOA record: moves with every change.
    pub(crate) serial: u32,
    /// How the cluster was when an earlier server ended: what it lacks may well exist.
    pub(crate) is_stale: bool,
    services: Map<Arc<[u8]>, Arc<ServiceRecords>>,
    namespaces: Map<Arc<[u8]>, Presence>,
    reverse: Reverse,
    /// What addresses point to that services have for those outside.
    pub(crate) external: Reverse,
    pods: Map<IpAddr, Arc<[PodAt]>>,
    /// Names that pods of this node have elsewhere than in the cluster's domain.
    aliases: Arc<Aliases>,
}

/// Addresses by name (wire form, lower case), a set for each family.
type Aliases = HashMap<Box<[u8]>, [AddressSet; 2]>;

/// Why a namespace exists: itself, or services in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Presence {
    object: bool,
    services: u32,
}

/// A pod at an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodAt {
    /// Its name.
    pub(crate) name: ObjectName,
    /// Its search path is that of its namespace, and the address is its own.
    pub(crate) is_plain: bool,
}

/// What the zone has for a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<'z> {
    /// The name is not the cluster's.
    NotOurs,
    /// There is no such name, nor any below it.
    NxDomain,
    /// The name exists without records of the type.
    NoData,
    /// Address records.
    Addresses(&'z AddressSet),
    /// Addresses of endpoints, of both families.
    Hosts(&'z [Host]),
    /// One address.
    Address(IpAddr),
    /// Another name.
    Alias(&'z WireName),
    /// SRV records of these ports of a service.
    Srv(&'z Arc<[u8]>, &'z ServiceRecords, &'z [Port]),
    /// PTR records.
    Pointers(&'z [Pointer]),
    /// SRV records of these ports of a service for those outside; of one of its endpoints alone, where there is one.
    ExternalSrv(&'z [u8], &'z ServiceRecords, &'z [Port], Option<&'z Host>),
    /// PTR records of addresses that services have for those outside.
    ExternalPointers(&'z [Pointer]),
    /// The zone's SOA record.
    Soa,
    /// The zone's NS record.
    Ns,
    /// The version of the schema.
    Version,
    /// The name exists; what it has is not told all at once (RFC 8482).
    Any,
}

impl PartialEq for Zone {
    /// Equal in what they answer; the serial does not count.
    fn eq(&self, other: &Self) -> bool {
        (
            &self.origin,
            &self.services,
            &self.namespaces,
            &self.reverse,
            &self.external,
            &self.pods,
            &self.aliases,
        ) == (
            &other.origin,
            &other.services,
            &other.namespaces,
            &other.reverse,
            &other.external,
            &other.pods,
            &other.aliases,
        )
    }
}

impl Zone {
    /// A zone of no services.
    pub(crate) fn new(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            serial: 0,
            is_stale: false,
            services: Map::default(),
            namespaces: Map::default(),
            reverse: Reverse::default(),
            external: Reverse::default(),
            pods: Map::default(),
            aliases: Arc::default(),
        }
    }

    /// Puts a service in the place of the one with its key, or takes that away.
    pub(crate) fn set_service(&mut self, key: &Arc<[u8]>, records: Option<ServiceRecords>) {
        let namespace = namespace_of(key);
        if let Some(old) = self.services.remove(key) {
            for (address, pointer) in pointers(key, &old) {
                self.reverse.remove(address, &pointer);
            }
            for address in external_addresses(&old) {
                self.external.remove(address, &Pointer { host: None, service: key.clone() });
            }
            self.change_namespace(namespace, |presence| presence.services -= 1);
        }
        if let Some(records) = records {
            let records = Arc::new(records);
            for (address, pointer) in pointers(key, &records) {
                self.reverse.add(address, pointer);
            }
            for address in external_addresses(&records) {
                self.external.add(address, Pointer { host: None, service: key.clone() });
            }
            self.services.insert(key.clone(), records);
            self.change_namespace(namespace, |presence| presence.services += 1);
        }
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

    /// What there is for a name and a type.
    pub(crate) fn find(&self, name: &QueryName, qtype: u16) -> Found<'_> {
        if let Some(origin) = &self.origin.external
            && let Some(found) = self.find_external(origin, name, qtype)
        {
            return found;
        }
        if let Some((above, _)) = self.origin.above(name) {
            return self.find_below(name, above, qtype);
        }
        self.find_elsewhere(name, qtype)
    }

    /// `above`: how many labels stand before the zone's name.
    fn find_below(&self, name: &QueryName, above: usize, qtype: u16) -> Found<'_> {
        let Some(top) = above.checked_sub(1) else {
            return match qtype {
                rtype::SOA => Found::Soa,
                rtype::NS => Found::Ns,
                _ => nothing(qtype),
            };
        };
        match (name.label(top), top) {
            (b"svc" | b"pod", 0) | (b"dns", 0) => nothing(qtype),
            (b"svc", _) => self.find_service(name, top, qtype),
            (b"pod", _) => self.find_pod(name, top, qtype),
            (b"dns-version", 0) if qtype == rtype::TXT => Found::Version,
            (b"dns-version", 0) => nothing(qtype),
            (b"dns", 1) if name.label(0) == b"ns" => match qtype {
                rtype::A => addresses(&self.origin.server_v4),
                rtype::AAAA => addresses(&self.origin.server_v6),
                _ => nothing(qtype),
            },
            _ => Found::NxDomain,
        }
    }

    /// `svc`: the place of that label; at least one stands before it.
    fn find_service(&self, name: &QueryName, svc: usize, qtype: u16) -> Found<'_> {
        if !self.namespaces.contains_key(name.labels(svc - 1, svc)) {
            return Found::NxDomain;
        }
        let Some(below) = svc.checked_sub(2) else { return nothing(qtype) };
        let Some((key, records)) =
            self.services.get_key_value(name.labels(below, svc)).filter(|(_, records)| records.exists)
        else {
            return Found::NxDomain;
        };
        if below == 0 {
            return find_at_service(key, records, qtype);
        }
        if below == 1 {
            let hosts = records.hosts_at(name.label(0));
            let is_protocol = protocol(name.label(0)).is_some_and(|p| records.has_protocol(p));
            return match qtype {
                _ if hosts.is_empty() && !is_protocol => Found::NxDomain,
                rtype::A if hosts.iter().any(|h| h.address.is_ipv4()) => Found::Hosts(hosts),
                rtype::AAAA if hosts.iter().any(|h| h.address.is_ipv6()) => Found::Hosts(hosts),
                _ => nothing(qtype),
            };
        }
        let port = match (name.label(0).strip_prefix(b"_"), protocol(name.label(1)), below) {
            (Some(port), Some(protocol), 2) => records.port(protocol, port),
            _ => None,
        };
        match (port, qtype) {
            (None, _) => Found::NxDomain,
            (Some(port), rtype::SRV) => Found::Srv(key, records, std::slice::from_ref(port)),
            (Some(_), _) => nothing(qtype),
        }
    }

    /// `pod`: the place of that label; at least one stands before it.
    fn find_pod(&self, name: &QueryName, pod: usize, qtype: u16) -> Found<'_> {
        let namespace = name.labels(pod - 1, pod);
        if self.origin.pods == PodRecords::Disabled || !self.namespaces.contains_key(namespace) {
            return Found::NxDomain;
        }
        let address = match pod - 1 {
            0 => return nothing(qtype),
            1 => name::undashed(name.label(0)),
            _ => None,
        };
        let Some(address) = address else { return Found::NxDomain };
        let is_known = || {
            let same = |pod: &PodAt| pod.name.namespace.as_bytes().eq_ignore_ascii_case(&namespace[1..]);
            self.pods.get(&address).is_some_and(|pods| pods.iter().any(same))
        };
        if self.origin.pods == PodRecords::Verified && !is_known() {
            return Found::NxDomain;
        }
        match qtype {
            rtype::A if address.is_ipv4() => Found::Address(address),
            rtype::AAAA if address.is_ipv6() => Found::Address(address),
            _ => nothing(qtype),
        }
    }

    /// What is not in the cluster's domain.
    fn find_elsewhere(&self, name: &QueryName, qtype: u16) -> Found<'_> {
        if let Some(pointers) = name::reverse_address(name.rev_labels()).and_then(|a| self.reverse.get(a)) {
            // An address of a service belongs to the first of them; endpoints are all named.
            let first_host = pointers.partition_point(|pointer| pointer.host.is_none());
            let told = if first_host > 0 { &pointers[..1] } else { pointers };
            return if qtype == rtype::PTR { Found::Pointers(told) } else { nothing(qtype) };
        }
        if let Some(sets) = self.aliases.get(name.as_bytes()) {
            return match qtype {
                rtype::A => addresses(&sets[0]),
                rtype::AAAA => addresses(&sets[1]),
                _ => nothing(qtype),
            };
        }
        if self.origin.reverse_fallthrough {
            return Found::NotOurs;
        }
        match self.origin.covers(name) {
            Some(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => Found::NxDomain,
            Some(_) => nothing(qtype),
            None => Found::NotOurs,
        }
    }

    /// The namespace of the one pod that has this address, if its search path is that of the namespace.
    pub(crate) fn namespace_of_pod(&self, address: IpAddr) -> Option<&str> {
        match &**self.pods.get(&address)? {
            [pod] if pod.is_plain => Some(&pod.name.namespace),
            _ => None,
        }
    }

    /// Whether there is a namespace of this label (in wire form).
    pub(crate) fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.contains_key(label)
    }

    /// The service with this key.
    pub(crate) fn service(&self, key: &[u8]) -> Option<(&[u8], &ServiceRecords)> {
        self.services.get_key_value(key).map(|(key, records)| (&**key, &**records))
    }

    /// The service that has an address at which we are asked.
    pub(crate) fn dns_service(&self) -> Option<&ServiceRecords> {
        let mut addresses = self.origin.server_v4.addresses().chain(self.origin.server_v6.addresses());
        let pointers = addresses.find_map(|address| self.reverse.get(address))?;
        let own = pointers.first().filter(|pointer| pointer.host.is_none())?;
        self.services.get(&own.service).map(|records| &**records)
    }

    /// The namespaces (their labels in wire form) that exist by themselves.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.namespaces.iter().filter(|(_, presence)| presence.object).map(|(label, _)| label)
    }

    /// The services and their records.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<ServiceRecords>)> {
        self.services.iter()
    }
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

fn find_at_service<'z>(key: &'z Arc<[u8]>, records: &'z ServiceRecords, qtype: u16) -> Found<'z> {
    match (qtype, &records.alias) {
        (rtype::ANY, _) => Found::Any,
        // What it stands for has ports of its own; CoreDNS tells none either.
        (rtype::SRV, Some(_)) => Found::NoData,
        (_, Some(alias)) => Found::Alias(alias),
        (rtype::A, None) => addresses(&records.v4),
        (rtype::AAAA, None) => addresses(&records.v6),
        (rtype::SRV, None) if !records.ports.is_empty() => Found::Srv(key, records, &records.ports),
        _ => Found::NoData,
    }
}

pub(crate) fn addresses(set: &AddressSet) -> Found<'_> {
    if set.is_empty() { Found::NoData } else { Found::Addresses(set) }
}

/// What a name has that exists without records of the type asked for.
pub(crate) fn nothing<'z>(qtype: u16) -> Found<'z> {
    if qtype == rtype::ANY { Found::Any } else { Found::NoData }
}

pub(crate) fn protocol(label: &[u8]) -> Option<Protocol> {
    match label {
        b"_tcp" => Some(Protocol::Tcp),
        b"_udp" => Some(Protocol::Udp),
        b"_sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The second label of a service's key, its length before it.
fn namespace_of(key: &[u8]) -> &[u8] {
    key.get(1 + key.first().map_or(0, |length| usize::from(*length))..).unwrap_or_default()
}
