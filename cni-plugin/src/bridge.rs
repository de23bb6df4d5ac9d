//! The bridge that pods are ports of: made if there is none, adopted if there is.

use ipnet::IpNet;
use sluice_netlink::{
    AddressFlags, BridgeSpec, Link, LinkChange, MacAddress, Netlink, VethEnd, owned, sysctl,
};

use crate::{
    config::{Config, Vlans},
    error::{Code, Error, Result},
    pod,
};

/// The bridge as an attachment needs it.
pub(crate) struct Bridge {
    pub(crate) index: u32,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
    pub(crate) gateway: Gateway,
}

/// The device that has the gateway's addresses: the bridge itself, or what makes the node a member of a VLAN.
pub(crate) struct Gateway {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: MacAddress,
}

/// Makes sure that the bridge is there and is up. A bridge that somebody else made keeps all that it has. `seed` tells
/// this node's bridge from those of other nodes.
pub(crate) fn ensure(netlink: &mut Netlink, config: &Config, seed: &str) -> Result<Bridge> {
    let (name, vlans) = (config.bridge(), config.vlans()?);
    let link = match netlink.find_link(name)? {
        Some(link) => link,
        None => create(netlink, config, vlans.is_some(), seed)?,
    };
    check_kind(&link, "bridge")?;
    if !link.flags.is_up() {
        netlink.set_up(link.index)?;
    }
    if config.promisc_mode && !link.flags.is_promiscuous() {
        netlink.change_link(link.index, &LinkChange::new().promiscuous(true))?;
    }
    // Its ports so far stay in one VLAN with it, the default one, and notice nothing.
    if vlans.is_some() && link.vlan_filtering != Some(true) {
        netlink.set_vlan_filtering(link.index, true).map_err(|error| vlan_failed(config, error))?;
    }
    let mac = mac(&link)?;
    let gateway = match (config.vlan_gateway()?, vlans) {
        (Some(name), Some(vlans)) => ensure_vlan_gateway(netlink, config, &link, &name, seed, &vlans)?,
        _ => Gateway { index: link.index, name: link.name, mac },
    };
    Ok(Bridge { index: link.index, mac, mtu: link.mtu, gateway })
}

fn check_kind(link: &Link, wanted: &str) -> Result<()> {
    if link.is_kind(wanted) {
        return Ok(());
    }
    let (name, kind) = (&link.name, link.kind.as_deref().unwrap_or("of no kind"));
    Err(Error::config(format!("bridge {name} exists and is no {wanted} ({kind})")))
}

fn mac(link: &Link) -> Result<MacAddress> {
    link.mac.ok_or_else(|| Error::config(format!("bridge {} has no link-layer address", link.name)))
}

fn create(netlink: &mut Netlink, config: &Config, vlan_filtering: bool, seed: &str) -> Result<Link> {
    let name = config.bridge();
    let mut bridge = BridgeSpec::new(name).vlan_filtering(vlan_filtering).up();
    if !seed.is_empty() {
        // Where nothing tells this node's bridge from others', as where it is nobody's gateway, the kernel chooses.
        bridge = bridge.mac(owned::bridge_mac(name, seed));
    }
    match netlink.create_bridge(&bridge) {
        Ok(()) => distrust(name)?,
        // Another ADD was faster; its bridge is the same.
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(vlan_failed(config, error)),
    }
    Ok(netlink.link(name)?)
}

/// Settings of a device of the node that containers speak to: they must not announce a router to it. And until its
/// link-local address had been proven unique, for two seconds, the node could not ask for a container's link-layer
/// address.
fn distrust(name: &str) -> Result<()> {
    let settings = [("accept_ra", "0"), ("accept_dad", "0")];
    Ok(sysctl::set_those_present(&format!("net/ipv6/conf/{name}"), &settings)?)
}

