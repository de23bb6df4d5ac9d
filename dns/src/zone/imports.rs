//! Names of imports: services of a set of clusters, in domains of their own (KEP-1645).

use super::{Found, Zone, find_at_service, find_port, nothing, protocol};
use crate::{query::QueryName, wire::rtype};

impl Zone {
    /// `svc`: the place of that label; at least one stands before it.
    pub(super) fn find_import(&self, name: &QueryName, svc: usize, qtype: u16) -> Found<'_> {
        if !self.namespaces.contains_key(name.labels(svc - 1, svc)) {
            return Found::NxDomain;
        }
        let Some(below) = svc.checked_sub(2) else { return nothing(qtype) };
        let import = self.imports.get_key_value(name.labels(below, svc));
        let Some((key, records)) = import.filter(|(_, records)| records.exists) else {
            return Found::NxDomain;
        };
        if below == 0 {
            return find_at_service(key, records, qtype);
        }
        // An endpoint in a cluster, or one of which the cluster is not known.
        let hosts = records.hosts_of(name.labels(0, below));
        let exists = match below {
            1 => {
                let is_cluster = || records.hosts.iter().any(|host| is_in(&host.label, name.labels(0, 1)));
                let is_protocol = protocol(name.label(0)).is_some_and(|p| records.has_protocol(p));
                is_protocol || !hosts.is_empty() || is_cluster()
            }
            2 if hosts.is_empty() => return find_port(key, records, name, qtype),
            _ => !hosts.is_empty(),
        };
        match qtype {
            _ if !exists => Found::NxDomain,
            rtype::A if hosts.iter().any(|host| host.address.is_ipv4()) => Found::Hosts(hosts),
            rtype::AAAA if hosts.iter().any(|host| host.address.is_ipv6()) => Found::Hosts(hosts),
            _ => nothing(qtype),
        }
    }
}

/// Whether a host's labels end with that of a cluster.
fn is_in(host: &[u8], cluster: &[u8]) -> bool {
    let own = usize::from(host.first().copied().unwrap_or_default());
    host.get(1 + own..) == Some(cluster)
}
