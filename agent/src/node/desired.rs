//! What the node should have, from the configuration, the snapshot and what is there. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use sluice_ebpf_common::{
    Addr, NODE_ADDRESS_INNER, NODE_ADDRESS_PORTS, OVERLAY_UPLINK, SERVICE_DEVICE, SERVICE_PEER_DEVICE, Uplink,
};
use sluice_model::{IpFamily, Snapshot};

use super::{
    found::{Found, Tunnel, uplinks},
    networks::networks,
};
use crate::{
    config::{Config, NodePortAddress, PodNetwork},
    foreign::abroad,
    names,
    routes::{Overlay, OverlayPeer, Way, Ways, overlay_device, ways},
};

/// The largest packet where neither the configuration nor an uplink says.
const USUAL_MTU: u32 = 1500;

/// The bridge that pods are attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its link-layer address if it must be made; one that is there keeps what it has, as pods know it.
    pub mac: [u8; 6],
    /// Its maximum packet size.
    pub mtu: u32,
    /// The gateway addresses of this node's pod networks.
    pub addresses: Vec<IpNet>,
}

/// The device that service addresses are routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDevice {
    /// Its maximum packet size.
    pub mtu: u32,
    /// The cluster's DNS addresses, as networks of one address.
    pub addresses: BTreeSet<IpNet>,
}

/// A device of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayDevice {
    /// What it is made of.
    pub tunnel: Tunnel,
    /// Its link-layer address, by which the other nodes know it.
    pub mac: [u8; 6],
    /// Its maximum packet size.
    pub mtu: u32,
    /// Behind which node's address each link-layer address is.
    pub forwarding: BTreeMap<[u8; 6], IpAddr>,
    /// The next hops of routes through it, with their link-layer addresses.
    pub next_hops: BTreeMap<IpAddr, [u8; 6]>,
}

/// What the node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The bridge, where the node has pod networks.
    pub bridge: Option<Bridge>,
    /// The service device, where services or DNS are served.
    pub service: Option<ServiceDevice>,
    /// The overlay's devices, where there is an overlay, by their names.
    pub overlays: BTreeMap<&'static str, OverlayDevice>,
    /// The overlay's devices that are to go if they are there.
    pub no_overlay: BTreeSet<&'static str>,
    /// Settings below `/proc/sys`.
    pub sysctls: Vec<(String, String)>,
}

/// What the datapath and the plugin are told of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The devices that lead out, but for those of the overlay.
    pub uplinks: BTreeSet<String>,
    /// How the pods of other nodes are reached.
    pub ways: Ways,
    /// The source addresses for masquerade, by the index of the device; at index 0 the node's primary ones.
    pub sources: BTreeMap<u32, Uplink>,
    /// The node's addresses, each with `NODE_ADDRESS_*`.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// Networks with `NETWORK_*`.
    pub networks: BTreeMap<IpNet, u32>,
    /// Devices of another plugin's that lead to other nodes' pods and cannot be served.
    pub unserved: BTreeSet<String>,
    /// This node's pod networks, where they are ours.
    pub pod_cidrs: Vec<IpNet>,
    /// The largest packet of a pod.
    pub mtu: u32,
    /// The largest packet of the uplinks.
    pub outer_mtu: u32,
}