/// Makes sure that the node is a member of a VLAN of the bridge: by a veth pair of which one end is a port of it, and the
/// other the gateway.
fn ensure_vlan_gateway(
    netlink: &mut Netlink,
    config: &Config,
    bridge: &Link,
    name: &str,
    seed: &str,
    vlans: &Vlans,
) -> Result<Gateway> {
    let port_name = format!("{name}p");
    if netlink.find_link(name)?.is_none() {
        let port = VethEnd::new(&port_name).mtu(bridge.mtu).master(bridge.index).queues(1).up();
        let own = VethEnd::new(name).mtu(bridge.mtu).mac(owned::bridge_mac(name, seed)).queues(1);
        match netlink.create_veth(&port, &own) {
            Ok(_) => distrust(name)?,
            // As with the bridge.
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Each time: whoever made it may have been killed before it came to this.
    let port = netlink.link(&port_name)?;
    set_vlans(netlink, config, port.index, &vlans.untagged())?;
    let link = netlink.link(name)?;
    check_kind(&link, "veth")?;
    if !link.flags.is_up() {
        netlink.set_up(link.index)?;
    }
    Ok(Gateway { index: link.index, mac: mac(&link)?, name: link.name })
}

/// Makes a port of the bridge a member of VLANs.
pub(crate) fn set_vlans(netlink: &mut Netlink, config: &Config, port: u32, vlans: &Vlans) -> Result<()> {
    netlink.add_vlans(port, &vlans.port).map_err(|error| vlan_failed(config, error))?;
    if vlans.keep_default {
        return Ok(());
    }
    // What the bridge put it into when it became its port: VLAN 1, or what the bridge has for one.
    let found = netlink.vlans(port)?;
    for number in vlans.too_many(&found) {
        netlink.remove_vlan(port, number)?;
    }
    Ok(())
}

fn vlan_failed(config: &Config, error: sluice_netlink::Error) -> Error {
    if error.is_unsupported() { vlan_unsupported(config).detail(error) } else { error.into() }
}

/// That the kernel cannot do what the configuration asks for.
pub(crate) fn vlan_unsupported(config: &Config) -> Error {
    let (key, value) = config.vlan_option();
    let why = "this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)";
    Error::new(Code::UnsupportedField, format!("{key}: {value} is not supported: {why}"))
}

/// Makes sure that the device has the gateways' addresses, and that the node forwards.
pub(crate) fn ensure_gateways(
    netlink: &mut Netlink,
    config: &Config,
    device: &Gateway,
    gateways: &[IpNet],
) -> Result<()> {
    if !config.is_gateway() || gateways.is_empty() {
        return Ok(());
    }
    let present = netlink.addresses_of(device.index)?;
    let missing: Vec<_> =
        gateways.iter().filter(|gateway| !present.iter().any(|found| found.address == **gateway)).collect();
    if !missing.is_empty() {
        if config.force_address {
            for found in &present {
                let same_family =
                    |gateway: &&&IpNet| gateway.addr().is_ipv4() == found.address.addr().is_ipv4();
                // Link-local addresses are the kernel's.
                if found.scope == 0 && missing.iter().any(|gateway| same_family(&gateway)) {
                    netlink.delete_address(device.index, found.address)?;
                }
            }
        }
        // A bridge takes the lowest address of its ports unless it was given one. Pods remember the gateway's, so
        // it must not change any more: giving a bridge the address that it has makes it keep it.
        netlink.change_link(device.index, &LinkChange::new().mac(device.mac))?;
    }
    for gateway in &missing {
        let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
        match netlink.ensure_address(device.index, **gateway, flags) {
            Ok(_) => {}
            Err(error) if is_disabled(&error) && gateway.addr().is_ipv6() => {
                sysctl::ensure(&format!("net/ipv6/conf/{}/disable_ipv6", device.name), "0")?;
                netlink.ensure_address(device.index, **gateway, flags)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !missing.is_empty() {
        pod::settle(netlink, device.index, gateways)?;
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
