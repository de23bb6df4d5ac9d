//! The answers of our own zone, written straight into the message.

mod srv;

pub(crate) use self::srv::srv_weight;
use self::srv::{SrvTargets, write_srv};
use crate::{
    desired::Host,
    name::WireName,
    query::{Query, QueryName},
    records::{RECORD_HEAD, address_type, push_address, push_head},
    reply::{Reply, Section},
    wire::{QUESTION_POINTER, Rcode, rtype},
    zone::{Found, Pointer, Zone},
};

/// How many aliases are followed one after the other.
pub(crate) const MAX_ALIASES: usize = 8;
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
        let ttl = zone.origin.ttl(&query.name);
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
    let ttl = zone.origin.ttl(&query.name);
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
            let suffix: [&[u8]; 2] = [b"\x03svc", zone.origin.domain_of(&query.name).as_bytes()];
            let targets = SrvTargets::within(key, suffix, records, ports, ttl);
            write_srv(&targets, ports, owner, turn, reply);
        }
        Found::ExternalSrv(key, records, ports, only) => {
            let domain = zone.origin.outside(&query.name).map_or(&b"\0"[..], |(_, _, zone)| zone.as_bytes());
            let targets = SrvTargets::outside(key, [b"", domain], records, ports, *only, ttl);
            write_srv(&targets, ports, owner, turn, reply);
        }
        Found::ExternalPointers(pointers) => {
            let domain =
                zone.origin.external.as_ref().map_or(&b"\0"[..], |external| external.first.as_bytes());
            for pointer in *pointers {
                let written = reply.record(Section::Answer, |out| {
                    push_head(out, owner, rtype::PTR, ttl);
                    push_data(out, |out| {
                        out.extend(&*pointer.service);
                        out.extend(domain);
                    });
                });
                if !written {
                    break;
                }
            }
        }
        Found::Pointers(domain, pointers) => {
            for pointer in *pointers {
                let written = reply.record(Section::Answer, |out| {
                    push_head(out, owner, rtype::PTR, ttl);
                    push_data(out, |out| push_pointer(out, domain, pointer));
                });
                if !written {
                    break;
                }
            }
        }
        Found::Ns => write_ns(zone, &query.name, owner, reply),
        Found::Version(schema) => {
            reply.record(Section::Answer, |out| push_version(out, owner, schema));
        }
        Found::Any => {
            reply.record(Section::Answer, |out| push_any(out, owner));
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

fn write_ns(zone: &Zone, name: &QueryName, owner: u16, reply: &mut Reply<'_>) {
    let ttl = zone.origin.ttl(name);
    let (domain, labels, addresses) = match zone.origin.outside(name) {
        Some((external, _, domain)) => (domain, [b"\x03ns1", &*external.apex], zone.server_outside()),
        None => {
            let servers = zone.origin.server_v4.addresses().chain(zone.origin.server_v6.addresses());
            (zone.origin.domain_of(name), [&b"\x02ns"[..], b"\x03dns"], servers.collect())
        }
    };
    let Some(target) = reply.pointer(RECORD_HEAD) else { return };
    reply.record(Section::Answer, |out| {
        push_head(out, owner, rtype::NS, ttl);
        push_data(out, |out| {
            labels.iter().for_each(|label| out.extend(*label));
            out.extend(domain.as_bytes());
        });
    });
    for address in addresses {
        reply.record(Section::Additional, |out| push_address(out, target, address, ttl));
    }
}

/// The SOA record of the zone that the question's name is in: the cluster's, one for those outside, or the reverse tree.
fn write_soa(zone: &Zone, query: &Query<'_>, section: Section, reply: &mut Reply<'_>) {
    let name = &query.name;
    let outside = zone.origin.outside(name).map(|(_, above, _)| above);
    let inside = || zone.origin.above(name).map(|(above, _)| above);
    let own = outside.or_else(inside);
    let apex = own.unwrap_or_else(|| name.count().saturating_sub(2));
    let apex = QUESTION_POINTER + name.start(apex) as u16;
    reply.record(section, |out| {
        push_head(out, apex, rtype::SOA, soa_ttl(zone, name));
        push_data(out, |out| {
            let pointer = apex.to_be_bytes();
            push_soa(out, zone, name, if own.is_some() { &pointer } else { zone.origin.name.as_bytes() });
        });
    });
}

/// The time to live of the SOA record of the zone that a name is in.
pub(crate) fn soa_ttl(zone: &Zone, name: &QueryName) -> u32 {
    zone.origin.ttl(name).min(300)
}

/// Appends the data of the SOA record of the zone that a name is in. `domain`: its name, or a pointer to that.
pub(crate) fn push_soa(out: &mut Vec<u8>, zone: &Zone, name: &QueryName, domain: &[u8]) {
    let outside = zone.origin.outside(name).map(|(external, _, _)| &*external.apex);
    let [server, owner] = match outside {
        Some(apex) => [[b"\x03ns1", apex], [b"\x0ahostmaster", apex]],
        None => [[&b"\x02ns"[..], b"\x03dns"], [b"\x0ahostmaster", b""]],
    };
    for labels in [server, owner] {
        labels.iter().for_each(|label| out.extend(*label));
        out.extend(domain);
    }
    for number in [zone.serial, 7200, 1800, 86_400, zone.origin.ttl(name)] {
        out.extend(number.to_be_bytes());
    }
}

/// Appends the record that says which specification the zone follows, its owner's labels before it.
pub(crate) fn push_version(out: &mut Vec<u8>, owner: u16, schema: &[u8]) {
    push_head(out, owner, rtype::TXT, SCHEMA_TTL);
    push_data(out, |out| {
        out.push(schema.len() as u8);
        out.extend(schema);
    });
}

fn push_pointer(out: &mut Vec<u8>, domain: &WireName, pointer: &Pointer) {
    push_service_name(out, domain, pointer.host.as_deref(), &pointer.service);
}

fn push_service_name(out: &mut Vec<u8>, domain: &WireName, host: Option<&[u8]>, service: &[u8]) {
    out.extend(host.unwrap_or_default());
    out.extend(service);
    out.extend(b"\x03svc");
    out.extend(domain.as_bytes());
}

/// Appends the record that is told of a name of which everything is asked (RFC 8482, 4.2).
pub(crate) fn push_any(out: &mut Vec<u8>, owner: u16) {
    push_head(out, owner, rtype::HINFO, ANY_TTL);
    push_data(out, |out| out.extend(b"\x07RFC8482\0"));
}

/// Appends data with its length before it.
pub(crate) fn push_data(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0, 0]);
    write(out);
    let length = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}
