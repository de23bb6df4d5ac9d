//! DEL: takes an attachment apart, whatever is left of it.

use std::net::IpAddr;

use sluice_netlink::{Netlink, owned};

use crate::{
    config::Config,
    datapath, desired,
    environment::Target,
    error::Result,
    node::NodeConfig,
    store::{self, Held, Network, State},
};

/// Takes the attachment apart. That there is none is no error.
pub(crate) fn del(config: &Config, target: &Target) -> Result<()> {
    let state_dir = config.state_dir();
    let network = Network::open(&state_dir, &config.name)?;
    if let Some(held) = network.hold(&target.container_id, &target.ifname)? {
        return take_apart(&network, held);
    }
    // No record: nothing was made, or the state directory was lost. What carries this attachment's name is its
    // own, unless another attachment happens to have the same name.
    let host_veth = owned::host_veth_name(&target.container_id, &target.ifname);
    let mut netlink = Netlink::open()?;
    if netlink.find_link(&host_veth)?.is_none() {
        return Ok(());
    }
    if store::list(&state_dir)?.attachments.iter().any(|other| other.host_veth == host_veth) {
        return Ok(());
    }
    let node = NodeConfig::read(&state_dir).ok().flatten();
    datapath::leave(&desired::bpffs(config, node.as_ref()), &host_veth, &[])?;
    delete_link(&mut netlink, &host_veth)
}

/// Takes apart what ADD made, in the reverse order, and forgets it. Where a part fails, the record stays, so
/// that the next DEL or GC tries again.
pub(crate) fn take_apart(network: &Network, mut held: Held) -> Result<()> {
    held.set_state(State::Deleting)?;
    let Some(record) = held.record.clone() else {
        // Empty or damaged: its name still says what its device is called.
        if held.damage.is_some()
            && let Some((container_id, ifname)) = held.attachment()
        {
            delete_link(&mut Netlink::open()?, &owned::host_veth_name(&container_id, &ifname))?;
        }
        return Ok(network.remove(held)?);
    };
    // An ADD that died may have noted addresses that it never got.
    let addresses: Vec<IpAddr> = record
        .addresses
        .iter()
        .map(ipnet::IpNet::addr)
        .filter(|address| network.holds(&held, *address))
        .collect();
    let left = datapath::leave(&record.bpffs, &record.host_veth, &addresses);
    let mut netlink = Netlink::open()?;
    delete_link(&mut netlink, &record.host_veth)?;
    left?;
    // Whoever gets one of the addresses next has another link-layer address.
    if let Some(bridge) = netlink.find_link(&record.bridge)? {
        for address in addresses {
            netlink.forget_neighbour(bridge.index, address)?;
        }
    }
    Ok(network.remove(held)?)
}

/// Deletes a link. That there is none is no error; the other end may have taken it along at any moment.
pub(crate) fn delete_link(netlink: &mut Netlink, name: &str) -> Result<()> {
    let Some(link) = netlink.find_link(name)? else { return Ok(()) };
    match netlink.delete_link(link.index) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
