//! Names under which those outside find services: `<service>.<namespace>.<zone>` with the addresses of load balancers
//! and `externalIPs`. They are part of the zone, so that one publish changes both.

mod find;
mod origin;
mod transfer;

use std::net::IpAddr;

use sluice_model::Service;

pub(crate) use self::{
    origin::{ExternalOrigin, is_reverse},
    transfer::records,
};
use crate::{
    desired::{Port, service_ports},
    name::WireName,
    records::AddressSet,
};

/// What a service is to those outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalRecords {
    /// A records.
    pub(crate) v4: AddressSet,
    /// AAAA records.
    pub(crate) v6: AddressSet,
    /// Names of load balancers that have no addresses.
    pub(crate) names: Box<[WireName]>,
    /// The service's ports.
    pub(crate) ports: Box<[Port]>,
}

impl ExternalRecords {
    /// Those of a service; `None` where there is nothing to reach it by.
    pub(crate) fn new(service: &Service, ttl: u32) -> Option<Self> {
        let balancers = service.load_balancer.iter().map(|ingress| ingress.address);
        let addresses = service.external_ips.iter().copied().chain(balancers);
        let names = service.load_balancer_names.iter().filter_map(|name| WireName::parse(name));
        Self::of(addresses.collect(), names.collect(), service_ports(service), ttl)
    }

    /// Those of a service at these addresses and names.
    pub(crate) fn of(
        addresses: Vec<IpAddr>,
        names: Box<[WireName]>,
        ports: Box<[Port]>,
        ttl: u32,
    ) -> Option<Self> {
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
        let is_reached = !(v4.is_empty() && v6.is_empty() && names.is_empty());
        let (v4, v6) = (AddressSet::new(v4, ttl), AddressSet::new(v6, ttl));
        is_reached.then_some(Self { v4, v6, names, ports })
    }

    /// All addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.v4.addresses().chain(self.v6.addresses())
    }

    /// How many places a port is reached at.
    pub(crate) fn reach(&self) -> usize {
        self.v4.count() + self.v6.count() + self.names.len()
    }
}
