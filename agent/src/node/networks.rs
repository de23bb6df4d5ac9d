//! How the datapath treats which networks. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sluice_ebpf_common::{NETWORK_LOCAL_PODS, NETWORK_NO_MASQUERADE, NETWORK_OVERLAY};
use sluice_model::{IpFamily, Snapshot};

use crate::{
    config::{Config, DetectLocal},
    foreign::Abroad,
    routes::{Way, Ways},
};

/// The networks to which pods talk with their own addresses: all pods, nodes, and what is configured. Nodes whose pods are
/// reached through the overlay are none of them: they themselves are not reached through it, and the network
/// between may not know pods.
pub(super) fn networks(
    config: &Config,
    snapshot: &Snapshot,
    ways: &Ways,
    abroad: Option<&Abroad>,
) -> BTreeMap<IpNet, u32> {
    let mut networks: BTreeMap<IpNet, u32> =
        config.non_masquerade_cidrs.iter().map(|network| (*network, NETWORK_NO_MASQUERADE)).collect();
    for node in snapshot.nodes.values() {
        let own = node.name == config.node_name && config.detect_local == DetectLocal::NodeCidr;
        let local = if own { NETWORK_LOCAL_PODS } else { 0 };
        let in_overlay = |network: &IpNet| matches!(ways.networks.get(network), Some(Way::Overlay { .. }));
        for network in &node.pod_cidrs {
            let overlay = if in_overlay(network) { NETWORK_OVERLAY } else { 0 };
            *networks.entry(*network).or_default() |= NETWORK_NO_MASQUERADE | local | overlay;
        }
        for entry in &node.addresses {
            let family = IpFamily::of(entry.address);
            let mut of_family =
                node.pod_cidrs.iter().filter(|network| IpFamily::of(network.addr()) == family);
            if !of_family.any(in_overlay) {
                *networks.entry(IpNet::from(entry.address)).or_default() |= NETWORK_NO_MASQUERADE;
            }
        }
    }
    // The wider ones first: what is marked counts for what is within.
    let mut theirs: Vec<_> = abroad.iter().flat_map(|abroad| &abroad.networks).collect();
    theirs.sort_by_key(|(network, _)| network.prefix_len());
    for (network, flags) in theirs {
        if *flags == 0 {
            networks.entry(*network).or_insert(0);
        } else {
            mark(&mut networks, *network, *flags);
        }
    }
    let is_cluster = config.detect_local == DetectLocal::ClusterCidr;
    for local in config.cluster_cidrs.iter().filter(|_| is_cluster) {
        mark(&mut networks, *local, NETWORK_LOCAL_PODS);
    }
    networks
}

/// Gives a network a flag beside those that hold for it already. The datapath asks the narrowest network alone, so those
/// within it get the flag, too.
fn mark(networks: &mut BTreeMap<IpNet, u32>, network: IpNet, flag: u32) {
    let around = networks.iter().filter(|(other, _)| other.contains(&network));
    let known = around.max_by_key(|(other, _)| other.prefix_len()).map_or(0, |(_, flags)| *flags);
    networks.entry(network).or_insert(known);
    for (_, flags) in networks.iter_mut().filter(|(other, _)| network.contains(*other)) {
        *flags |= flag;
    }
}
