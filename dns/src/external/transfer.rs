//! The domains for those outside as a whole.

use super::ExternalOrigin;
use crate::{
    answer::srv_weight,
    desired::{Port, ServiceRecords, Targets},
    query::QueryName,
    transfer::{address, port_labels, record, soa},
    wire::rtype,
    zone::Zone,
};

/// All records of the domain asked for, each with the question's name behind its owner, between two copies of the SOA
/// record.
pub(crate) fn records(zone: &Zone, origin: &ExternalOrigin, asked: &QueryName) -> Vec<Vec<u8>> {
    let server = [b"\x03ns1", &*origin.apex].concat();
    let mut all = vec![soa(zone, asked)];
    all.push(record(rtype::NS, b"", origin.ttl, |out| {
        out.extend(&server);
        out.extend(asked.as_bytes());
    }));
    all.extend(zone.server_outside().into_iter().map(|ip| address(&server, ip, origin.ttl)));
    let mut services: Vec<_> = zone.services().collect();
    services.sort_unstable_by_key(|(key, _)| *key);
    for (key, service) in services {
        if let Some(external) = &service.external {
            all.extend(external.addresses().map(|ip| address(key, ip, origin.ttl)));
            if external.addresses().next().is_none() {
                let alias = external.names.first();
                all.extend(
                    alias
                        .map(|name| record(rtype::CNAME, key, origin.ttl, |out| out.extend(name.as_bytes()))),
                );
            }
            add_ports(&mut all, origin, key, service, &external.ports, asked);
        } else if origin.headless && service.headless {
            all.extend(service.hosts.iter().map(|host| address(key, host.address, origin.ttl)));
            let below = |label: &[u8]| [label, key].concat();
            all.extend(
                service.hosts.iter().map(|host| address(&below(&host.label), host.address, origin.ttl)),
            );
            add_ports(&mut all, origin, key, service, &service.ports, asked);
        }
    }
    all.push(soa(zone, asked));
    all
}

fn add_ports(
    all: &mut Vec<Vec<u8>>,
    origin: &ExternalOrigin,
    key: &[u8],
    service: &ServiceRecords,
    ports: &[Port],
    asked: &QueryName,
) {
    let own = [key, asked.as_bytes()].concat();
    let every: usize = ports.iter().map(Port::count).sum();
    let reach = service.external.as_ref().map_or(1, |external| external.reach());
    let is_addressed = service.external.as_ref().is_none_or(|external| external.addresses().next().is_some());
    for port in ports {
        // Beside an alias there is nothing (RFC 1034, 3.6.2), where that is told as a whole.
        let mut owners = Vec::new();
        owners.extend(is_addressed.then(|| (key.to_vec(), every)));
        if !port.name.is_empty() {
            owners.push(([&port_labels(port), key].concat(), port.count()));
        }
        let mut targets: Vec<(Vec<u8>, u16)> = Vec::new();
        match &port.targets {
            Targets::Service(number) => {
                targets.extend(is_addressed.then(|| (own.clone(), *number)));
                let names = service.external.iter().flat_map(|external| &external.names);
                targets.extend(names.map(|name| (name.as_bytes().to_vec(), *number)));
            }
            Targets::Hosts(hosts) => targets.extend(hosts.iter().filter_map(|(place, number)| {
                let host = service.hosts.get(*place as usize)?;
                Some(([&host.label, &own[..]].concat(), *number))
            })),
        }
        for (owner, count) in owners {
            let weight = srv_weight(count * reach);
            all.extend(targets.iter().map(|(target, number)| {
                record(rtype::SRV, &owner, origin.ttl, |out| {
                    out.extend([0, weight, *number].into_iter().flat_map(u16::to_be_bytes));
                    out.extend(target);
                })
            }));
        }
    }
}
