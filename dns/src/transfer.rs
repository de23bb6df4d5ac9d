//! The whole zone, for a server that asks to have it (AXFR, RFC 5936): where the configuration lets it, over TCP.
//!
//! An IXFR gets the same, or the SOA record alone where the client has what there is (RFC 1995, 2 and 4).

use std::net::IpAddr;

use crate::{
    ConfigError, DnsConfig, Transfer,
    answer::{push_data, push_soa, push_version, soa_ttl, srv_weight},
    clients::Clients,
    desired::{Port, ServiceRecords, Targets},
    external,
    name::WireName,
    query::{Query, QueryName},
    records::{push_address, push_head},
    reply::{Reply, Section},
    wire::{QUESTION_POINTER, Rcode, record_at, rtype, u16_at, u32_at},
    zone::{Zone, schema},
};

/// Who may have which zones.
#[derive(Debug, Default)]
pub(crate) struct Transfers(Vec<(Vec<WireName>, Clients)>);

impl Transfers {
    /// Reads the configuration.
    pub(crate) fn new(config: &DnsConfig) -> Result<Self, ConfigError> {
        let name = |zone: &String| WireName::parse(zone).ok_or_else(|| ConfigError::Zone(zone.clone()));
        let read = |transfer: &Transfer| {
            let zones = transfer.zones.iter().map(name).collect::<Result<_, _>>()?;
            Ok((zones, Clients::new(&transfer.to)))
        };
        config.transfers.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a client may have the zone of this name: what is said of the longest domain that it ends with counts.
    pub(crate) fn allow(&self, name: &QueryName, client: IpAddr) -> bool {
        let ends = |zone: &&WireName| name.labels_before(zone.as_bytes()).is_some();
        let length = |zones: &[WireName]| zones.iter().filter(ends).map(|zone| zone.as_bytes().len()).max();
        let said = self.0.iter().filter_map(|(zones, to)| Some((length(zones)?, to)));
        said.max_by_key(|(length, _)| *length).is_some_and(|(_, to)| to.contain(client))
    }
}

/// The messages that tell the cluster's zone as a whole, or that of those outside; `reply` starts each of them.
pub(crate) fn messages(
    zone: &Zone,
    query: &Query<'_>,
    reply: impl for<'o> Fn(&'o mut Vec<u8>) -> Reply<'o>,
) -> Vec<Vec<u8>> {
    let records = || match zone.origin.outside(&query.name) {
        Some((external, _, _)) => external::records(zone, external, &query.name),
        None => records(zone, &query.name),
    };
    told(zone.serial, || soa(zone, &query.name), records, query, reply)
}

/// The messages that tell a zone of this serial number, SOA record and records. An IXFR that names no serial is refused with
/// a code.
pub(crate) fn told(
    serial: u32,
    soa: impl FnOnce() -> Vec<u8>,
    records: impl FnOnce() -> Vec<Vec<u8>>,
    query: &Query<'_>,
    reply: impl for<'o> Fn(&'o mut Vec<u8>) -> Reply<'o>,
) -> Vec<Vec<u8>> {
    let known = if query.qtype == rtype::IXFR { serial_of(query) } else { Some(None) };
    let (records, rcode) = match known {
        None => (Vec::new(), Rcode::ServFail),
        Some(known) if known == Some(serial) => (vec![soa()], Rcode::NoError),
        Some(_) => (records(), Rcode::NoError),
    };
    let mut messages = Vec::new();
    let mut rest = records.iter().peekable();
    loop {
        let mut message = Vec::new();
        let mut reply = reply(&mut message);
        while let Some(record) = rest.next_if(|record| reply.fits(record.len())) {
            reply.record(Section::Answer, |out| out.extend(record));
        }
        reply.finish(rcode);
        messages.push(message);
        // One that fits into no message is longer than any that we make.
        if rest.peek().is_none() || messages.last().is_some_and(|message| u16_at(message, 6) == Some(0)) {
            return messages;
        }
    }
}

/// The serial number that an IXFR says the client has.
fn serial_of(query: &Query<'_>) -> Option<Option<u32>> {
    let record = record_at(query.message, query.question_end).filter(|record| record.rtype == rtype::SOA)?;
    u32_at(query.message, record.end.checked_sub(20)?).map(Some)
}

