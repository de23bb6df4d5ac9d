//! From cluster facts to the records of one service: pure.

mod endpoints;

use std::{net::IpAddr, sync::Arc};

use sluice_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceImport, ServiceKind};

use self::endpoints::Endpoints;

use crate::{
    DnsConfig,
    external::ExternalRecords,
    name::{WireName, push_label},
    records::AddressSet,
};

/// What of the configuration decides about records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordOptions {
    /// Time to live.
    pub(crate) ttl: u32,
    /// Endpoints without a host name go by their pod's name.
    pub(crate) endpoint_pod_names: bool,
    /// Endpoints have names, and headless services their addresses.
    pub(crate) endpoints: bool,
    /// Services without a ready endpoint do not exist.
    pub(crate) ignore_empty: bool,
    /// Time to live of services' records for those outside; none: there are none.
    pub(crate) external_ttl: Option<u32>,
    /// Headless services have names for each topology zone.
    pub(crate) zonal: bool,
}

impl RecordOptions {
    /// What a configuration says of them.
    pub(crate) fn new(config: &DnsConfig) -> Self {
        Self {
            ttl: config.ttl,
            endpoint_pod_names: config.endpoint_pod_names,
            endpoints: config.endpoints,
            ignore_empty: config.ignore_empty_services,
            external_ttl: config.external.as_ref().map(|external| external.ttl),
            zonal: config.zonal,
        }
    }
}

/// All that DNS says of one service. What stands below its name follows from it, so that a name's
/// ancestors exist with it, and one value is all that a change replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceRecords {
    /// False for a headless service of which no endpoint is ready: then there is no such name.
    pub(crate) exists: bool,
    /// Endpoints are reached by name: the addresses are theirs.
    pub(crate) headless: bool,
    /// The name that an ExternalName service stands for.
    pub(crate) alias: Option<WireName>,
    /// A records.
    pub(crate) v4: AddressSet,
    /// AAAA records.
    pub(crate) v6: AddressSet,
    /// Endpoints, sorted; a label with several addresses is there several times.
    pub(crate) hosts: Box<[Host]>,
    /// Ports by protocol and name.
    pub(crate) ports: Box<[Port]>,
    /// What the service is to those outside, where that is wanted and there is a way in.
    pub(crate) external: Option<Box<ExternalRecords>>,
    /// What there is of it in each topology zone, where those have names.
    pub(crate) zones: Box<[TopologyZone]>,
}

/// What there is of a headless service in a topology zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopologyZone {
    /// The zone's name, which may have dots in it: labels in wire form, lower case.
    pub(crate) name: Box<[u8]>,
    /// Its ready endpoints there, at least one.
    pub(crate) records: ServiceRecords,
}

/// One address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    /// The label below the service's name, its length before it, lower case. Of an import, that of the cluster follows.
    pub(crate) label: Arc<[u8]>,
    /// The address.
    pub(crate) address: IpAddr,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// Its name, lower case, without underscore; empty where it has none.
    pub(crate) name: Box<[u8]>,
    /// Where it is.
    pub(crate) targets: Targets,
}

/// Where a port is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// On the service's own name.
    Service(u16),
    /// On endpoints: the place of the first of [`ServiceRecords::hosts`] with the endpoint's label, and the port.
    Hosts(Box<[(u32, u16)]>),
}

impl Port {
    /// How many SRV records it gives.
    pub(crate) fn count(&self) -> usize {
        match &self.targets {
            Targets::Service(_) => 1,
            Targets::Hosts(hosts) => hosts.len(),
        }
    }
}

impl ServiceRecords {
    /// The hosts with this label (without its length).
    pub(crate) fn hosts_at(&self, label: &[u8]) -> &[Host] {
        let from = self.hosts.partition_point(|host| host.label[1..] < *label);
        let count = self.hosts[from..].partition_point(|host| host.label[1..] == *label);
        &self.hosts[from..from + count]
    }

    /// The hosts with these labels in wire form.
    pub(crate) fn hosts_of(&self, labels: &[u8]) -> &[Host] {
        let hosts = self.hosts_at(labels.get(1..).unwrap_or_default());
        // Two labels could be written as a single one of the same bytes.
        if hosts.first().is_some_and(|host| *host.label == *labels) { hosts } else { &[] }
    }

    /// What there is in a topology zone, by its labels in wire form.
    pub(crate) fn zone(&self, name: &[u8]) -> Option<&Self> {
        let place = self.zones.binary_search_by(|zone| (*zone.name).cmp(name)).ok()?;
        Some(&self.zones[place].records)
    }

    /// The hosts with the same label as the one at `place`, which is the first of them.
    pub(crate) fn hosts_like(&self, place: usize) -> &[Host] {
        let rest = self.hosts.get(place..).unwrap_or_default();
        let count =
            rest.first().map_or(0, |first| rest.iter().take_while(|h| h.label == first.label).count());
        &rest[..count]
    }

    /// The port of this protocol and name.
    pub(crate) fn port(&self, protocol: Protocol, name: &[u8]) -> Option<&Port> {
        self.ports.iter().find(|port| port.protocol == protocol && *port.name == *name && !name.is_empty())
    }

