//! The answers of our own zone, written straight into the message.

use std::net::IpAddr;

use crate::{
    desired::{Host, Port, ServiceRecords, Targets},
    name::WireName,
    query::{Query, QueryName},
    records::{RECORD_HEAD, address_type, push_address, push_head},
    reply::{Reply, Section},
    wire::{QUESTION_POINTER, Rcode, rtype},
    zone::{Found, Pointer, Zone},
};

/// How many aliases are followed one after the other.
pub(crate) const MAX_ALIASES: usize = 8;
/// The version of the Kubernetes DNS specification that the zone follows.
const SCHEMA: &[u8] = b"1.1.0";
const SCHEMA_TTL: u32 = 28_800;
/// RFC 8482, 4.2.
const ANY_TTL: u32 = 3600;

/// How an answer of the zone ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The name is not ours; nothing was written.
    NotOurs,
    /// Complete, with this code.
    Complete(Rcode),
    /// The last alias leads out of the cluster to this name; the records so far are written.
    Leaves(WireName),
}

/// Writes what the zone says to a query. `turn` decides which of several addresses comes first.
pub(crate) fn write(zone: &Zone, query: &Query<'_>, turn: u32, reply: &mut Reply<'_>) -> Written {
    write_from(zone, query, zone.find(&query.name, query.qtype), turn, reply)
}

/// Writes an answer that says that the name asked for is an alias of `target`, and what the zone says of that.
pub(crate) fn write_alias(
    zone: &Zone,
    query: &Query<'_>,
    target: &WireName,
    turn: u32,
    reply: &mut Reply<'_>,
) -> Written {
    write_from(zone, query, Found::Alias(target), turn, reply)
}

fn write_from<'f>(
    zone: &'f Zone,
    query: &Query<'_>,
    mut found: Found<'f>,
    turn: u32,
    reply: &mut Reply<'_>,
) -> Written {
    let mut owner = QUESTION_POINTER;
    for _ in 0..=MAX_ALIASES {
        let Found::Alias(alias) = found else {
            return Written::Complete(match write_found(zone, query, &found, owner, turn, reply) {
                Some(rcode) => rcode,
                None => return Written::NotOurs,
            });
        };
        let Some(target) = reply.pointer(RECORD_HEAD) else { break };
        let ttl = zone.origin.options.ttl;
        let written = reply.record(Section::Answer, |out| {
            push_head(out, owner, rtype::CNAME, ttl);
            push_data(out, |out| out.extend(alias.as_bytes()));
        });
        if !written || query.qtype == rtype::CNAME {
            return Written::Complete(Rcode::NoError);
        }
        owner = target;
        let Some((name, _)) = QueryName::read(alias.as_bytes(), 0) else { break };
        found = zone.find(&name, query.qtype);
        if found == Found::NotOurs {
            return Written::Leaves(alias.clone());
        }
    }
    // Aliases that lead in a circle.
    Written::Complete(Rcode::ServFail)
}

/// Writes records other than aliases; `None` where the name is not ours.
fn write_found(
    zone: &Zone,
    query: &Query<'_>,
    found: &Found<'_>,
    owner: u16,
    turn: u32,
    reply: &mut Reply<'_>,
) -> Option<Rcode> {
    let ttl = zone.origin.options.ttl;
    let first = |count: usize| turn as usize % count.max(1);
    match found {
        Found::NotOurs => return None,
        Found::Alias(_) => {}
        Found::NxDomain => {
            write_soa(zone, query, Section::Authority, reply);
            return Some(Rcode::NxDomain);
        }
        Found::NoData => write_soa(zone, query, Section::Authority, reply),
        Found::Soa => write_soa(zone, query, Section::Answer, reply),
        Found::Addresses(set) => reply.addresses(set, owner, first(set.count())),
        Found::Address(address) => {
            reply.record(Section::Answer, |out| push_address(out, owner, *address, ttl));
        }
        Found::Hosts(hosts) => write_hosts(hosts, query.qtype, owner, first(hosts.len()), ttl, reply),
        Found::Srv(key, records, ports) => {
            let domain = zone.origin.domain_of(&query.name);
            write_srv(zone, (key, domain), records, ports, owner, turn, reply);
        }
        Found::Pointers(pointers) => {
            for pointer in *pointers {
                let written = reply.record(Section::Answer, |out| {
                    push_head(out, owner, rtype::PTR, ttl);
                    push_data(out, |out| push_pointer(out, zone, pointer));
                });
                if !written {
                    break;
                }
            }
        }
        Found::Ns => write_ns(zone, zone.origin.domain_of(&query.name), owner, reply),
        Found::Version => {
            reply.record(Section::Answer, |out| push_version(out, owner));
        }
        Found::Any => {
            reply.record(Section::Answer, |out| {
                push_head(out, owner, rtype::HINFO, ANY_TTL);
                push_data(out, |out| out.extend(b"\x07RFC8482\0"));
            });
        }
    }
    Some(Rcode::NoError)
}

fn write_hosts(hosts: &[Host], qtype: u16, owner: u16, first: usize, ttl: u32, reply: &mut Reply<'_>) {
    let (head, tail) = hosts.split_at(first);
    for host in tail.iter().chain(head).filter(|host| address_type(host.address) == qtype) {
        if !reply.record(Section::Answer, |out| push_address(out, owner, host.address, ttl)) {
            break;
        }
    }
}

