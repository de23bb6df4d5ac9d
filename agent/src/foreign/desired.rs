//! What follows for the node where another plugin attaches the pods. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_cni::store::Attachment;
use sluice_ebpf_common::{Addr, NETWORK_NO_MASQUERADE, NETWORK_OVERLAY, Uplink};
use sluice_model::{Endpoint, EndpointSlice, IpFamily, Snapshot};

use crate::node::Found;

/// How the pods of other nodes are reached, as the other plugin's routes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abroad {
    /// The devices that lead to them.
    pub devices: BTreeSet<String>,
    /// Devices that do and that cannot be served: packets there begin with no link-layer addresses.
    pub bare: BTreeSet<String>,
    /// Networks with `NETWORK_*`.
    pub networks: BTreeMap<IpNet, u32>,
    /// This node's addresses on an overlay of the other plugin's, all zero where there is none.
    pub overlay: Uplink,
}

/// What leads to other nodes' pods: routes by a next hop, other than the default ones. `plain` are the devices that lead out
/// of the node in any case; behind others is an overlay, through which answers come only to an address of ours there.
///
/// Pods' packets to the world are the other plugin's to masquerade, and so bear the pod's address as far as we are
/// concerned, with one exception: what is sent to an endpoint of a service that is no pod goes past that plugin.
pub fn abroad(found: &Found, plain: &BTreeSet<String>, snapshot: &Snapshot) -> Abroad {
    let mut abroad = Abroad::default();
    for everything in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
        abroad.networks.insert(everything, NETWORK_NO_MASQUERADE);
    }
    for route in &found.routes {
        let Some(device) = route.device.as_ref().filter(|_| route.via.is_some() && !route.ours) else {
            continue;
        };
        if route.destination.prefix_len() == 0 {
            continue;
        }
        let mut flags = NETWORK_NO_MASQUERADE;
        if !plain.contains(device) {
            if found.devices.get(device).is_none_or(|device| device.mac.is_none()) {
                abroad.bare.insert(device.clone());
                continue;
            }
            let family = IpFamily::of(route.destination.addr());
            let own = found.addresses_of(device).map(|network| network.addr());
            if let Some(own) = own.into_iter().find(|ip| IpFamily::of(*ip) == family) {
                flags |= NETWORK_OVERLAY;
                match own {
                    IpAddr::V4(_) => abroad.overlay.v4 = Addr::from(own),
                    IpAddr::V6(_) => abroad.overlay.v6 = Addr::from(own),
                }
            }
        }
        abroad.devices.insert(device.clone());
        abroad.networks.insert(route.destination, flags);
    }
    let outside = snapshot.slices.iter().flat_map(|slice| outside_of(slice));
    for address in outside.map(IpNet::from) {
        let around = |network: &IpNet| network.prefix_len() > 0 && network.contains(&address);
        if !abroad.networks.keys().any(around) {
            abroad.networks.insert(address, 0);
        }
    }
    abroad
}

/// Whether what is at the far end of a veth pair is a pod: where the pods' networks are known (`clusterCIDRs`), it has an
/// address of theirs. Other namespaces, such as those of containers that no cluster knows, are left alone.
pub fn is_pod(cluster_cidrs: &[IpNet], attachment: &Attachment) -> bool {
    let is_theirs = |address: &IpNet| cluster_cidrs.iter().any(|network| network.contains(&address.addr()));
    cluster_cidrs.is_empty() || attachment.addresses.iter().any(is_theirs)
}

/// The endpoints of a slice that are on no node.
fn outside_of(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let outside = slice.endpoints.iter().filter(|endpoint| endpoint.node.is_none() && endpoint.pod.is_none());
    outside.filter_map(|endpoint| endpoint.addresses.first().copied())
}

/// Whether a slice has endpoints that are on no node.
pub fn is_outside(slice: &EndpointSlice) -> bool {
    outside_of(slice).next().is_some()
}

/// Endpoints that are said to be on this node, and are neither the node itself nor a pod that was found: each with its
/// service.
pub fn unseen(
    snapshot: &Snapshot,
    node: &str,
    attachments: &[Attachment],
    own: &BTreeSet<IpAddr>,
) -> BTreeMap<IpAddr, String> {
    let seen: BTreeSet<IpAddr> =
        attachments.iter().flat_map(|attachment| attachment.addresses.iter().map(IpNet::addr)).collect();
    let is_here = |endpoint: &&Endpoint| endpoint.node.as_deref() == Some(node) && endpoint.ready;
    let endpoints = snapshot.slices.iter().flat_map(|slice| {
        let here = slice.endpoints.iter().filter(is_here);
        here.filter_map(|endpoint| Some((*endpoint.addresses.first()?, slice.service.as_ref()?.to_string())))
    });
    endpoints.filter(|(address, _)| !seen.contains(address) && !own.contains(address)).collect()
}
