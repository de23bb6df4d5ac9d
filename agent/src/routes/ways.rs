//! Which way the packets to the pods of each other node take: directly to the node, or inside UDP. Pure.
//!
//! ```text
//! direct    pods of two ── route via two's address ──▶ eth0 ─▶ two
//! overlay   pods of two ── route via two's next hop ─▶ sluice-vxlan, sluice-vxlan6
//!                              next hop ── neighbour entry ─▶ two's link-layer address in the overlay
//!                                  link-layer address ── forwarding entry ─▶ two's own address, by UDP
//! ```
//!
//! Two nodes speak over IPv4 where both have an address of it, else over IPv6: both come to the same choice, and a packet
//! finds the other side listening. A device of the overlay goes over one family, so there may be two.
//!
//! Next hop and link-layer address of a node follow from its pod network and its name, so that no node has to publish
//! anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use sluice_model::{IpFamily, Node, Snapshot};
use sluice_netlink::owned;

use super::desired::RouteProblem;
use crate::{
    config::{Config, OverlayMode},
    node::{Found, gateways},
};

/// The devices of the overlay.
pub const OVERLAY_DEVICES: [&str; 2] = [owned::OVERLAY_DEVICE, owned::OVERLAY_DEVICE_V6];

/// The device of the overlay that goes over a family of the nodes' addresses.
pub const fn overlay_device(over: IpFamily) -> &'static str {
    match over {
        IpFamily::V4 => owned::OVERLAY_DEVICE,
        IpFamily::V6 => owned::OVERLAY_DEVICE_V6,
    }
}

/// What the overlay puts around a packet: Ethernet, VXLAN and UDP headers, and that of the outer IP.
const fn overhead(family: IpFamily) -> u32 {
    match family {
        IpFamily::V4 => 50,
        IpFamily::V6 => 70,
    }
}

/// The way to a pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the node's address, which is on a network of ours.
    Direct {
        /// The node's address.
        via: IpAddr,
        /// Our device on that network.
        device: String,
    },
    /// By the overlay.
    Overlay {
        /// The next hop there.
        hop: IpAddr,
        /// The family of the outer packets.
        over: IpFamily,
    },
}

/// Another node, as the overlay knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayPeer {
    /// Its link-layer address in the overlay.
    pub mac: [u8; 6],
    /// Its own address: where the outer packets go.
    pub remote: IpAddr,
    /// The next hops that are it.
    pub hops: BTreeSet<IpAddr>,
}

/// The overlay over one family, as this node should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The network's number.
    pub id: u32,
    /// The UDP port.
    pub port: u16,
    /// This node's address: where the outer packets come from.
    pub local: IpAddr,
    /// This node's link-layer address in the overlay.
    pub mac: [u8; 6],
    /// The other nodes that are reached through it.
    pub peers: BTreeMap<Arc<str>, OverlayPeer>,
}

impl Overlay {
    /// The largest packet that fits through, where the outer one has so many bytes.
    pub fn mtu(&self, outer: u32) -> u32 {
        outer.saturating_sub(overhead(IpFamily::of(self.local)))
    }
}

/// The ways to all pod networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// By pod network.
    pub networks: BTreeMap<IpNet, Way>,
    /// Networks to which there is none.
    pub problems: Vec<RouteProblem>,
    /// The overlay, where it is needed, by the family of the outer packets.
    pub overlays: BTreeMap<IpFamily, Overlay>,
    /// The families over which an overlay that is there is to go. None while too little is known to say.
    pub no_overlay: BTreeSet<IpFamily>,
}

/// The ways to the pods of all other nodes.
pub fn ways(config: &Config, snapshot: &Snapshot, found: &Found) -> Ways {
    let mut ways = Ways::default();
    if !config.routes || config.overlay == OverlayMode::None {
        ways.no_overlay = IpFamily::ALL.into();
        return ways;
    }
    let this = snapshot.nodes.get(&config.node_name);
    let mut overlays = match config.overlay {
        OverlayMode::Auto | OverlayMode::Vxlan => this.map(|node| overlays(config, node)).unwrap_or_default(),
        OverlayMode::Direct | OverlayMode::None => BTreeMap::new(),
    };
    // This node first: nobody else's claim may lead its own pods' traffic away.
    let mut claims = Claims::default();
    let others = snapshot.nodes.values().filter(|node| node.name != config.node_name);
    for node in this.into_iter().chain(others) {
        for &network in &node.pod_cidrs {
            if let Err(other) = claims.claim(network, &node.name) {
                let node = node.name.clone();
                ways.problems.push(RouteProblem::Overlap { node, network, other });
            } else if node.name != config.node_name {
                match way(config, node, network, found, &mut overlays) {
                    Ok(way) => drop(ways.networks.insert(network, way)),
                    Err(problem) => ways.problems.push(problem),
                }
            }
        }
    }
    let known = config.overlay == OverlayMode::Direct || !overlays.is_empty();
    // Where it is for all, it is there before the first other node is.
    let usual = overlays.keys().next().copied().filter(|_| config.overlay == OverlayMode::Vxlan);
    overlays.retain(|over, overlay| Some(*over) == usual || !overlay.peers.is_empty());
    ways.overlays = overlays;
    if known {
        ways.no_overlay =
            IpFamily::ALL.into_iter().filter(|family| !ways.overlays.contains_key(family)).collect();
    }
    ways
}

