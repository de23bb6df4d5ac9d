//! The bridge that pods are ports of: made if there is none, adopted if there is.

use ipnet::IpNet;
use sluice_netlink::{AddressFlags, BridgeSpec, Link, LinkChange, MacAddress, Netlink, owned, sysctl};

use crate::{
    config::Config,
    error::{Error, Result},
};

/// The bridge as an attachment needs it.
pub(crate) struct Bridge {
    pub(crate) index: u32,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
}

/// Makes sure that the bridge is there and is up. A bridge that somebody else made keeps all that it has. `seed` tells
/// this node's bridge from those of other nodes.
pub(crate) fn ensure(netlink: &mut Netlink, config: &Config, seed: &str) -> Result<Bridge> {
    let name = config.bridge();
    let link = match netlink.find_link(name)? {
        Some(link) => link,
        None => create(netlink, name, seed)?,
    };
    if !link.is_kind("bridge") {
        let kind = link.kind.as_deref().unwrap_or("of no kind");
        return Err(Error::config(format!("bridge {name} exists and is no bridge ({kind})")));
    }
    if !link.flags.is_up() {
        netlink.set_up(link.index)?;
    }
    if config.promisc_mode && !link.flags.is_promiscuous() {
        netlink.change_link(link.index, &LinkChange::new().promiscuous(true))?;
    }
    let mac = link.mac.ok_or_else(|| Error::config(format!("bridge {name} has no link-layer address")))?;
    Ok(Bridge { index: link.index, mac, mtu: link.mtu })
}

fn create(netlink: &mut Netlink, name: &str, seed: &str) -> Result<Link> {
    let bridge = BridgeSpec::new(name).mac(owned::bridge_mac(name, seed)).up();
    match netlink.create_bridge(&bridge) {
        Ok(()) => {
            // A container must not announce a router to the node. And until its link-local address had been
            // proven unique, for two seconds, the node could not ask for a container's link-layer address.
            for setting in ["accept_ra", "accept_dad"] {
                match sysctl::set(&format!("net/ipv6/conf/{name}/{setting}"), "0") {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        // Another ADD was faster; its bridge is the same.
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(netlink.link(name)?)
}

/// Makes sure that the bridge has the gateways' addresses, and that the node forwards.
pub(crate) fn ensure_gateways(
    netlink: &mut Netlink,
    config: &Config,
    bridge: &Bridge,
    gateways: &[IpNet],
) -> Result<()> {
    if !config.is_gateway || gateways.is_empty() {
        return Ok(());
    }
    let present = netlink.addresses_of(bridge.index)?;
    let missing: Vec<_> =
        gateways.iter().filter(|gateway| !present.iter().any(|found| found.address == **gateway)).collect();
    if !missing.is_empty() {
        if config.force_address {
            for found in &present {
                let same_family =
                    |gateway: &&&IpNet| gateway.addr().is_ipv4() == found.address.addr().is_ipv4();
                // Link-local addresses are the kernel's.
                if found.scope == 0 && missing.iter().any(|gateway| same_family(&gateway)) {
                    netlink.delete_address(bridge.index, found.address)?;
                }
            }
        }
        // A bridge takes the lowest address of its ports unless it was given one. Pods remember the gateway's, so
        // it must not change any more: giving a bridge the address that it has makes it keep it.
        netlink.change_link(bridge.index, &LinkChange::new().mac(bridge.mac))?;
    }
    for gateway in missing {
        let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
        match netlink.ensure_address(bridge.index, *gateway, flags) {
            Ok(_) => {}
            Err(error) if is_disabled(&error) && gateway.addr().is_ipv6() => {
                sysctl::ensure(&format!("net/ipv6/conf/{}/disable_ipv6", config.bridge()), "0")?;
                netlink.ensure_address(bridge.index, *gateway, flags)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    for gateway in gateways {
        let name =
            if gateway.addr().is_ipv4() { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
        sysctl::ensure(name, "1")?;
    }
    Ok(())
}

/// Whether an address was refused because IPv6 is switched off on the link.
pub(crate) fn is_disabled(error: &sluice_netlink::Error) -> bool {
    /// `EACCES`, which is what the kernel says.
    const EACCES: i32 = 13;
    error.errno() == Some(EACCES)
}
