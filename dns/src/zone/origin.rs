//! What a zone is like, whatever is in it: the part that follows from the configuration.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    DnsConfig, Exposure, PodRecords,
    desired::RecordOptions,
    external::{ExternalOrigin, is_reverse},
    name::{self, WireName},
    query::QueryName,
    records::AddressSet,
};

/// What does not change while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The cluster's domain: the one that reverse names and search paths lead to.
    pub(crate) name: WireName,
    /// Further domains, the longest first: those that have the same names, and those of imports.
    pub(crate) others: Box<[WireName]>,
    /// Those of imports alone; reverse names lead to the first.
    pub(crate) multicluster: Box<[WireName]>,
    /// How records are made.
    pub(crate) options: RecordOptions,
    /// Pod records.
    pub(crate) pods: PodRecords,
    /// Which namespaces there are.
    pub(crate) exposure: Exposure,
    /// The first query of a pod's walk along its search path is answered with where it leads.
    pub(crate) autopath: bool,
    /// The node whose pods those are; all nodes' where it is not known.
    pub(crate) node: Option<String>,
    /// Addresses of `ns.dns.<zone>`.
    pub(crate) server_v4: AddressSet,
    /// As above.
    pub(crate) server_v6: AddressSet,
    /// The cluster's networks.
    pub(crate) networks: Vec<IpNet>,
    /// Unknown reverse names are not ours.
    pub(crate) reverse_fallthrough: bool,
    /// Services have names for those outside.
    pub(crate) external: Option<ExternalOrigin>,
}

impl Origin {
    /// What a configuration says, of a server at these addresses.
    pub(crate) fn new(name: WireName, config: &DnsConfig, addresses: &[IpAddr]) -> Self {
        let names = |zones: &[String]| -> Vec<_> {
            zones.iter().filter_map(|zone| WireName::parse(zone)).filter(|zone| *zone != name).collect()
        };
        let multicluster = names(&config.multicluster_zones);
        let mut others = names(&config.more_zones);
        others.retain(|other| !multicluster.contains(other));
        others.extend(multicluster.iter().cloned());
        others.sort_unstable_by_key(|zone| std::cmp::Reverse(zone.as_bytes().len()));
        let (v4, v6) = addresses.iter().partition(|address| address.is_ipv4());
        Self {
            name,
            others: others.into(),
            multicluster: multicluster.into(),
            options: RecordOptions::new(config),
            pods: config.pods,
            exposure: config.exposure.clone(),
            autopath: config.autopath,
            node: config.node.clone(),
            server_v4: AddressSet::new(v4, config.ttl),
            server_v6: AddressSet::new(v6, config.ttl),
            networks: config.networks.clone(),
            reverse_fallthrough: config.reverse_fallthrough,
            // One that cannot be served has been refused before.
            external: config.external.as_ref().and_then(|external| ExternalOrigin::new(external).ok()),
        }
    }

    /// Whether the records of services, namespaces and pods are the same as those of `other`.
    pub(crate) fn has_records_of(&self, other: &Self) -> bool {
        let this = Self {
            server_v4: other.server_v4.clone(),
            server_v6: other.server_v6.clone(),
            networks: other.networks.clone(),
            reverse_fallthrough: other.reverse_fallthrough,
            ..self.clone()
        };
        this == *other
    }

    /// The network that a reverse name stands for, if it lies within the cluster's.
    pub(crate) fn covers(&self, name: &QueryName) -> Option<IpNet> {
        let prefix = name::reverse_prefix(name.rev_labels())?;
        self.networks.iter().any(|net| net.contains(&prefix)).then_some(prefix)
    }

    /// How many labels stand before the cluster's domain in a name below it, and that domain.
    pub(crate) fn above(&self, name: &QueryName) -> Option<(usize, &WireName)> {
        // One of the others may lie within the first.
        let other = self.others.iter().find_map(|zone| Some((name.labels_before(zone.as_bytes())?, zone)));
        let own = name.labels_before(self.name.as_bytes()).map(|above| (above, &self.name));
        own.into_iter().chain(other).min_by_key(|(above, _)| *above)
    }

    /// The cluster's domain that a name is below; the first where it is below none.
    pub(crate) fn domain_of(&self, name: &QueryName) -> &WireName {
        self.above(name).map_or(&self.name, |(_, domain)| domain)
    }

    /// Whether a domain is one of imports.
    pub(crate) fn is_multicluster(&self, domain: &WireName) -> bool {
        self.multicluster.contains(domain)
    }

    /// Whether a name must not be answered before the cluster is known.
    pub(crate) fn claims(&self, name: &QueryName) -> bool {
        self.above(name).is_some() || self.covers(name).is_some() || self.outside(name).is_some()
    }

    /// Where a name is one for those outside: what they get, how many labels stand before their domain, and that.
    pub(crate) fn outside(&self, name: &QueryName) -> Option<(&ExternalOrigin, usize, &WireName)> {
        let external = self.external.as_ref()?;
        external.above(name).map(|(above, zone)| (external, above, zone))
    }

    /// Whether a name is that of a domain that can be had as a whole.
    pub(crate) fn is_whole(&self, name: &QueryName) -> bool {
        match self.outside(name) {
            Some((_, above, zone)) => above == 0 && !is_reverse(zone),
            None => self.above(name).is_some_and(|(above, _)| above == 0),
        }
    }

    /// The time to live of the records of a name.
    pub(crate) fn ttl(&self, name: &QueryName) -> u32 {
        match &self.external {
            Some(external) if external.above(name).is_some() => external.ttl,
            _ => self.options.ttl,
        }
    }
}