    /// Whether a named port has this protocol, so that the label `_<protocol>` exists.
    pub(crate) fn has_protocol(&self, protocol: Protocol) -> bool {
        self.ports.iter().any(|port| port.protocol == protocol && !port.name.is_empty())
    }
}

/// The key under which the zone holds a service: its two labels in wire form, lower case. `None` where they
/// cannot be labels, and the service has no name in DNS.
pub(crate) fn service_key(name: &ObjectName) -> Option<Arc<[u8]>> {
    let mut key = Vec::with_capacity(name.name.len() + name.namespace.len() + 2);
    let good = push_label(&mut key, name.name.as_bytes()) && push_label(&mut key, name.namespace.as_bytes());
    let dotted = name.name.contains('.') || name.namespace.contains('.');
    (good && !dotted).then(|| key.into())
}

/// The records of a service with these slices.
pub(crate) fn service_records<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    options: &RecordOptions,
) -> ServiceRecords {
    let external = options.external_ttl.and_then(|ttl| ExternalRecords::new(service, ttl)).map(Box::new);
    ServiceRecords { external, ..inner_records(service, slices, options) }
}

/// What the service is within the cluster.
fn inner_records<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    options: &RecordOptions,
) -> ServiceRecords {
    if service.kind == ServiceKind::ExternalName {
        // An address in the place of a name is not followed: the name exists and has no records.
        let name = service.external_name.as_deref().filter(|name| name.parse::<IpAddr>().is_err());
        let alias = name.and_then(WireName::parse);
        return ServiceRecords { exists: true, alias, ..ServiceRecords::default() };
    }
    let endpoints = Endpoints::new(slices, options);
    if service.headless {
        return headless_records(&endpoints, options);
    }
    address_records(service.cluster_ips.clone(), service_ports(service), &endpoints, options)
}

/// The records of an import with these slices. Its endpoints have names whatever the options say, as with CoreDNS.
pub(crate) fn import_records<'a>(
    import: &ServiceImport,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    options: &RecordOptions,
) -> ServiceRecords {
    let options = RecordOptions { endpoints: true, zonal: false, ..options.clone() };
    let endpoints = Endpoints::of_clusters(slices, &options);
    if import.headless {
        return headless_records(&endpoints, &options);
    }
    let ports = import.ports.iter().map(|port| service_port(port.protocol, &port.name, port.port));
    address_records(import.ips.clone(), ports.collect(), &endpoints, &options)
}

/// The records of a service that is reached at addresses of its own.
fn address_records(
    addresses: Vec<IpAddr>,
    ports: Box<[Port]>,
    endpoints: &Endpoints<'_>,
    options: &RecordOptions,
) -> ServiceRecords {
    let hosts = endpoints.hosts(None);
    let exists = !(hosts.is_empty() && options.ignore_empty);
    let hosts = if options.endpoints { hosts } else { Box::default() };
    let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
    ServiceRecords {
        exists,
        v4: AddressSet::new(v4, options.ttl),
        v6: AddressSet::new(v6, options.ttl),
        hosts,
        ports,
        ..ServiceRecords::default()
    }
}

/// The records of a service whose addresses are those of its endpoints.
fn headless_records(endpoints: &Endpoints<'_>, options: &RecordOptions) -> ServiceRecords {
    if !options.endpoints {
        return ServiceRecords { headless: true, ..ServiceRecords::default() };
    }
    let records = |zone: Option<&str>| {
        let hosts = endpoints.hosts(zone);
        let (v4, v6) = hosts.iter().map(|host| host.address).partition(IpAddr::is_ipv4);
        ServiceRecords {
            exists: !hosts.is_empty(),
            headless: true,
            v4: AddressSet::new(v4, options.ttl),
            v6: AddressSet::new(v6, options.ttl),
            ports: endpoints.ports(&hosts, zone),
            hosts,
            ..ServiceRecords::default()
        }
    };
    let zones = endpoints.zones().filter(|_| options.zonal).filter_map(|zone| {
        // A name that no question can ask for is passed over.
        let mut name = Vec::new();
        let is_name = zone.split('.').all(|label| push_label(&mut name, label.as_bytes()));
        is_name.then(|| TopologyZone { name: name.into(), records: records(Some(zone)) })
    });
    let mut zones: Vec<_> = zones.collect();
    zones.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    zones.dedup_by(|a, b| a.name == b.name);
    ServiceRecords { zones: zones.into(), ..records(None) }
}

/// The ports that a service itself has.
pub(crate) fn service_ports(service: &Service) -> Box<[Port]> {
    service.ports.iter().map(|port| service_port(port.protocol, &port.name, port.port)).collect()
}

fn service_port(protocol: Protocol, name: &str, number: u16) -> Port {
    Port { protocol, name: lower(name), targets: Targets::Service(number) }
}

fn lower(name: &str) -> Box<[u8]> {
    name.to_ascii_lowercase().into_bytes().into_boxed_slice()
}