/// The overlay over each family that the node has an address of, without peers.
fn overlays(config: &Config, node: &Node) -> BTreeMap<IpFamily, Overlay> {
    let overlay = |local| Overlay {
        id: config.vxlan_id,
        port: config.vxlan_port,
        local,
        mac: owned::overlay_mac(&node.name).0,
        peers: BTreeMap::new(),
    };
    node.primary_addresses().map(|local| (IpFamily::of(local), overlay(local))).collect()
}

fn way(
    config: &Config,
    node: &Node,
    network: IpNet,
    found: &Found,
    overlays: &mut BTreeMap<IpFamily, Overlay>,
) -> Result<Way, RouteProblem> {
    let address_of = |family| node.primary_addresses().find(|ip| IpFamily::of(*ip) == family);
    let address = address_of(IpFamily::of(network.addr()));
    if config.overlay != OverlayMode::Vxlan
        && let Some(address) = address
        && let Some((device, own)) = found.neighbour(address)
        && own != address
    {
        return Ok(Way::Direct { via: address, device: device.to_owned() });
    }
    if config.overlay == OverlayMode::Direct {
        return Err(match address {
            None => RouteProblem::NoAddress { node: node.name.clone(), network },
            // Either on no network of ours, or our own address under another node's name.
            Some(address) => RouteProblem::NotANeighbour { node: node.name.clone(), address, network },
        });
    }
    if overlays.is_empty() {
        return Err(RouteProblem::NoOverlay { node: node.name.clone(), network });
    }
    let mut common = overlays.iter_mut().filter_map(|(over, overlay)| Some((overlay, address_of(*over)?)));
    let Some((overlay, remote)) = common.next() else {
        return Err(RouteProblem::NoCommonFamily { node: node.name.clone(), network });
    };
    if remote == overlay.local {
        return Err(RouteProblem::NotANeighbour { node: node.name.clone(), address: remote, network });
    }
    let mac = owned::overlay_mac(&node.name);
    let hop = match network {
        // The pods' gateway there, which is an address of that node alone.
        IpNet::V4(_) => gateways(&[network]).first().map_or(network.network(), IpNet::addr),
        // For IPv6, a next hop must not be reached by another route; a link-local address never is.
        IpNet::V6(_) => mac.link_local().into(),
    };
    let new = || OverlayPeer { mac: mac.0, remote, hops: BTreeSet::new() };
    overlay.peers.entry(node.name.clone()).or_insert_with(new).hops.insert(hop);
    Ok(Way::Overlay { hop, over: IpFamily::of(remote) })
}

/// Pod networks and whose they are; two nodes' never overlap.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<(bool, u128), (u128, Arc<str>)>);

impl Claims {
    /// Enters a network; fails with the other node's name where it overlaps that node's.
    pub(super) fn claim(&mut self, network: IpNet, node: &Arc<str>) -> Result<(), Arc<str>> {
        let (v4, start, end) = match network {
            IpNet::V4(net) => (true, u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
            IpNet::V6(net) => (false, u128::from(net.network()), u128::from(net.broadcast())),
        };
        // Entries are disjoint, so only the last one that begins before can reach in.
        let before = self.0.range(..=(v4, start)).next_back().filter(|((family, _), _)| *family == v4);
        let before = before.filter(|(_, (other_end, _))| *other_end >= start);
        let within: Vec<_> =
            self.0.range((v4, start)..=(v4, end)).map(|(key, held)| (*key, held.1.clone())).collect();
        let overlapping =
            before.map(|(_, (_, name))| name).into_iter().chain(within.iter().map(|(_, name)| name));
        if let Some(other) = overlapping.into_iter().find(|name| *name != node) {
            return Err(other.clone());
        }
        if before.is_some_and(|(_, (other_end, _))| *other_end >= end) {
            // Inside another network of the same node.
            return Ok(());
        }
        for (key, _) in within {
            self.0.remove(&key);
        }
        self.0.insert((v4, start), (end, node.clone()));
        Ok(())
    }
}
