//! What is on the node, in plain data, and which of its devices lead out. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use sluice_ebpf_common::{SERVICE_DEVICE, SERVICE_PEER_DEVICE};
use sluice_model::Node;

use super::plan::NodeOp;
use crate::routes::OVERLAY_DEVICES;

/// The last of all addresses.
const HIGHEST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its link-layer address.
    pub mac: Option<[u8; 6]>,
    /// Its maximum packet size.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it does without address resolution.
    pub noarp: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// What it is made of, where it is a VXLAN device.
    pub tunnel: Option<Tunnel>,
}

/// A VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The network's number.
    pub id: u32,
    /// The UDP port.
    pub port: u16,
    /// The address that the outer packets come from.
    pub local: Option<IpAddr>,
    /// Whether it finds out by itself who is where.
    pub learning: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundRoute {
    /// Where to.
    pub destination: IpNet,
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The device, where there is just one.
    pub device: Option<String>,
    /// The source address of the node's own packets.
    pub source: Option<IpAddr>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// Whether we made it.
    pub ours: bool,
}

/// What a device of the overlay knows of the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Behind which node's address each link-layer address is.
    pub forwarding: BTreeSet<([u8; 6], IpAddr)>,
    /// The next hops, with their link-layer addresses.
    pub next_hops: BTreeMap<IpAddr, [u8; 6]>,
}

/// What is on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Devices by name.
    pub devices: BTreeMap<String, Device>,
    /// Addresses, with the name of their device; link-local ones are left out.
    pub addresses: Vec<(String, IpNet)>,
    /// The routes of the main table, in order.
    pub routes: Vec<FoundRoute>,
    /// What the overlay's devices know, by their names.
    pub overlays: BTreeMap<&'static str, Peers>,
    /// Settings below `/proc/sys` that matter, where they exist.
    pub sysctls: BTreeMap<String, String>,
}

impl Found {
    /// What becomes of this when a node is entered into the overlay, or taken out of it. Says nothing of other operations.
    pub fn enter(&mut self, op: &NodeOp) {
        let Some(peers) = op.entered_into().map(|device| self.overlays.entry(device).or_default()) else {
            return;
        };
        match op {
            NodeOp::PutForwarding { mac, remote, .. } => {
                // The kernel keeps one for each link-layer address.
                let (first, last) = ((*mac, IpAddr::V4(Ipv4Addr::UNSPECIFIED)), (*mac, HIGHEST));
                let before: Vec<_> = peers.forwarding.range(first..=last).copied().collect();
                for entry in before {
                    peers.forwarding.remove(&entry);
                }
                peers.forwarding.insert((*mac, *remote));
            }
            NodeOp::RemoveForwarding { mac, remote, .. } => {
                peers.forwarding.remove(&(*mac, *remote));
            }
            NodeOp::PutNextHop { hop, mac, .. } => {
                peers.next_hops.insert(*hop, *mac);
            }
            NodeOp::RemoveNextHop { hop, .. } => {
                peers.next_hops.remove(hop);
            }
            _ => {}
        }
    }

    /// The addresses of a device.
    pub fn addresses_of<'a>(&'a self, device: &'a str) -> impl Iterator<Item = IpNet> + 'a {
        self.addresses.iter().filter(move |(name, _)| name == device).map(|(_, address)| *address)
    }

    /// The device whose network an address is in, and our address in that network. Devices of ours are no neighbourhood.
    pub fn neighbour(&self, address: IpAddr) -> Option<(&str, IpAddr)> {
        let networks = self
            .addresses
            .iter()
            .filter(|(device, network)| network.contains(&address) && !is_ours(device))
            .filter(|(device, _)| self.devices.get(device).is_none_or(|device| !device.loopback));
        let narrowest = networks.max_by_key(|(_, network)| network.prefix_len())?;
        Some((&narrowest.0, narrowest.1.addr()))
    }
}

/// Whether this is a device that we make, other than the bridge.
fn is_ours(device: &str) -> bool {
    [SERVICE_DEVICE, SERVICE_PEER_DEVICE].contains(&device) || OVERLAY_DEVICES.contains(&device)
}

/// The devices that lead out of the node: those that are configured; otherwise those of the default routes and
/// those that hold an address of the Node object. Ours and the loopback device never do.
pub fn uplinks(
    found: &Found,
    configured: Option<&[String]>,
    node: Option<&Node>,
    bridge: &str,
) -> BTreeSet<String> {
    if let Some(configured) = configured {
        return configured.iter().filter(|name| found.devices.contains_key(*name)).cloned().collect();
    }
    let by_route = found
        .routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .filter_map(|route| route.device.clone());
    let held = |address: &IpNet| {
        node.is_some_and(|node| node.addresses.iter().any(|node| node.address == address.addr()))
    };
    let by_address =
        found.addresses.iter().filter(|(_, address)| held(address)).map(|(name, _)| name.clone());
    by_route
        .chain(by_address)
        .filter(|name| name != bridge && !is_ours(name))
        .filter(|name| found.devices.get(name).is_some_and(|device| !device.loopback))
        .collect()
}
