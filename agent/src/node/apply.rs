//! Applies the plan for the node.

use ipnet::IpNet;
use sluice_ebpf_common::{NODE_MAC, SERVICE_DEVICE, SERVICE_PEER_DEVICE};
use sluice_netlink::{
    AddressFlags, BridgeSpec, Error, LinkChange, MacAddress, Netlink, Request, Result, VethEnd, Vxlan, sysctl,
};

use super::{found::Tunnel, plan::NodeOp};

/// Applies operations in their order, and gives those that failed. What is entered into one device one after the other is
/// sent to the kernel together.
pub fn apply<'a>(netlink: &mut Netlink, ops: &'a [NodeOp]) -> Vec<(&'a NodeOp, Error)> {
    let mut failed = Vec::new();
    for part in ops.chunk_by(|a, b| a.entered_into().is_some() && a.entered_into() == b.entered_into()) {
        match part[0].entered_into() {
            Some(device) => match netlink.link(device) {
                Ok(link) => {
                    let requests: Vec<_> = part.iter().filter_map(|op| request(op, link.index)).collect();
                    let errors = netlink.carry_out(&requests).into_iter();
                    failed.extend(errors.map(|(at, error)| (&part[at], error)));
                }
                // Once for all of them: they wait for the same.
                Err(error) => failed.push((&part[0], error)),
            },
            None => failed.extend(part.iter().filter_map(|op| Some((op, apply_one(netlink, op).err()?)))),
        }
    }
    failed
}

/// The request for what is entered into a device of the overlay.
fn request(op: &NodeOp, index: u32) -> Option<Request> {
    match *op {
        NodeOp::PutForwarding { mac, remote, .. } => {
            Some(Request::SetForwarding { index, mac: MacAddress(mac), remote })
        }
        NodeOp::RemoveForwarding { mac, remote, .. } => {
            Some(Request::DeleteForwarding { index, mac: MacAddress(mac), remote })
        }
        NodeOp::PutNextHop { hop, mac, .. } => {
            Some(Request::SetNeighbour { index, address: hop, mac: MacAddress(mac) })
        }
        NodeOp::RemoveNextHop { hop, .. } => Some(Request::ForgetNeighbour { index, address: hop }),
        _ => None,
    }
}

fn apply_one(netlink: &mut Netlink, op: &NodeOp) -> Result<()> {
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
            netlink.create_veth(&end, &VethEnd::new(SERVICE_PEER_DEVICE).mtu(*mtu).noarp()).map(|_| ())
        }
        NodeOp::CreateOverlay { device, tunnel, mac, mtu } => {
            // What makes it what it is, nobody can change.
            if let Some(link) = netlink.find_link(device)?.filter(|link| link.vxlan.is_some()) {
                netlink.delete_link(link.index)?;
            }
            let Tunnel { id, port, local, learning } = *tunnel;
            let vxlan = Vxlan { id, port, local, learning };
            netlink.create_vxlan(device, &vxlan, MacAddress(*mac), *mtu)
        }
        NodeOp::RemoveOverlay { device } => {
            let index = netlink.link(device)?.index;
            netlink.delete_link(index)
        }
        // These are sent together, above.
        NodeOp::PutForwarding { .. }
        | NodeOp::RemoveForwarding { .. }
        | NodeOp::PutNextHop { .. }
        | NodeOp::RemoveNextHop { .. } => Ok(()),
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

/// The plugin may have made it in the meantime.
fn tolerate_exists(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_exists() => Ok(()),
        other => other,
    }
}
