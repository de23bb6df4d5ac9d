//! From cluster facts to the records of one service: pure.

use std::{net::IpAddr, sync::Arc};

use sluice_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceKind};

use crate::{
    DnsConfig,
    external::ExternalRecords,
    name::{WireName, dashed, push_label},
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
}

/// One address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    /// The label below the service's name, its length before it, lower case.
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
    let slices: Vec<_> = slices.collect();
    let hosts = hosts(&slices, options);
    let is_empty = hosts.is_empty();
    let hosts = if options.endpoints { hosts } else { Box::default() };
    let (ports, addresses) = if service.headless {
        (endpoint_ports(&slices, &hosts, options), hosts.iter().map(|host| host.address).collect())
    } else {
        (service_ports(service), service.cluster_ips.clone())
    };
    let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
    ServiceRecords {
        exists: if service.headless { !hosts.is_empty() } else { !(is_empty && options.ignore_empty) },
        headless: service.headless,
        alias: None,
        v4: AddressSet::new(v4, options.ttl),
        v6: AddressSet::new(v6, options.ttl),
        hosts,
        ports,
        external: None,
    }
}

/// Each ready address of the slices with its label.
fn ready<'a>(
    slice: &'a EndpointSlice,
    options: &'a RecordOptions,
) -> impl Iterator<Item = (IpAddr, Vec<u8>)> + 'a {
    slice.endpoints.iter().filter(|endpoint| endpoint.ready).flat_map(move |endpoint| {
        endpoint.addresses.iter().filter_map(move |address| {
            let pod = || endpoint.pod.as_ref().map(|pod| &*pod.name).filter(|name| name.len() <= 63);
            let name = endpoint.hostname.as_deref().or_else(|| pod().filter(|_| options.endpoint_pod_names));
            let mut label = Vec::new();
            // A name that cannot be a label is passed over, as if there were none.
            let named =
                name.is_some_and(|name| !name.contains('.') && push_label(&mut label, name.as_bytes()));
            (named || push_label(&mut label, dashed(*address).as_bytes())).then_some((*address, label))
        })
    })
}

fn hosts(slices: &[&EndpointSlice], options: &RecordOptions) -> Box<[Host]> {
    let mut hosts: Vec<Host> = slices
        .iter()
        .flat_map(|slice| ready(slice, options))
        .map(|(address, label)| Host { label: label.into(), address })
        .collect();
    // The length stands before the label: order by the label itself, which is what lookups have.
    hosts.sort_unstable_by(|a, b| (&a.label[1..], a.address).cmp(&(&b.label[1..], b.address)));
    hosts.dedup();
    hosts.into_boxed_slice()
}

/// The ports that a service itself has.
pub(crate) fn service_ports(service: &Service) -> Box<[Port]> {
    let port = |port: &sluice_model::ServicePort| Port {
        protocol: port.protocol,
        name: lower(&port.name),
        targets: Targets::Service(port.port),
    };
    service.ports.iter().map(port).collect()
}

fn endpoint_ports(slices: &[&EndpointSlice], hosts: &[Host], options: &RecordOptions) -> Box<[Port]> {
    let mut found: Vec<(Protocol, Box<[u8]>, u32, u16)> = Vec::new();
    for slice in slices {
        let places: Vec<u32> = ready(slice, options)
            .map(|(_, label)| hosts.partition_point(|host| host.label[1..] < label[1..]) as u32)
            .collect();
        for port in &slice.ports {
            found.extend(places.iter().map(|place| (port.protocol, lower(&port.name), *place, port.port)));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
        .chunk_by(|a, b| (a.0, &a.1) == (b.0, &b.1))
        .map(|same| Port {
            protocol: same[0].0,
            name: same[0].1.clone(),
            targets: Targets::Hosts(same.iter().map(|found| (found.2, found.3)).collect()),
        })
        .collect()
}

fn lower(name: &str) -> Box<[u8]> {
    name.to_ascii_lowercase().into_bytes().into_boxed_slice()
}
