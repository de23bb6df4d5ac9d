//! The zone: an immutable value that says for every name whether it is ours, whether it exists and what
//! it has. NODATA and NXDOMAIN are told apart here and nowhere else.
//!
//! A service and all below it is one value under the key `service.namespace`, which stands in a query as
//! it stands in the map; a look-up is one hash of those bytes. The maps are persistent: a copy that differs
//! in one service shares everything else with the original.

mod change;
mod imports;
mod origin;
mod reverse;
mod zonal;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

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
    /// Services of a set of clusters, in domains of their own.
    imports: Map<Arc<[u8]>, Arc<ServiceRecords>>,
    namespaces: Map<Arc<[u8]>, Presence>,
    reverse: Reverse,
    /// What addresses point to that services have for those outside.
    pub(crate) external: Reverse,
    /// What addresses of imports point to, where they are no service's.
    imported: Reverse,
    pods: Map<IpAddr, Arc<[PodAt]>>,
    /// Names that pods of this node have elsewhere than in the cluster's domain.
    aliases: Arc<Aliases>,
}

/// Addresses by name (wire form, lower case), a set for each family.
type Aliases = HashMap<Box<[u8]>, [AddressSet; 2]>;

/// Why a namespace exists: itself, or services and imports in it.
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
    /// SRV records of these ports of a service for those outside; of one of its endpoints alone, where there is one.
    ExternalSrv(&'z [u8], &'z ServiceRecords, &'z [Port], Option<&'z Host>),
    /// PTR records of addresses that services have for those outside.
    ExternalPointers(&'z [Pointer]),
    /// PTR records that lead to names in a domain.
    Pointers(&'z WireName, &'z [Pointer]),
    /// The zone's SOA record.
    Soa,
    /// The zone's NS record.
    Ns,
    /// The version of the schema.
    Version(&'static [u8]),
    /// The name exists; what it has is not told all at once (RFC 8482).
    Any,
}

impl PartialEq for Zone {
    /// Equal in what they answer; the serial does not count.
    fn eq(&self, other: &Self) -> bool {
        (&self.origin, &self.services, &self.imports, &self.namespaces, &self.reverse, &self.imported)
            == (
                &other.origin,
                &other.services,
                &other.imports,
                &other.namespaces,
                &other.reverse,
                &other.imported,
            )
            && (&self.external, &self.pods, &self.aliases) == (&other.external, &other.pods, &other.aliases)
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
            imports: Map::default(),
            namespaces: Map::default(),
            reverse: Reverse::default(),
            external: Reverse::default(),
            imported: Reverse::default(),
            pods: Map::default(),
            aliases: Arc::default(),
        }
    }

    /// What there is for a name and a type.
    pub(crate) fn find(&self, name: &QueryName, qtype: u16) -> Found<'_> {
        if let Some(origin) = &self.origin.external
            && let Some(found) = self.find_external(origin, name, qtype)
        {
            return found;
        }
        if let Some((above, domain)) = self.origin.above(name) {
            return self.find_below(name, above, self.origin.is_multicluster(domain), qtype);
        }
        self.find_elsewhere(name, qtype)
    }

    /// `above`: how many labels stand before the domain's name; `of_clusters`: whether it is one of imports.
    fn find_below(&self, name: &QueryName, above: usize, of_clusters: bool, qtype: u16) -> Found<'_> {
        let Some(top) = above.checked_sub(1) else {
            return match qtype {
                rtype::SOA => Found::Soa,
                rtype::NS => Found::Ns,
                _ => nothing(qtype),
            };
        };
        match (name.label(top), top) {
            (b"svc" | b"pod", 0) | (b"dns", 0) => nothing(qtype),
            (b"svc", _) if of_clusters => self.find_import(name, top, qtype),
            (b"svc", _) => self.find_service(name, top, qtype),
            (b"pod", _) => self.find_pod(name, top, qtype),
            (b"dns-version", 0) if qtype == rtype::TXT => Found::Version(schema(of_clusters)),
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
        let Some((key, records)) = self.services.get_key_value(name.labels(below, svc)) else {
            return Found::NxDomain;
        };
        if self.origin.options.zonal && below > 0 && name.label(below - 1) == zonal::ANCHOR {
            return zonal::find(key, records, name, below - 1, qtype);
        }
        if !records.exists {
            return Found::NxDomain;
        }
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
        if below == 2 { find_port(key, records, name, qtype) } else { Found::NxDomain }
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
        if let Some((domain, pointers)) = self.pointers(name) {
            // An address of a service belongs to the first of them; endpoints are all named.
            let first_host = pointers.partition_point(|pointer| pointer.host.is_none());
            let told = if first_host > 0 { &pointers[..1] } else { pointers };
            return if qtype == rtype::PTR { Found::Pointers(domain, told) } else { nothing(qtype) };
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

    /// What a reverse name points to, and in which domain: a service's address before an import's.
    fn pointers(&self, name: &QueryName) -> Option<(&WireName, &[Pointer])> {
        let address = name::reverse_address(name.rev_labels())?;
        let own = self.reverse.get(address).map(|pointers| (&self.origin.name, pointers));
        own.or_else(|| Some((self.origin.multicluster.first()?, self.imported.get(address)?)))
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

    /// The imports and their records.
    pub(crate) fn imports(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<ServiceRecords>)> {
        self.imports.iter()
    }
}

/// The version of the specification that a domain follows: the multicluster one has numbers of its own.
pub(crate) fn schema(of_clusters: bool) -> &'static [u8] {
    if of_clusters { b"1.0.0" } else { b"1.1.0" }
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

/// `_port._protocol` before a service's name.
fn find_port<'z>(key: &'z Arc<[u8]>, records: &'z ServiceRecords, name: &QueryName, qtype: u16) -> Found<'z> {
    let port = match (name.label(0).strip_prefix(b"_"), protocol(name.label(1))) {
        (Some(port), Some(protocol)) => records.port(protocol, port),
        _ => None,
    };
    match (port, qtype) {
        (None, _) => Found::NxDomain,
        (Some(port), rtype::SRV) => Found::Srv(key, records, std::slice::from_ref(port)),
        (Some(_), _) => nothing(qtype),
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
