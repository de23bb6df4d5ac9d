//! From what is there to what should be: an ordered list of operations. Pure.
//!
//! Devices that are not ours are never touched. Of the bridge nothing is taken away: operators put addresses
//! of their own on it. The service device is ours alone.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use sluice_ebpf_common::{NODE_MAC, SERVICE_DEVICE, SERVICE_PEER_DEVICE};

use super::{
    desired::{Bridge, OverlayDevice, ServiceDevice, Wanted},
    found::{Found, Tunnel},
};

/// One change of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say what they do, and Display says it in words")]
pub enum NodeOp {
    CreateBridge {
        name: String,
        mac: [u8; 6],
        mtu: u32,
    },
    /// The service device, switched on, and its peer.
    CreateServicePair {
        mtu: u32,
    },
    /// The overlay's device, in the place of another that has its name.
    CreateOverlay {
        device: &'static str,
        tunnel: Tunnel,
        mac: [u8; 6],
        mtu: u32,
    },
    RemoveOverlay {
        device: &'static str,
    },
    PutForwarding {
        device: &'static str,
        mac: [u8; 6],
        remote: IpAddr,
    },
    RemoveForwarding {
        device: &'static str,
        mac: [u8; 6],
        remote: IpAddr,
    },
    PutNextHop {
        device: &'static str,
        hop: IpAddr,
        mac: [u8; 6],
    },
    RemoveNextHop {
        device: &'static str,
        hop: IpAddr,
    },
    SetMtu {
        device: String,
        mtu: u32,
    },
    SetMac {
        device: String,
        mac: [u8; 6],
    },
    SetNoArp {
        device: String,
    },
    Sysctl {
        name: String,
        value: String,
    },
    SetUp {
        device: String,
    },
    AddAddress {
        device: String,
        address: IpNet,
    },
    RemoveAddress {
        device: String,
        address: IpNet,
    },
}

impl NodeOp {
    /// The overlay's device that another node is entered into, or taken out of, by this.
    pub fn entered_into(&self) -> Option<&'static str> {
        match self {
            Self::PutForwarding { device, .. }
            | Self::RemoveForwarding { device, .. }
            | Self::PutNextHop { device, .. }
            | Self::RemoveNextHop { device, .. } => Some(device),
            _ => None,
        }
    }
}

impl fmt::Display for NodeOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBridge { name, mtu, .. } => write!(f, "create bridge {name} mtu {mtu}"),
            Self::CreateServicePair { mtu } => write!(f, "create {SERVICE_DEVICE} mtu {mtu}"),
            Self::CreateOverlay { device, tunnel, mtu, .. } => {
                write!(f, "create {device} id {} port {}", tunnel.id, tunnel.port)?;
                if let Some(local) = tunnel.local {
                    write!(f, " from {local}")?;
                }
                write!(f, " mtu {mtu}")
            }
            Self::RemoveOverlay { device } => write!(f, "remove {device}"),
            Self::PutForwarding { device, remote, .. } => write!(f, "enter {remote} into {device}"),
            Self::RemoveForwarding { device, remote, .. } => write!(f, "take {remote} out of {device}"),
            Self::PutNextHop { device, hop, .. } => write!(f, "enter next hop {hop} into {device}"),
            Self::RemoveNextHop { device, hop } => write!(f, "take next hop {hop} out of {device}"),
            Self::SetMtu { device, mtu } => write!(f, "set mtu {mtu} of {device}"),
            Self::SetMac { device, .. } => write!(f, "set the link-layer address of {device}"),
            Self::SetNoArp { device } => write!(f, "set noarp on {device}"),
            Self::Sysctl { name, value } => write!(f, "set {name} to {value}"),
            Self::SetUp { device } => write!(f, "switch on {device}"),
            Self::AddAddress { device, address } => write!(f, "add {address} to {device}"),
            Self::RemoveAddress { device, address } => write!(f, "remove {address} from {device}"),
        }
    }
}

/// The operations that make the node what it should be.
pub fn plan(wanted: &Wanted, found: &Found) -> Vec<NodeOp> {
    let mut ops = Vec::new();
    if let Some(bridge) = &wanted.bridge {
        bridge_links(bridge, found, &mut ops);
    }
    if let Some(service) = &wanted.service {
        service_links(service, found, &mut ops);
    }
    for (device, overlay) in &wanted.overlays {
        overlay_links(device, overlay, found, &mut ops);
    }
    // Settings of devices exist once the devices do, and should hold before the devices have addresses.
    for (name, value) in &wanted.sysctls {
        if found.sysctls.get(name) != Some(value) {
            ops.push(NodeOp::Sysctl { name: name.clone(), value: value.clone() });
        }
    }
    if let Some(bridge) = &wanted.bridge {
        addresses(&bridge.name, &bridge.addresses.iter().copied().collect(), found, &mut ops);
    }
    if let Some(service) = &wanted.service {
        addresses(SERVICE_DEVICE, &service.addresses, found, &mut ops);
        for address in found.addresses_of(SERVICE_DEVICE).filter(|held| !service.addresses.contains(held)) {
            ops.push(NodeOp::RemoveAddress { device: SERVICE_DEVICE.to_owned(), address });
        }
    }
    ops
}