/// What the datapath and the plugin are told of the node.
pub fn facts(config: &Config, snapshot: &Snapshot, found: &Found) -> Facts {
    let node = snapshot.nodes.get(&config.node_name).map(|node| &**node);
    let ways = ways(config, snapshot, found);
    let mut uplinks = uplinks(found, config.uplinks.as_deref(), node, &config.bridge);
    if config.uplinks.is_none() {
        // Answers of other nodes' pods come in where the way to them leads out.
        uplinks.extend(ways.networks.values().filter_map(|way| match way {
            Way::Direct { device, .. } => Some(device.clone()),
            Way::Overlay { .. } => None,
        }));
    }
    let abroad = (config.pod_network == PodNetwork::Foreign).then(|| abroad(found, &uplinks, snapshot));
    if let Some(abroad) = &abroad {
        uplinks.extend(abroad.devices.iter().cloned());
    }
    let first = |device: &str, family: IpFamily| {
        found.addresses_of(device).map(|network| network.addr()).find(|ip| IpFamily::of(*ip) == family)
    };
    // The Node's own address where the device holds it: a device may have others beside.
    let primary: Vec<IpAddr> = node.map(|node| node.primary_addresses().collect()).unwrap_or_default();
    let source = |device: &str, family: IpFamily| {
        let held = primary.iter().copied().find(|ip| {
            IpFamily::of(*ip) == family && found.addresses_of(device).any(|network| network.addr() == *ip)
        });
        held.or_else(|| first(device, family))
    };
    let uplink = |address: &dyn Fn(IpFamily) -> Option<IpAddr>| Uplink {
        v4: address(IpFamily::V4).map(Addr::from).unwrap_or_default(),
        v6: address(IpFamily::V6).map(Addr::from).unwrap_or_default(),
    };
    let mut sources = BTreeMap::new();
    for name in &uplinks {
        if let Some(device) = found.devices.get(name) {
            sources.insert(device.index, uplink(&|family| source(name, family)));
        }
    }
    // What is masqueraded into the overlay is answered through it.
    // Another plugin's networks are no business of ours.
    let own = node.filter(|_| abroad.is_none());
    let pod_cidrs = own.map(|node| node.pod_cidrs.clone()).unwrap_or_default();
    let gateways: Vec<IpAddr> = gateways(&pod_cidrs).iter().map(IpNet::addr).collect();
    let in_overlay = |family| {
        let gateway = gateways.iter().copied().find(|ip| IpFamily::of(*ip) == family);
        gateway.filter(|_| !ways.overlays.is_empty())
    };
    if !ways.overlays.is_empty() {
        let devices = ways.overlays.keys().filter_map(|over| found.devices.get(overlay_device(*over)));
        for index in devices.map(|device| device.index).chain([OVERLAY_UPLINK]) {
            sources.insert(index, uplink(&in_overlay));
        }
    }
    if let Some(overlay) =
        abroad.as_ref().map(|abroad| abroad.overlay).filter(|own| *own != Uplink::default())
    {
        sources.insert(OVERLAY_UPLINK, overlay);
    }
    let of_node = |family: IpFamily| {
        let listed = primary.iter().copied().find(|ip| IpFamily::of(*ip) == family);
        let on_uplink = || uplinks.iter().find_map(|name| source(name, family));
        // A node that has no address of the family at all has that of its pods' gateway.
        listed.or_else(on_uplink).or_else(|| in_overlay(family))
    };
    sources.insert(0, uplink(&of_node));
    let outer = uplinks.iter().filter_map(|name| found.devices.get(name)).map(|device| device.mtu).min();
    let outer_mtu = outer.unwrap_or(USUAL_MTU);
    let overlay_mtu = ways.overlays.values().map(|overlay| overlay.mtu(outer_mtu)).min();
    let primary: Vec<IpAddr> = IpFamily::ALL.into_iter().filter_map(of_node).collect();
    Facts {
        addresses: addresses(config, snapshot, found, &uplinks, &primary),
        sources,
        networks: networks(config, snapshot, &ways, abroad.as_ref()),
        unserved: abroad.map(|abroad| abroad.bare).unwrap_or_default(),
        pod_cidrs,
        mtu: config.mtu.or(overlay_mtu).unwrap_or(outer_mtu),
        outer_mtu,
        ways,
        uplinks,
    }
}

