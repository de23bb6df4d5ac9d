//! The floor: the requests to the kernel without which there is no attached container, and nothing else.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_netlink::{AddressFlags, BridgeSpec, LinkChange, Namespace, Netlink, Route, VethEnd};
use sluice_tests::bed::Host;
use sluice_tests::{Error, Result};

use super::call::Call;

const BRIDGE: &str = "floor";
const NODAD: AddressFlags = AddressFlags { nodad: true, no_prefix_route: false };

fn failed(error: sluice_netlink::Error) -> Error {
    Error::answer("the floor", error)
}

/// The address with this last number in the network of a family, 0 or 1.
fn address(family: u8, last: u8) -> IpNet {
    match family {
        0 => IpNet::new_assert([10, 90, 0, last].into(), 16),
        _ => IpNet::new_assert([0xfd00, 0x90, 0, 0, 0, 0, 0, u16::from(last)].into(), 64),
    }
}

/// Makes the bridge.
pub(super) fn prepare(node: &Host) -> Result<()> {
    let namespace = Namespace::open(node.netns_path()).map_err(failed)?;
    let mut netlink = namespace.netlink().map_err(failed)?;
    netlink.create_bridge(&BridgeSpec::new(BRIDGE).up()).map_err(failed)?;
    let bridge = netlink.link(BRIDGE).map_err(failed)?.index;
    for family in [0, 1] {
        netlink.add_address(bridge, address(family, 1), NODAD).map_err(failed)?;
    }
    Ok(())
}

/// Attaches a container, or takes it off.
pub(super) fn make(command: &str, call: &Call) -> Result<()> {
    let number = call.container.bytes().last().unwrap_or_default();
    let name = format!("floor{number}");
    let mut netlink = Netlink::open().map_err(failed)?;
    if command == "DEL" {
        let index = netlink.link(&name).map_err(failed)?.index;
        return netlink.delete_link(index).map_err(failed);
    }
    let namespace = Namespace::open(&call.netns).map_err(failed)?;
    let bridge = netlink.link(BRIDGE).map_err(failed)?.index;
    let host = VethEnd::new(&name).master(bridge).up();
    let peer = VethEnd::new("eth0").namespace(&namespace);
    let index = netlink.create_veth(&host, &peer).map_err(failed)?.peer;
    let families = 0..=u8::from(call.both);
    let inside = || -> sluice_netlink::Result<()> {
        let mut netlink = Netlink::open()?;
        netlink.set_up(1)?;
        for family in families.clone() {
            netlink.add_address(index, address(family, number), NODAD)?;
        }
        netlink.change_link(index, &LinkChange::new().up(true))?;
        for family in families {
            let gateway = address(family, 1).addr();
            let any = if gateway.is_ipv4() { [0; 4].into() } else { IpAddr::from([0_u16; 8]) };
            netlink.add_route(&Route::via(IpNet::new_assert(any, 0), gateway, index))?;
        }
        Ok(())
    };
    namespace.run(inside).map_err(failed)?.map_err(failed)
}
