//! What there is for a name of those outside.

use std::net::IpAddr;

use super::{ExternalOrigin, ExternalRecords, origin::is_reverse};
use crate::{
    desired::ServiceRecords,
    name,
    query::QueryName,
    wire::rtype,
    zone::{Found, Zone, addresses, nothing, protocol},
};

impl Zone {
    /// What there is for a name; `None` where it is none for those outside, or does not exist and others are asked.
    pub(crate) fn find_external(
        &self,
        origin: &ExternalOrigin,
        name: &QueryName,
        qtype: u16,
    ) -> Option<Found<'_>> {
        let (above, zone) = origin.above(name)?;
        let found = if above == 0 {
            match qtype {
                rtype::SOA => Found::Soa,
                rtype::NS => Found::Ns,
                _ => nothing(qtype),
            }
        } else if name.labels(above - 1, above) == &*origin.apex {
            self.find_server(name, above, qtype)
        } else if is_reverse(zone) {
            self.find_external_pointer(name, qtype)
        } else {
            self.find_outside(origin, name, above, qtype)
        };
        (found != Found::NxDomain || !origin.falls_through(name)).then_some(found)
    }

    /// The name of the domains' server, and the one above it.
    fn find_server(&self, name: &QueryName, above: usize, qtype: u16) -> Found<'_> {
        if above == 1 {
            return nothing(qtype);
        }
        if above > 2 || name.label(0) != b"ns1" {
            return Found::NxDomain;
        }
        let service = self.dns_service().and_then(|records| records.external.as_deref());
        let sets = match service {
            Some(external) => [&external.v4, &external.v6],
            None => [&self.origin.server_v4, &self.origin.server_v6],
        };
        match qtype {
            rtype::A => addresses(sets[0]),
            rtype::AAAA => addresses(sets[1]),
            _ => nothing(qtype),
        }
    }

    /// The addresses of the domains' server: those outside know the DNS service by, or else where we listen.
    pub(crate) fn server_outside(&self) -> Vec<IpAddr> {
        match self.dns_service().and_then(|records| records.external.as_deref()) {
            Some(external) => external.addresses().collect(),
            None => self.origin.server_v4.addresses().chain(self.origin.server_v6.addresses()).collect(),
        }
    }

    fn find_external_pointer(&self, name: &QueryName, qtype: u16) -> Found<'_> {
        if let Some(address) = name::reverse_address(name.rev_labels()) {
            return match self.external.get(address) {
                None => Found::NxDomain,
                Some(pointers) if qtype == rtype::PTR => Found::ExternalPointers(pointers),
                Some(_) => nothing(qtype),
            };
        }
        let prefix = name::reverse_prefix(name.rev_labels());
        match prefix.filter(|prefix| self.external.has_any(*prefix)) {
            Some(_) => nothing(qtype),
            None => Found::NxDomain,
        }
    }

    /// `above`: how many labels stand before the domain; there is one.
    fn find_outside(&self, origin: &ExternalOrigin, name: &QueryName, above: usize, qtype: u16) -> Found<'_> {
        if !self.has_namespace(name.labels(above - 1, above)) {
            return Found::NxDomain;
        }
        let Some(below) = above.checked_sub(2) else { return nothing(qtype) };
        let Some((key, records)) = self.service(name.labels(below, above)) else { return Found::NxDomain };
        match &records.external {
            Some(external) => find_reached(key, records, external, name, below, qtype),
            None if origin.headless => find_endpoints(key, records, name, below, qtype),
            None => Found::NxDomain,
        }
    }
}

/// `below`: how many labels stand before the service's.
fn find_reached<'z>(
    key: &'z [u8],
    records: &'z ServiceRecords,
    external: &'z ExternalRecords,
    name: &QueryName,
    below: usize,
    qtype: u16,
) -> Found<'z> {
    let has_addresses = !external.v4.is_empty() || !external.v6.is_empty();
    match (below, qtype) {
        (0, rtype::SRV) if !external.ports.is_empty() => {
            Found::ExternalSrv(key, records, &external.ports, None)
        }
        (0, rtype::SRV) => Found::NoData,
        (0, rtype::ANY) => Found::Any,
        // A name that is an alias has no addresses beside it.
        (0, _) if !has_addresses => external.names.first().map_or(Found::NoData, Found::Alias),
        (0, rtype::A) => addresses(&external.v4),
        (0, rtype::AAAA) => addresses(&external.v6),
        (0, _) => Found::NoData,
        (1, _) => {
            let wanted = protocol(name.label(0));
            let is_there =
                external.ports.iter().any(|port| Some(port.protocol) == wanted && !port.name.is_empty());
            if is_there { nothing(qtype) } else { Found::NxDomain }
        }
        (2, _) => {
            let Some(port) = name.label(0).strip_prefix(b"_").filter(|port| !port.is_empty()) else {
                return Found::NxDomain;
            };
            let wanted = protocol(name.label(1));
            let mut ports = external.ports.iter();
            match ports.find(|held| Some(held.protocol) == wanted && *held.name == *port) {
                None => Found::NxDomain,
                Some(port) if qtype == rtype::SRV => {
                    Found::ExternalSrv(key, records, std::slice::from_ref(port), None)
                }
                Some(_) => nothing(qtype),
            }
        }
        _ => Found::NxDomain,
    }
}

/// A service that is reached by its endpoints alone.
fn find_endpoints<'z>(
    key: &'z [u8],
    records: &'z ServiceRecords,
    name: &QueryName,
    below: usize,
    qtype: u16,
) -> Found<'z> {
    if records.hosts.is_empty() || (!records.headless && below != 1) {
        return Found::NxDomain;
    }
    let hosts = match below {
        0 => &records.hosts[..],
        1 => records.hosts_at(name.label(0)),
        _ => &[],
    };
    let is_protocol = below == 1 && protocol(name.label(0)).is_some_and(|p| records.has_protocol(p));
    let has = |wanted: fn(&IpAddr) -> bool| hosts.iter().any(|host| wanted(&host.address));
    match (below, qtype) {
        (0 | 1, _) if hosts.is_empty() && !(is_protocol && records.headless) => Found::NxDomain,
        (0 | 1, rtype::A) if has(IpAddr::is_ipv4) => Found::Hosts(hosts),
        (0 | 1, rtype::AAAA) if has(IpAddr::is_ipv6) => Found::Hosts(hosts),
        (0, rtype::SRV) if !records.ports.is_empty() => {
            Found::ExternalSrv(key, records, &records.ports, None)
        }
        (1, rtype::SRV) if records.headless && !hosts.is_empty() && !records.ports.is_empty() => {
            Found::ExternalSrv(key, records, &records.ports, hosts.first())
        }
        (0 | 1, _) => nothing(qtype),
        (2, _) => {
            let port = name.label(0).strip_prefix(b"_").zip(protocol(name.label(1)));
            match port.and_then(|(port, protocol)| records.port(protocol, port)) {
                None => Found::NxDomain,
                Some(port) if qtype == rtype::SRV => {
                    Found::ExternalSrv(key, records, std::slice::from_ref(port), None)
                }
                Some(_) => nothing(qtype),
            }
        }
        _ => Found::NxDomain,
    }
}