/// SRV records, and the addresses of their targets as far as they fit.
fn write_srv(
    zone: &Zone,
    (key, domain): (&[u8], &WireName),
    records: &ServiceRecords,
    ports: &[Port],
    owner: u16,
    turn: u32,
    reply: &mut Reply<'_>,
) {
    let ttl = zone.origin.options.ttl;
    let count: usize = ports.iter().map(Port::count).sum();
    let weight = (100 / count.max(1)).max(1) as u16;
    // Where each target's name was written first, for the owners of its addresses.
    let mut targets: Vec<(Option<u32>, u16)> = Vec::new();
    let mut srv = |host: Option<u32>, port: u16| {
        let target = reply.pointer(RECORD_HEAD + 6);
        let written = reply.record(Section::Answer, |out| {
            push_head(out, owner, rtype::SRV, ttl);
            push_data(out, |out| {
                out.extend(0_u16.to_be_bytes());
                out.extend(weight.to_be_bytes());
                out.extend(port.to_be_bytes());
                let label = host.and_then(|host| records.hosts.get(host as usize)).map(|host| &host.label);
                push_service_name(out, domain, label.map(|l| &**l), key);
            });
        });
        if written {
            targets.extend(target.map(|target| (host, target)));
        }
        written
    };
    'all: for port in ports {
        match &port.targets {
            Targets::Service(number) => {
                if !srv(None, *number) {
                    break 'all;
                }
            }
            Targets::Hosts(hosts) => {
                let (head, tail) = hosts.split_at(turn as usize % hosts.len().max(1));
                for (host, number) in tail.iter().chain(head) {
                    if !srv(Some(*host), *number) {
                        break 'all;
                    }
                }
            }
        }
    }
    targets.sort_by_key(|(host, _)| *host);
    targets.dedup_by_key(|(host, _)| *host);
    for (host, target) in targets {
        let all: &mut dyn Iterator<Item = IpAddr> = match host {
            None => &mut records.v4.addresses().chain(records.v6.addresses()),
            Some(host) => &mut records.hosts_like(host as usize).iter().map(|host| host.address),
        };
        for address in all {
            if !reply.record(Section::Additional, |out| push_address(out, target, address, ttl)) {
                return;
            }
        }
    }
}

fn write_ns(zone: &Zone, domain: &WireName, owner: u16, reply: &mut Reply<'_>) {
    let ttl = zone.origin.options.ttl;
    let Some(target) = reply.pointer(RECORD_HEAD) else { return };
    reply.record(Section::Answer, |out| {
        push_head(out, owner, rtype::NS, ttl);
        push_data(out, |out| {
            out.extend(b"\x02ns\x03dns");
            out.extend(domain.as_bytes());
        });
    });
    for address in zone.origin.server_v4.addresses().chain(zone.origin.server_v6.addresses()) {
        reply.record(Section::Additional, |out| push_address(out, target, address, ttl));
    }
}

/// The SOA record of the zone that the question's name is in: the cluster's, or the reverse tree.
fn write_soa(zone: &Zone, query: &Query<'_>, section: Section, reply: &mut Reply<'_>) {
    let ttl = zone.origin.options.ttl;
    let (in_zone, apex) = match zone.origin.above(&query.name) {
        Some((above, _)) => (true, above),
        None => (false, query.name.count().saturating_sub(2)),
    };
    let apex = QUESTION_POINTER + query.name.start(apex) as u16;
    reply.record(section, |out| {
        push_head(out, apex, rtype::SOA, ttl.min(300));
        push_data(out, |out| {
            let pointer = apex.to_be_bytes();
            push_soa(out, zone, if in_zone { &pointer } else { zone.origin.name.as_bytes() });
        });
    });
}

/// Appends the data of the zone's SOA record. `domain`: its name, or a pointer to that.
pub(crate) fn push_soa(out: &mut Vec<u8>, zone: &Zone, domain: &[u8]) {
    for labels in [&b"\x02ns\x03dns"[..], b"\x0ahostmaster"] {
        out.extend(labels);
        out.extend(domain);
    }
    for number in [zone.serial, 7200, 1800, 86_400, zone.origin.options.ttl] {
        out.extend(number.to_be_bytes());
    }
}

/// Appends the record that says which specification the zone follows, its owner's labels before it.
pub(crate) fn push_version(out: &mut Vec<u8>, owner: u16) {
    push_head(out, owner, rtype::TXT, SCHEMA_TTL);
    push_data(out, |out| {
        out.push(SCHEMA.len() as u8);
        out.extend(SCHEMA);
    });
}

fn push_pointer(out: &mut Vec<u8>, zone: &Zone, pointer: &Pointer) {
    push_service_name(out, &zone.origin.name, pointer.host.as_deref(), &pointer.service);
}

fn push_service_name(out: &mut Vec<u8>, domain: &WireName, host: Option<&[u8]>, service: &[u8]) {
    out.extend(host.unwrap_or_default());
    out.extend(service);
    out.extend(b"\x03svc");
    out.extend(domain.as_bytes());
}

/// Appends data with its length before it.
pub(crate) fn push_data(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0, 0]);
    write(out);
    let length = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}
