//! Which way the packets to the pods of each other node take: directly to the node, or inside UDP. Pure.
//!
//! ```text
//! direct    pods of two ── route via two's address ──▶ eth0 ─▶ two
//! overlay   pods of two ── route via two's next hop ─▶ sluice-vxlan
//!                              next hop ── neighbour entry ─▶ two's link-layer address in the overlay
//!                                  link-layer address ── forwarding entry ─▶ two's own address, by UDP
//! ```
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

/// The device of the overlay.
pub const OVERLAY_DEVICE: &str = owned::OVERLAY_DEVICE;

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

/// The overlay, as this node should have it.
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
    /// The overlay, where it is needed.
    pub overlay: Option<Overlay>,
    /// An overlay that is there is to go. Not so while too little is known to say.
    pub no_overlay: bool,
}

/// The ways to the pods of all other nodes.
pub fn ways(config: &Config, snapshot: &Snapshot, found: &Found) -> Ways {
    let mut ways = Ways::default();
    if !config.routes || config.overlay == OverlayMode::None {
        ways.no_overlay = true;
        return ways;
    }
    let this = snapshot.nodes.get(&config.node_name);
    let mut overlay = match config.overlay {
        OverlayMode::Auto | OverlayMode::Vxlan => this.and_then(|node| overlay(config, node)),
        OverlayMode::Direct | OverlayMode::None => None,
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
                match way(config, node, network, found, overlay.as_mut()) {
                    Ok(way) => drop(ways.networks.insert(network, way)),
                    Err(problem) => ways.problems.push(problem),
                }
            }
        }
    }
    let needed = |overlay: &Overlay| config.overlay == OverlayMode::Vxlan || !overlay.peers.is_empty();
    let known = config.overlay == OverlayMode::Direct || overlay.is_some();
    ways.overlay = overlay.filter(needed);
    ways.no_overlay = known && ways.overlay.is_none();
    ways
}

/// The overlay without peers. Over IPv4 where the node has it: all nodes must choose alike, as a packet arrives only
/// where the other side listens in the same family.
fn overlay(config: &Config, node: &Node) -> Option<Overlay> {
    Some(Overlay {
        id: config.vxlan_id,
        port: config.vxlan_port,
        local: node.primary_addresses().next()?,
        mac: owned::overlay_mac(&node.name).0,
        peers: BTreeMap::new(),
    })
}

fn way(
    config: &Config,
    node: &Node,
    network: IpNet,
    found: &Found,
    overlay: Option<&mut Overlay>,
) -> Result<Way, RouteProblem> {
    let family = IpFamily::of(network.addr());
    let address = node.primary_addresses().find(|ip| IpFamily::of(*ip) == family);
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
    let Some(overlay) = overlay else {
        return Err(RouteProblem::NoOverlay { node: node.name.clone(), network });
    };
    let outer = IpFamily::of(overlay.local);
    let Some(remote) = node.primary_addresses().find(|ip| IpFamily::of(*ip) == outer) else {
        return Err(RouteProblem::NoOuterAddress { node: node.name.clone(), network, local: overlay.local });
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
    Ok(Way::Overlay { hop })
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