/// What nothing needs any more once the routes are what they should be.
pub fn remains(wanted: &Wanted, found: &Found) -> Vec<NodeOp> {
    let mut ops = Vec::new();
    let is_there = |name: &str| found.devices.get(name).is_some_and(|device| device.tunnel.is_some());
    let gone = wanted.no_overlay.iter().filter(|name| is_there(name));
    ops.extend(gone.map(|device| NodeOp::RemoveOverlay { device }));
    for (device, overlay) in &wanted.overlays {
        let Some(held) = found.overlays.get(device) else { continue };
        let hops = held.next_hops.keys().filter(|hop| !overlay.next_hops.contains_key(*hop));
        ops.extend(hops.map(|&hop| NodeOp::RemoveNextHop { device, hop }));
        let forwarding = held.forwarding.iter().filter(|(mac, _)| !overlay.forwarding.contains_key(mac));
        ops.extend(forwarding.map(|&(mac, remote)| NodeOp::RemoveForwarding { device, mac, remote }));
    }
    ops
}

/// Device, nodes, next hops: nothing leads to what is not there yet.
fn overlay_links(name: &'static str, overlay: &OverlayDevice, found: &Found, ops: &mut Vec<NodeOp>) {
    let device = || name.to_owned();
    let held = found.devices.get(name).filter(|device| device.tunnel == Some(overlay.tunnel));
    match held {
        None => {
            let OverlayDevice { tunnel, mac, mtu, .. } = *overlay;
            ops.push(NodeOp::CreateOverlay { device: name, tunnel, mac, mtu });
            ops.push(NodeOp::SetUp { device: device() });
        }
        Some(held) => {
            if held.mac != Some(overlay.mac) {
                ops.push(NodeOp::SetMac { device: device(), mac: overlay.mac });
            }
            if held.mtu != overlay.mtu {
                ops.push(NodeOp::SetMtu { device: device(), mtu: overlay.mtu });
            }
            if !held.up {
                ops.push(NodeOp::SetUp { device: device() });
            }
        }
    }
    // A device that is made anew knows nobody.
    let known = held.and_then(|_| found.overlays.get(name));
    let knows = |entry: &([u8; 6], IpAddr)| known.is_some_and(|known| known.forwarding.contains(entry));
    let forwarding = overlay.forwarding.iter().map(|(mac, remote)| (*mac, *remote));
    let missing = forwarding.filter(|entry| !knows(entry));
    ops.extend(missing.map(|(mac, remote)| NodeOp::PutForwarding { device: name, mac, remote }));
    for (&hop, &mac) in &overlay.next_hops {
        if known.and_then(|known| known.next_hops.get(&hop)) != Some(&mac) {
            ops.push(NodeOp::PutNextHop { device: name, hop, mac });
        }
    }
}

fn bridge_links(bridge: &Bridge, found: &Found, ops: &mut Vec<NodeOp>) {
    let device = || bridge.name.clone();
    match found.devices.get(&bridge.name) {
        None => {
            ops.push(NodeOp::CreateBridge { name: device(), mac: bridge.mac, mtu: bridge.mtu });
            ops.push(NodeOp::SetUp { device: device() });
        }
        Some(held) => {
            if held.mtu != bridge.mtu {
                ops.push(NodeOp::SetMtu { device: device(), mtu: bridge.mtu });
            }
            if !held.up {
                ops.push(NodeOp::SetUp { device: device() });
            }
        }
    }
}

fn service_links(service: &ServiceDevice, found: &Found, ops: &mut Vec<NodeOp>) {
    let devices = [SERVICE_DEVICE, SERVICE_PEER_DEVICE];
    let held = devices.map(|name| found.devices.get(name));
    let [Some(end), Some(_)] = held else {
        ops.push(NodeOp::CreateServicePair { mtu: service.mtu });
        return ops.extend(devices.map(|device| NodeOp::SetUp { device: device.to_owned() }));
    };
    if end.mac != Some(NODE_MAC) {
        ops.push(NodeOp::SetMac { device: SERVICE_DEVICE.to_owned(), mac: NODE_MAC });
    }
    if !end.noarp {
        ops.push(NodeOp::SetNoArp { device: SERVICE_DEVICE.to_owned() });
    }
    for (name, held) in devices.into_iter().zip(held.into_iter().flatten()) {
        if held.mtu != service.mtu {
            ops.push(NodeOp::SetMtu { device: name.to_owned(), mtu: service.mtu });
        }
        if !held.up {
            ops.push(NodeOp::SetUp { device: name.to_owned() });
        }
    }
}

fn addresses(device: &str, wanted: &BTreeSet<IpNet>, found: &Found, ops: &mut Vec<NodeOp>) {
    for &address in wanted {
        if !found.addresses_of(device).any(|held| held == address) {
            ops.push(NodeOp::AddAddress { device: device.to_owned(), address });
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