/// A record whose owner is some labels before the question's name.
pub(crate) fn record(rtype: u16, owner: &[u8], ttl: u32, data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = owner.to_vec();
    push_head(&mut out, QUESTION_POINTER, rtype, ttl);
    push_data(&mut out, data);
    out
}

/// An address record of that kind.
pub(crate) fn address(owner: &[u8], address: IpAddr, ttl: u32) -> Vec<u8> {
    let mut out = owner.to_vec();
    push_address(&mut out, QUESTION_POINTER, address, ttl);
    out
}

/// The SOA record of the domain asked for.
pub(crate) fn soa(zone: &Zone, asked: &QueryName) -> Vec<u8> {
    let pointer = QUESTION_POINTER.to_be_bytes();
    record(rtype::SOA, b"", soa_ttl(zone, asked), |out| push_soa(out, zone, asked, &pointer))
}

/// The labels of a port that has a name, before its service's.
pub(crate) fn port_labels(port: &Port) -> Vec<u8> {
    let labels = [&port.name[..], port.protocol.to_string().as_bytes()].map(|label| {
        let label = label.to_ascii_lowercase();
        [&[label.len() as u8 + 1, b'_'][..], &label].concat()
    });
    labels.concat()
}

/// All records of the zone, each with the question's name behind its owner: those of services, in the order of their
/// names, between two copies of the SOA record. Names of pods are no records of it.
fn records(zone: &Zone, asked: &QueryName) -> Vec<Vec<u8>> {
    let ttl = zone.origin.options.ttl;
    let mut all = vec![soa(zone, asked)];
    all.push(record(rtype::NS, b"", ttl, |out| {
        out.extend(b"\x02ns\x03dns");
        out.extend(QUESTION_POINTER.to_be_bytes());
    }));
    let servers = zone.origin.server_v4.addresses().chain(zone.origin.server_v6.addresses());
    all.extend(servers.map(|server| address(b"\x02ns\x03dns", server, ttl)));
    let mut version = b"\x0bdns-version".to_vec();
    let of_clusters = zone.origin.is_multicluster(zone.origin.domain_of(asked));
    push_version(&mut version, QUESTION_POINTER, schema(of_clusters));
    all.push(version);
    let services = if of_clusters { zone.imports().collect() } else { zone.services().collect::<Vec<_>>() };
    let mut services: Vec<_> = services.into_iter().filter(|(_, records)| records.exists).collect();
    services.sort_unstable_by_key(|(key, _)| *key);
    for (key, records) in services {
        add_service(&mut all, key, records, ttl, asked);
    }
    all.push(soa(zone, asked));
    all
}

fn add_service(all: &mut Vec<Vec<u8>>, key: &[u8], service: &ServiceRecords, ttl: u32, asked: &QueryName) {
    let owner = [key, b"\x03svc"].concat();
    if let Some(alias) = &service.alias {
        all.push(record(rtype::CNAME, &owner, ttl, |out| out.extend(alias.as_bytes())));
    }
    let addresses = service.v4.addresses().chain(service.v6.addresses());
    all.extend(addresses.map(|ip| address(&owner, ip, ttl)));
    let below = |label: &[u8]| [label, &owner].concat();
    all.extend(service.hosts.iter().map(|host| address(&below(&host.label), host.address, ttl)));
    let every: usize = service.ports.iter().map(Port::count).sum();
    for port in &service.ports {
        // The service's own name has all ports, a port's name its own.
        let mut owners = vec![(owner.clone(), every)];
        if !port.name.is_empty() {
            owners.push(([&port_labels(port), &owner[..]].concat(), port.count()));
        }
        let targets: Vec<(&[u8], u16)> = match &port.targets {
            Targets::Service(number) => vec![(b"", *number)],
            Targets::Hosts(hosts) => {
                let label = |(place, number): &(u32, u16)| {
                    Some((&*service.hosts.get(*place as usize)?.label, *number))
                };
                hosts.iter().filter_map(label).collect()
            }
        };
        for (owner_of, count) in owners {
            let weight = srv_weight(count);
            all.extend(targets.iter().map(|(label, number)| {
                record(rtype::SRV, &owner_of, ttl, |out| {
                    out.extend([0, weight, *number].into_iter().flat_map(u16::to_be_bytes));
                    out.extend(below(label));
                    // A target is never compressed (RFC 2782).
                    out.extend(asked.as_bytes());
                })
            }));
        }
    }
}
