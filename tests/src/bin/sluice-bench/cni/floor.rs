//! The floor: the requests to the kernel without which there is no attached container, and nothing else.

use ipnet::IpNet;
use sluice_netlink::{AddressFlags, BridgeSpec, LinkChange, Namespace, Netlink, Route, VethEnd};
use sluice_tests::bed::Host;
use sluice_tests::{Error, Result};

use super::call::Call;

const BRIDGE: &str = "floor";

fn failed(error: sluice_netlink::Error) -> Error {
    Error::answer("the floor", error)
}

/// Makes the bridge.
pub(super) fn prepare(node: &Host) -> Result<()> {
    let namespace = Namespace::open(node.netns_path()).map_err(failed)?;
    let mut netlink = namespace.netlink().map_err(failed)?;
    netlink.create_bridge(&BridgeSpec::new(BRIDGE).up()).map_err(failed)?;
    let bridge = netlink.link(BRIDGE).map_err(failed)?.index;
    netlink
        .add_address(bridge, IpNet::new_assert([10, 90, 0, 1].into(), 16), AddressFlags::default())
        .map_err(failed)
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
    netlink.create_veth(&host, &VethEnd::new("eth0").namespace(&namespace)).map_err(failed)?;
    let inside = || -> sluice_netlink::Result<()> {
        let mut netlink = Netlink::open()?;
        let index = netlink.link("eth0")?.index;
        netlink.set_up(1)?;
        netlink.add_address(
            index,
            IpNet::new_assert([10, 90, 0, number].into(), 16),
            AddressFlags::default(),
        )?;
        netlink.change_link(index, &LinkChange::new().up(true))?;
        let any = IpNet::new_assert([0, 0, 0, 0].into(), 0);
        netlink.add_route(&Route::via(any, [10, 90, 0, 1].into(), index))
    };
    namespace.run(inside).map_err(failed)?.map_err(failed)
}
