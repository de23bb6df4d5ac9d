//! The container's side of an attachment.

use std::time::Duration;

use ipnet::IpNet;
use sluice_netlink::{AddressFlags, LinkChange, Netlink, Route, RouteScope, sysctl};

use crate::{
    bridge::is_disabled,
    config::{self, Config, RouteConfig},
    error::{Error, Result},
    loopback,
};

/// `RTPROT_BOOT`, as `ip route` would enter them: in the container they are its own.
const PROTOCOL: u8 = 3;

/// How long an address may take until it can be used: a second or two where the kernel asks for duplicates.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// The container's interface, as it should be.
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    pub(crate) addresses: &'a [IpNet],
    pub(crate) routes: &'a [RouteConfig],
}

/// Sets the interface up, in the calling thread's namespace.
pub(crate) fn set_up(config: &Config, interface: &Interface<'_>) -> Result<()> {
    let Interface { name, index, mtu, addresses, routes } = *interface;
    let mut netlink = Netlink::open()?;
    netlink.set_up(loopback::INDEX)?;
    // Peers that remember another holder of the address hear of the new one at once. Not by way of /proc/sys: to find
    // one container's settings among those of all is what takes longest there.
    netlink.change_link(index, &LinkChange::new().arp_notify())?;
    if !addresses.is_empty() {
        set_ipv6(config, name)?;
    }
    for (setting, value) in &config.sysctl {
        sysctl::set(&config::sysctl_path(setting, name)?, value)?;
    }
    let flags = AddressFlags { nodad: !config.enabledad, ..AddressFlags::default() };
    for address in addresses {
        match netlink.add_address(index, *address, flags) {
            Ok(()) => {}
            Err(error) if is_disabled(&error) && address.addr().is_ipv6() => {
                for device in [name, "lo"] {
                    sysctl::ensure(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0")?;
                }
                netlink.add_address(index, *address, flags)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(limit) = config.bandwidth().egress() {
        // On the container's own end, before a packet leaves it. On the node's end it would have to be sent through
        // a device of its own first, past the datapath. Who may change it may change all of the container's network.
        limit.set(&mut netlink, index, mtu)?;
    }
    let mut change = LinkChange::new().up(!config.disable_container_interface);
    if config.promisc {
        change = change.promiscuous(true);
    }
    if config.allmulti {
        change = change.all_multicast(true);
    }
    netlink.change_link(index, &change)?;
    for route in routes {
        netlink.add_route(&to_netlink(route, index)).map_err(|error| {
            let twice = error.is_exists() && route.dst.prefix_len() == 0;
            let error = Error::from(error);
            let hint = "the container has a default route already: further networks of it want isDefaultGateway false";
            if twice { error.detail(hint) } else { error }
        })?;
    }
    settle(&mut netlink, index, addresses)
}

/// Settings of an interface that has the addresses that it is given.
fn set_ipv6(config: &Config, name: &str) -> Result<()> {
    // Whatever the container needs it has been told; who else announces a router to it is not to be trusted.
    let mut settings = vec![("accept_ra", "0")];
    if !config.enabledad {
        // The addresses are ours to give, and nobody else's; asking would only cost the container a second.
        settings.push(("accept_dad", "0"));
    }
    Ok(sysctl::set_those_present(&format!("net/ipv6/conf/{name}"), &settings)?)
}

/// Waits until IPv6 addresses that were added can be used: the kernel sees to that in its own time, even where it asks
/// nobody.
pub(crate) fn settle(netlink: &mut Netlink, index: u32, addresses: &[IpNet]) -> Result<()> {
    if addresses.iter().any(|address| address.addr().is_ipv6()) {
        netlink.settle_addresses(index, addresses, SETTLE_LIMIT)?;
    }
    Ok(())
}

/// A route of the configuration in the kernel's terms.
pub(crate) fn to_netlink(route: &RouteConfig, index: u32) -> Route {
    Route {
        gateway: route.gw,
        scope: match (route.scope, route.gw) {
            (Some(scope), _) => scope.into(),
            (None, Some(_)) => RouteScope::Universe,
            (None, None) => Route::new(route.dst, index).scope,
        },
        table: route.table(),
        mtu: route.mtu,
        advmss: route.advmss,
        metric: route.priority,
        protocol: PROTOCOL,
        ..Route::new(route.dst, index)
    }
}
