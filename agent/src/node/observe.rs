//! Reads what is on the node. Changes nothing.

use std::collections::BTreeMap;

use sluice_ebpf_common::{SERVICE_DEVICE, SERVICE_PEER_DEVICE};
use sluice_netlink::{Link, Netlink, RouteFilter, RouteKind, TABLE_MAIN, owned, sysctl};

use super::found::{Device, Found, FoundRoute, Peers, Tunnel};
use crate::routes::OVERLAY_DEVICES;

/// Reads devices, addresses, routes and settings. A part that cannot be read is an error, never a shorter list.
pub fn observe(netlink: &mut Netlink) -> sluice_netlink::Result<Found> {
    let devices = observe_devices(netlink)?;
    let names: BTreeMap<u32, &String> = devices.iter().map(|(name, device)| (device.index, name)).collect();
    let addresses = netlink
        .addresses()?
        .into_iter()
        .filter_map(|entry| Some(((*names.get(&entry.index)?).clone(), entry.address)))
        // On the service device a Corefile may have asked for it.
        .filter(|(device, address)| {
            !is_link_local(address) || device == SERVICE_DEVICE && address.addr().is_ipv4()
        })
        .collect();
    let filter = RouteFilter { table: Some(TABLE_MAIN), ..RouteFilter::default() };
    let mut routes: Vec<_> = netlink
        .routes(&filter)?
        .into_iter()
        // Other kinds (that drop, say) are somebody else's decision about a destination.
        .map(|route| FoundRoute {
            destination: route.destination,
            via: route.gateway,
            device: route.device.and_then(|index| names.get(&index).map(|name| (*name).clone())),
            source: route.source,
            mtu: route.mtu,
            ours: route.protocol == owned::ROUTE_PROTOCOL && route.kind == RouteKind::Unicast,
        })
        .collect();
    routes.sort_unstable();
    let sysctls = sysctls(devices.keys());
    let mut found = Found { devices, addresses, routes, sysctls, ..Found::default() };
    for name in OVERLAY_DEVICES {
        let overlay = found.devices.get(name).filter(|device| device.tunnel.is_some());
        if let Some(index) = overlay.map(|device| device.index) {
            let forwardings = netlink.forwardings(index)?.into_iter();
            let forwarding = forwardings.map(|entry| (entry.mac.0, entry.remote)).collect();
            let permanent = netlink.neighbours(index)?.into_iter().filter(|neighbour| neighbour.permanent);
            let next_hops = permanent.filter_map(|hop| Some((hop.address, hop.mac?.0))).collect();
            found.overlays.insert(name, Peers { forwarding, next_hops });
        }
    }
    Ok(found)
}

/// Reads devices only: all that a pod that comes or goes changes.
pub fn observe_devices(netlink: &mut Netlink) -> sluice_netlink::Result<BTreeMap<String, Device>> {
    let device = |link: Link| {
        let device = Device {
            index: link.index,
            mac: link.mac.map(|mac| mac.0),
            mtu: link.mtu,
            up: link.flags.is_up(),
            noarp: link.flags.is_noarp(),
            loopback: link.flags.is_loopback(),
            tunnel: link.vxlan.map(|vxlan| Tunnel {
                id: vxlan.id,
                port: vxlan.port,
                local: vxlan.local,
                learning: vxlan.learning,
            }),
        };
        (link.name, device)
    };
    Ok(netlink.links()?.into_iter().map(device).collect())
}

fn is_link_local(address: &ipnet::IpNet) -> bool {
    match address.addr() {
        std::net::IpAddr::V4(ip) => ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The settings that [`super::desired`] looks at or sets. One that does not exist is left out.
fn sysctls<'a>(devices: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    let mut names: Vec<String> =
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter"]
            .map(str::to_owned)
            .into();
    for name in devices.filter(|name| !owned::is_host_veth_name(name)) {
        for setting in ["accept_ra", "accept_dad"] {
            names.push(format!("net/ipv6/conf/{name}/{setting}"));
        }
        if name == SERVICE_DEVICE || OVERLAY_DEVICES.contains(&name.as_str()) {
            for setting in ["rp_filter", "accept_local", "route_localnet"] {
                names.push(format!("net/ipv4/conf/{name}/{setting}"));
            }
        }
        if name == SERVICE_PEER_DEVICE {
            names.push(format!("net/ipv6/conf/{name}/disable_ipv6"));
        }
    }
    names.into_iter().filter_map(|name| sysctl::read(&name).ok().map(|value| (name, value))).collect()
}
