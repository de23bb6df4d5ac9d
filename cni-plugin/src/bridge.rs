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

/// Makes sure that the bridge is there, is up, and has the gateways' addresses. A bridge that somebody else
/// made keeps all that it has.
pub(crate) fn ensure(netlink: &mut Netlink, config: &Config, gateways: &[IpNet]) -> Result<Bridge> {
    let name = config.bridge();
    let mut link = match netlink.find_link(name)? {
        Some(link) => link,
        None => create(netlink, name, gateways)?,
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
    if config.is_gateway {
        ensure_gateways(netlink, config, &mut link, gateways)?;
    }
    let mac = link.mac.ok_or_else(|| Error::config(format!("bridge {name} has no link-layer address")))?;
    Ok(Bridge { index: link.index, mac, mtu: link.mtu })
}

fn create(netlink: &mut Netlink, name: &str, gateways: &[IpNet]) -> Result<Link> {
    let seed = gateways.first().map(ToString::to_string).unwrap_or_default();
    let bridge = BridgeSpec::new(name).mac(owned::bridge_mac(name, &seed)).up();
    match netlink.create_bridge(&bridge) {
        Ok(()) => {
            // A container must not announce a router to the node.
            match sysctl::set(&format!("net/ipv6/conf/{name}/accept_ra"), "0") {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        // Another ADD was faster; its bridge is the same.
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(netlink.link(name)?)
}

fn ensure_gateways(
    netlink: &mut Netlink,
    config: &Config,
    link: &mut Link,
    gateways: &[IpNet],
) -> Result<()> {
    let present = netlink.addresses_of(link.index)?;
    let missing: Vec<_> =
        gateways.iter().filter(|gateway| !present.iter().any(|found| found.address == **gateway)).collect();
    if !missing.is_empty() {
        if config.force_address {
            for found in &present {
                let same_family =
                    |gateway: &&&IpNet| gateway.addr().is_ipv4() == found.address.addr().is_ipv4();
                // Link-local addresses are the kernel's.
                if found.scope == 0 && missing.iter().any(|gateway| same_family(&gateway)) {
                    netlink.delete_address(link.index, found.address)?;
                }
            }
        }
        // A bridge takes the lowest address of its ports unless it was given one. Pods remember the gateway's, so
        // it must not change any more: giving a bridge the address that it has makes it keep it.
        if let Some(mac) = link.mac {
            netlink.change_link(link.index, &LinkChange::new().mac(mac))?;
        }
    }
    for gateway in missing {
        let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
        match netlink.ensure_address(link.index, *gateway, flags) {
            Ok(_) => {}
            Err(error) if is_disabled(&error) && gateway.addr().is_ipv6() => {
                sysctl::ensure(&format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0")?;
                netlink.ensure_address(link.index, *gateway, flags)?;
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
