//! From what is there to what should be: an ordered list of operations. Pure.
//!
//! Devices that are not ours are never touched. Of the bridge nothing is taken away: operators put addresses
//! of their own on it. The service device is ours alone.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use sluice_ebpf_common::{NODE_MAC, SERVICE_DEVICE, SERVICE_PEER_DEVICE};

use super::{
    desired::{Bridge, ServiceDevice, Wanted},
    found::Found,
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

impl fmt::Display for NodeOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBridge { name, mtu, .. } => write!(f, "create bridge {name} mtu {mtu}"),
            Self::CreateServicePair { mtu } => write!(f, "create {SERVICE_DEVICE} mtu {mtu}"),
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
mod tests;