/// All addresses that are the node's, each with `NODE_ADDRESS_*`: those of the Node object and of the uplinks, and any
/// other at which node ports are to be served.
fn addresses(
    config: &Config,
    snapshot: &Snapshot,
    found: &Found,
    uplinks: &BTreeSet<String>,
    primary: &[IpAddr],
) -> BTreeMap<IpAddr, u32> {
    let ports = |ip: IpAddr| {
        let serves = serves_node_ports(&config.node_port_addresses, primary, ip);
        if serves { NODE_ADDRESS_PORTS } else { 0 }
    };
    let mut addresses: BTreeMap<IpAddr, u32> = inner(config, snapshot)
        .map(|ip| (ip, NODE_ADDRESS_INNER | if ip.is_loopback() { ports(ip) } else { 0 }))
        .collect();
    let node = snapshot.nodes.get(&config.node_name);
    let listed = node.into_iter().flat_map(|node| node.addresses.iter().map(|entry| entry.address));
    let others = found.addresses.iter().map(|(device, network)| (device, network.addr()));
    let held = others.filter(|(device, ip)| {
        let is_service = *device == SERVICE_DEVICE || *device == SERVICE_PEER_DEVICE;
        uplinks.contains(*device) || !is_service && !ip.is_loopback() && ports(*ip) != 0
    });
    for ip in listed.chain(held.map(|(_, ip)| ip)) {
        addresses.entry(ip).or_insert_with(|| ports(ip));
    }
    addresses
}

/// Whether an address of the node serves node ports (row 11 of the behaviour table).
fn serves_node_ports(wanted: &[NodePortAddress], primary: &[IpAddr], ip: IpAddr) -> bool {
    let family = IpFamily::of(ip);
    let networks = || {
        wanted.iter().filter_map(|entry| match entry {
            NodePortAddress::Network(network) => Some(network),
            _ => None,
        })
    };
    if wanted.contains(&NodePortAddress::All) {
        return true;
    }
    if ip.is_loopback() {
        // The network of everything does not mean it.
        let named = networks().any(|network| network.prefix_len() > 0 && network.contains(&ip));
        return named || wanted.contains(&NodePortAddress::Localhost);
    }
    let is_primary = wanted.contains(&NodePortAddress::Primary) && primary.contains(&ip);
    // Networks of one family alone say nothing of the other.
    let only_networks = networks().count() == wanted.len();
    let unrestricted = only_networks && !networks().any(|network| IpFamily::of(network.addr()) == family);
    is_primary || unrestricted || networks().any(|network| network.contains(&ip))
}

/// Addresses that mean this node on this node alone.
fn inner(config: &Config, snapshot: &Snapshot) -> impl Iterator<Item = IpAddr> {
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let dns = if config.dns { names::addresses(config, snapshot) } else { BTreeSet::new() };
    loopback.into_iter().chain(dns)
}

/// The gateway address of each pod network: its first address.
pub fn gateways(pod_cidrs: &[IpNet]) -> Vec<IpNet> {
    let gateway = |network: &IpNet| {
        let first = match network {
            IpNet::V4(network) => IpAddr::from((u32::from(network.network()).wrapping_add(1)).to_be_bytes()),
            IpNet::V6(network) => IpAddr::from((u128::from(network.network()).wrapping_add(1)).to_be_bytes()),
        };
        IpNet::new(first, network.prefix_len()).ok().filter(|_| network.contains(&first))
    };
    pod_cidrs.iter().filter_map(gateway).collect()
}

/// Devices of others that hold addresses of this node's pod networks, as those that another plugin has left behind do:
/// packets to pods may go there.
pub fn rivals(bridge: &str, facts: &Facts, found: &Found) -> Vec<String> {
    let others = found.addresses.iter().filter(|(device, _)| device != bridge);
    let rival = |(device, address): &(String, IpNet)| {
        let network = facts.pod_cidrs.iter().find(|network| network.contains(&address.addr()))?;
        Some(format!(
            "{device} has the address {address} in {network}, the network of this node's pods, who may not be reached \
             for it; if nobody needs {device} any more, delete it (ip link delete {device})"
        ))
    };
    others.filter_map(rival).collect()
}

