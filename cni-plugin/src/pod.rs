//! The container's side of an attachment.

use ipnet::IpNet;
use sluice_netlink::{AddressFlags, Netlink, Route, RouteScope, sysctl};

use crate::{
    bridge::is_disabled,
    config::RouteConfig,
    error::{Code, Error, Result},
};

/// Index of the loopback device, in every namespace.
const LOOPBACK: u32 = 1;
/// `RTPROT_BOOT`, as `ip route` would enter them: in the container they are its own.
const PROTOCOL: u8 = 3;

/// Sets up the interface `index`, called `name`, in the calling thread's namespace.
pub(crate) fn set_up(
    name: &str,
    index: u32,
    addresses: &[IpNet],
    routes: &[RouteConfig],
    detect_duplicates: bool,
) -> Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.set_up(LOOPBACK)?;
    // Peers that remember another holder of the address hear of the new one at once.
    set_if_present(&format!("net/ipv4/conf/{name}/arp_notify"), "1")?;
    if !detect_duplicates {
        // The addresses are ours to give, and nobody else's; asking would only cost the container a second.
        set_if_present(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
    }
    let flags = AddressFlags { nodad: !detect_duplicates, ..AddressFlags::default() };
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
    netlink.set_up(index)?;
    for route in routes {
        netlink.add_route(&to_netlink(route, index))?;
    }
    Ok(())
}

/// A route of the configuration in the kernel's terms.
pub(crate) fn to_netlink(route: &RouteConfig, index: u32) -> Route {
    Route {
        gateway: route.gw,
        scope: if route.gw.is_some() { RouteScope::Universe } else { Route::new(route.dst, index).scope },
        mtu: route.mtu,
        advmss: route.advmss,
        metric: route.priority,
        protocol: PROTOCOL,
        ..Route::new(route.dst, index)
    }
}

/// Sets a value that a kernel without the family does not have.
fn set_if_present(name: &str, value: &str) -> Result<()> {
    match sysctl::set(name, value) {
        Err(error) if !error.is_not_found() => Err(Error::new(Code::Kernel, error.to_string())),
        _ => Ok(()),
    }
}
