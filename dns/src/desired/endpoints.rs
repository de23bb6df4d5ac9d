//! The ready endpoints of a service: their names, addresses and ports. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use sluice_model::{Endpoint, EndpointSlice, Protocol};

use super::{Host, Port, RecordOptions, Targets, lower};
use crate::name::{dashed, push_label};

/// The endpoints of some slices.
pub(super) struct Endpoints<'a> {
    slices: Vec<&'a EndpointSlice>,
    /// Endpoints without a host name go by their pod's name.
    pod_names: bool,
    /// Names say the cluster, too.
    of_clusters: bool,
}

impl<'a> Endpoints<'a> {
    /// Those of one cluster.
    pub(super) fn new(slices: impl Iterator<Item = &'a EndpointSlice>, options: &RecordOptions) -> Self {
        Self { slices: slices.collect(), pod_names: options.endpoint_pod_names, of_clusters: false }
    }

    /// Those of an import, which may be in several clusters.
    pub(super) fn of_clusters(
        slices: impl Iterator<Item = &'a EndpointSlice>,
        options: &RecordOptions,
    ) -> Self {
        Self { of_clusters: true, ..Self::new(slices, options) }
    }

    /// The topology zones that they are in.
    pub(super) fn zones(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let endpoints =
            self.slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.ready);
        endpoints.filter_map(|endpoint| endpoint.zone.as_deref()).collect::<BTreeSet<_>>().into_iter()
    }

    /// Each address, in all topology zones or one, in the order of the labels.
    pub(super) fn hosts(&self, zone: Option<&str>) -> Box<[Host]> {
        let slices = self.slices.iter();
        let mut hosts: Vec<Host> = slices
            .flat_map(|slice| self.ready(slice, zone))
            .map(|(address, label)| Host { label: label.into(), address })
            .collect();
        // The length stands before the label: order by the label itself, which is what lookups have.
        hosts.sort_unstable_by(|a, b| (&a.label[1..], a.address).cmp(&(&b.label[1..], b.address)));
        hosts.dedup();
        hosts.into_boxed_slice()
    }

    /// The ports of `hosts`, which are those of the same topology zones.
    pub(super) fn ports(&self, hosts: &[Host], zone: Option<&str>) -> Box<[Port]> {
        let mut found: Vec<(Protocol, Box<[u8]>, u32, u16)> = Vec::new();
        for slice in &self.slices {
            let ready = self.ready(slice, zone);
            let places: Vec<u32> = ready
                .map(|(_, label)| hosts.partition_point(|host| host.label[1..] < label[1..]) as u32)
                .collect();
            for port in &slice.ports {
                let at = |place: &u32| (port.protocol, lower(&port.name), *place, port.port);
                found.extend(places.iter().map(at));
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

    /// Each ready address of a slice with its label, or labels.
    fn ready(&self, slice: &'a EndpointSlice, zone: Option<&str>) -> impl Iterator<Item = (IpAddr, Vec<u8>)> {
        let is_there = move |endpoint: &Endpoint| {
            // Zones differ by more than their case in practice; names do not.
            let is_zone = |zone| endpoint.zone.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(zone));
            endpoint.ready && zone.is_none_or(is_zone)
        };
        let cluster = slice.imported.as_ref().filter(|_| self.of_clusters).map(|imported| &*imported.cluster);
        let pod_names = self.pod_names;
        slice.endpoints.iter().filter(move |endpoint| is_there(endpoint)).flat_map(move |endpoint| {
            endpoint.addresses.iter().filter_map(move |address| {
                let label = label(endpoint, *address, pod_names)?;
                Some((*address, in_cluster(label, cluster)))
            })
        })
    }
}

/// The label of an endpoint's address.
fn label(endpoint: &Endpoint, address: IpAddr, pod_names: bool) -> Option<Vec<u8>> {
    let pod = || endpoint.pod.as_ref().map(|pod| &*pod.name).filter(|name| name.len() <= 63);
    let name = endpoint.hostname.as_deref().or_else(|| pod().filter(|_| pod_names));
    let mut label = Vec::new();
    // A name that cannot be a label is passed over, as if there were none.
    let named = name.is_some_and(|name| !name.contains('.') && push_label(&mut label, name.as_bytes()));
    (named || push_label(&mut label, dashed(address).as_bytes())).then_some(label)
}

/// The label with that of the cluster behind it, where that is known and can be one.
fn in_cluster(mut label: Vec<u8>, cluster: Option<&str>) -> Vec<u8> {
    if let Some(cluster) = cluster.filter(|cluster| !cluster.contains('.')) {
        push_label(&mut label, cluster.as_bytes());
    }
    label
}
