//! SRV records, and the addresses of their targets.

use std::net::IpAddr;

use super::push_data;
use crate::{
    desired::{Host, Port, ServiceRecords, Targets},
    external::ExternalRecords,
    records::{RECORD_HEAD, push_address, push_head},
    reply::{Reply, Section},
    wire::rtype,
};

/// The weight of each of so many records.
pub(crate) fn srv_weight(count: usize) -> u16 {
    (100 / count.max(1)).max(1) as u16
}

/// Where the ports of a service lead.
pub(super) struct SrvTargets<'z> {
    key: &'z [u8],
    /// What follows the key in names.
    suffix: [&'z [u8]; 2],
    records: &'z ServiceRecords,
    /// Where the service is for those outside.
    external: Option<&'z ExternalRecords>,
    /// Endpoints with this label alone.
    only: Option<&'z [u8]>,
    ttl: u32,
    weight: u16,
}

impl<'z> SrvTargets<'z> {
    /// Of a service within the cluster.
    pub(super) fn within(
        key: &'z [u8],
        suffix: [&'z [u8]; 2],
        records: &'z ServiceRecords,
        ports: &[Port],
        ttl: u32,
    ) -> Self {
        let weight = srv_weight(ports.iter().map(Port::count).sum());
        Self { key, suffix, records, external: None, only: None, ttl, weight }
    }

    /// For those outside.
    pub(super) fn outside(
        key: &'z [u8],
        suffix: [&'z [u8]; 2],
        records: &'z ServiceRecords,
        ports: &[Port],
        only: Option<&'z Host>,
        ttl: u32,
    ) -> Self {
        let external = records.external.as_deref();
        let only = only.map(|host| &*host.label);
        let all: usize = ports.iter().map(Port::count).sum();
        let count = match (external, only) {
            (Some(external), _) => all * external.reach(),
            (None, Some(label)) => ports.iter().map(|port| hosts_of(records, port, label)).sum(),
            (None, None) => all,
        };
        Self { key, suffix, records, external, only, ttl, weight: srv_weight(count) }
    }

    fn is_meant(&self, place: u32) -> bool {
        let label = || self.records.hosts.get(place as usize).map(|host| &*host.label);
        self.only.is_none_or(|only| label() == Some(only))
    }

    fn push_name(&self, out: &mut Vec<u8>, host: Option<u32>) {
        let label = host.and_then(|host| self.records.hosts.get(host as usize)).map(|host| &*host.label);
        for part in [label.unwrap_or_default(), self.key, self.suffix[0], self.suffix[1]] {
            out.extend(part);
        }
    }

    /// Names elsewhere that stand for the service, and whether it has addresses itself.
    fn elsewhere(&self) -> (&'z [crate::name::WireName], bool) {
        match self.external {
            None => (&[], true),
            Some(external) => (&external.names, !external.v4.is_empty() || !external.v6.is_empty()),
        }
    }
}

fn hosts_of(records: &ServiceRecords, port: &Port, label: &[u8]) -> usize {
    let Targets::Hosts(hosts) = &port.targets else { return 0 };
    let is_it = |place: u32| records.hosts.get(place as usize).is_some_and(|host| *host.label == *label);
    hosts.iter().filter(|(place, _)| is_it(*place)).count()
}

/// Writes the records of ports, and the addresses of their targets as far as they fit.
pub(super) fn write_srv(of: &SrvTargets<'_>, ports: &[Port], owner: u16, turn: u32, reply: &mut Reply<'_>) {
    let ttl = of.ttl;
    let (names, is_addressed) = of.elsewhere();
    // Where each target's name was written first, for the owners of its addresses.
    let mut targets: Vec<(Option<u32>, u16)> = Vec::new();
    let mut srv = |port: u16, write: &dyn Fn(&mut Vec<u8>), host: Option<Option<u32>>| {
        let target = reply.pointer(RECORD_HEAD + 6);
        let written = reply.record(Section::Answer, |out| {
            push_head(out, owner, rtype::SRV, ttl);
            push_data(out, |out| {
                out.extend(0_u16.to_be_bytes());
                out.extend(of.weight.to_be_bytes());
                out.extend(port.to_be_bytes());
                write(out);
            });
        });
        if written {
            targets.extend(host.zip(target));
        }
        written
    };
    'all: for port in ports {
        match &port.targets {
            Targets::Service(number) => {
                if is_addressed && !srv(*number, &|out| of.push_name(out, None), Some(None)) {
                    break 'all;
                }
                for name in names {
                    if !srv(*number, &|out| out.extend(name.as_bytes()), None) {
                        break 'all;
                    }
                }
            }
            Targets::Hosts(hosts) => {
                let (head, tail) = hosts.split_at(turn as usize % hosts.len().max(1));
                for (host, number) in tail.iter().chain(head).filter(|(host, _)| of.is_meant(*host)) {
                    if !srv(*number, &|out| of.push_name(out, Some(*host)), Some(Some(*host))) {
                        break 'all;
                    }
                }
            }
        }
    }
    targets.sort_by_key(|(host, _)| *host);
    targets.dedup_by_key(|(host, _)| *host);
    for (host, target) in targets {
        let all: &mut dyn Iterator<Item = IpAddr> = match (host, of.external) {
            (None, Some(external)) => &mut external.addresses(),
            (None, None) => &mut of.records.v4.addresses().chain(of.records.v6.addresses()),
            (Some(host), _) => &mut of.records.hosts_like(host as usize).iter().map(|host| host.address),
        };
        for address in all {
            if !reply.record(Section::Additional, |out| push_address(out, target, address, ttl)) {
                return;
            }
        }
    }
}