/// What the node should have. `dns` are the addresses at which this node serves the cluster's DNS;
/// `bridge_mac` makes the address of a new bridge from its name and its first gateway.
pub fn wanted(
    config: &Config,
    facts: &Facts,
    found: &Found,
    dns: &BTreeSet<IpAddr>,
    bridge_mac: impl Fn(&str, &str) -> [u8; 6],
) -> Wanted {
    let addresses = gateways(&facts.pod_cidrs);
    let bridge = addresses.first().map(|first| Bridge {
        name: config.bridge.clone(),
        mac: bridge_mac(&config.bridge, &first.addr().to_string()),
        mtu: facts.mtu,
        addresses: addresses.clone(),
    });
    let service = (config.proxy || config.dns)
        .then(|| ServiceDevice { mtu: facts.mtu, addresses: dns.iter().copied().map(IpNet::from).collect() });
    let overlays = facts.ways.overlays.iter();
    let overlays = overlays.map(|(over, overlay)| (overlay_device(*over), overlay_link(overlay, facts)));
    let no_overlay = facts.ways.no_overlay.iter().map(|over| overlay_device(*over)).collect();
    let sysctls = sysctls(facts, found, bridge.as_ref().map(|bridge| &*bridge.name), service.is_some());
    Wanted { sysctls, bridge, service, overlays: overlays.collect(), no_overlay }
}

fn overlay_link(overlay: &Overlay, facts: &Facts) -> OverlayDevice {
    let hops = |peer: &'_ OverlayPeer| peer.hops.iter().map(|hop| (*hop, peer.mac)).collect::<Vec<_>>();
    OverlayDevice {
        tunnel: Tunnel { id: overlay.id, port: overlay.port, local: Some(overlay.local), learning: false },
        mac: overlay.mac,
        mtu: overlay.mtu(facts.outer_mtu),
        forwarding: overlay.peers.values().map(|peer| (peer.mac, peer.remote)).collect(),
        next_hops: overlay.peers.values().flat_map(hops).collect(),
    }
}

fn sysctls(facts: &Facts, found: &Found, bridge: Option<&str>, serves: bool) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut put = |name: String, value: &str| list.push((name, value.to_owned()));
    if bridge.is_some() || serves {
        // A forwarding node takes no router advertisements unless it is told to; without them a node that has
        // its default route from there would lose it.
        for uplink in &facts.uplinks {
            let name = format!("net/ipv6/conf/{uplink}/accept_ra");
            if found.sysctls.get(&name).is_some_and(|value| value == "1") {
                put(name, "2");
            }
        }
        put("net/ipv4/ip_forward".to_owned(), "1");
        put("net/ipv6/conf/all/forwarding".to_owned(), "1");
    }
    // The kernel takes the stricter of a device's setting and the one for all devices, except that 2 (loose) goes
    // before 1 (strict).
    let strict = found.sysctls.get("net/ipv4/conf/all/rp_filter").is_some_and(|value| value == "1");
    let loose = if strict { "2" } else { "0" };
    for device in facts.ways.overlays.keys().map(|over| overlay_device(*over)) {
        // What other nodes send from their own addresses would be answered past the overlay.
        put(format!("net/ipv4/conf/{device}/rp_filter"), loose);
        put(format!("net/ipv6/conf/{device}/accept_dad"), "0");
        put(format!("net/ipv6/conf/{device}/accept_ra"), "0");
    }
    if let Some(bridge) = bridge {
        // Until its link-local address had been proven unique, for two seconds, the node could not ask for a
        // pod's link-layer address. Nobody else makes addresses on this bridge.
        put(format!("net/ipv6/conf/{bridge}/accept_dad"), "0");
    }
    if serves {
        // Replies to the node's own packets arrive here with the node's own address on them, or with a
        // service's.
        put(format!("net/ipv4/conf/{SERVICE_DEVICE}/rp_filter"), loose);
        put(format!("net/ipv4/conf/{SERVICE_DEVICE}/accept_local"), "1");
        // Replies to a node port at a loopback address; nothing arrives here but by the datapath.
        put(format!("net/ipv4/conf/{SERVICE_DEVICE}/route_localnet"), "1");
        put(format!("net/ipv6/conf/{SERVICE_DEVICE}/accept_dad"), "0");
        put(format!("net/ipv6/conf/{SERVICE_DEVICE}/accept_ra"), "0");
        put(format!("net/ipv6/conf/{SERVICE_PEER_DEVICE}/disable_ipv6"), "1");
    }
    // Settings that this kernel does not have (IPv6 switched off, say) are passed over when they are applied.
    list
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
