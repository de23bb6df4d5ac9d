//! Applies the plan for the node.

use ipnet::IpNet;
use sluice_ebpf_common::{NODE_MAC, SERVICE_DEVICE, SERVICE_PEER_DEVICE};
use sluice_netlink::{
    AddressFlags, BridgeSpec, LinkChange, MacAddress, Netlink, Result, VethEnd, Vxlan, sysctl,
};

use super::{found::Tunnel, plan::NodeOp};
use crate::routes::OVERLAY_DEVICE;

/// Applies one operation.
pub fn apply(netlink: &mut Netlink, op: &NodeOp) -> Result<()> {
    match op {
        NodeOp::CreateBridge { name, mac, mtu } => {
            let spec = BridgeSpec::new(name).mac(MacAddress(*mac)).mtu(*mtu);
            tolerate_exists(netlink.create_bridge(&spec))
        }
        NodeOp::CreateServicePair { mtu } => {
            // One end alone is what somebody left who renamed or moved the other; a pair goes together.
            for name in [SERVICE_DEVICE, SERVICE_PEER_DEVICE] {
                if let Some(link) = netlink.find_link(name)? {
                    netlink.delete_link(link.index)?;
                }
            }
            let end = VethEnd::new(SERVICE_DEVICE).mac(MacAddress(NODE_MAC)).mtu(*mtu).noarp();
            netlink.create_veth(&end, &VethEnd::new(SERVICE_PEER_DEVICE).mtu(*mtu).noarp())
        }
        NodeOp::CreateOverlay { tunnel, mac, mtu } => {
            // What makes it what it is, nobody can change.
            if let Some(link) = netlink.find_link(OVERLAY_DEVICE)?.filter(|link| link.vxlan.is_some()) {
                netlink.delete_link(link.index)?;
            }
            let Tunnel { id, port, local, learning } = *tunnel;
            let vxlan = Vxlan { id, port, local, learning };
            netlink.create_vxlan(OVERLAY_DEVICE, &vxlan, MacAddress(*mac), *mtu)
        }
        NodeOp::RemoveOverlay => {
            let index = overlay(netlink)?;
            netlink.delete_link(index)
        }
        NodeOp::PutForwarding { mac, remote } => {
            let index = overlay(netlink)?;
            netlink.set_forwarding(index, MacAddress(*mac), *remote)
        }
        NodeOp::RemoveForwarding { mac, remote } => {
            let index = overlay(netlink)?;
            tolerate_missing(netlink.delete_forwarding(index, MacAddress(*mac), *remote))
        }
        NodeOp::PutNextHop { hop, mac } => {
            let index = overlay(netlink)?;
            netlink.set_neighbour(index, *hop, MacAddress(*mac))
        }
        NodeOp::RemoveNextHop { hop } => {
            let index = overlay(netlink)?;
            netlink.forget_neighbour(index, *hop).map(drop)
        }
        NodeOp::SetMtu { device, mtu } => change(netlink, device, &LinkChange::new().mtu(*mtu)),
        NodeOp::SetMac { device, mac } => change(netlink, device, &LinkChange::new().mac(MacAddress(*mac))),
        NodeOp::SetNoArp { device } => change(netlink, device, &LinkChange::new().arp(false)),
        NodeOp::SetUp { device } => change(netlink, device, &LinkChange::new().up(true)),
        NodeOp::Sysctl { name, value } => match sysctl::read(name) {
            // A kernel without IPv6 has none of its settings.
            Err(_) => Ok(()),
            Ok(held) if held == *value => Ok(()),
            Ok(_) => sysctl::set(name, value),
        },
        NodeOp::AddAddress { device, address } => add_address(netlink, device, *address),
        NodeOp::RemoveAddress { device, address } => {
            let index = netlink.link(device)?.index;
            netlink.delete_address(index, *address)
        }
    }
}

fn overlay(netlink: &mut Netlink) -> Result<u32> {
    netlink.link(OVERLAY_DEVICE).map(|link| link.index)
}

fn change(netlink: &mut Netlink, device: &str, change: &LinkChange) -> Result<()> {
    let index = netlink.link(device)?.index;
    netlink.change_link(index, change)
}

fn add_address(netlink: &mut Netlink, device: &str, address: IpNet) -> Result<()> {
    let index = netlink.link(device)?.index;
    // No duplicate address detection: the address is needed at once, and nobody else may have it.
    let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
    netlink.ensure_address(index, address, flags).map(drop)
}

/// It went with its device, or with the node that it was about.
fn tolerate_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// The plugin may have made it in the meantime.
fn tolerate_exists(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_exists() => Ok(()),
        other => other,
    }
}
