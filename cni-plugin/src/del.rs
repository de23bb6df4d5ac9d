//! DEL: takes an attachment apart, whatever is left of it.

use std::{net::IpAddr, path::PathBuf};

use sluice_netlink::{Netlink, owned, spoof};

use crate::{
    config::Config,
    datapath,
    delegate::Delegate,
    desired,
    environment::Target,
    error::Result,
    node::NodeConfig,
    ports,
    store::{self, Held, Network, State},
};

/// Takes the attachment apart. That there is none is no error.
pub(crate) fn del(config: &Config, target: &Target, delegate: Option<&Delegate>) -> Result<()> {
    del_own(config, target)?;
    // Addresses go back last, when nothing uses them any more.
    delegate.map_or(Ok(()), |delegate| delegate.forward("DEL", config))
}

fn del_own(config: &Config, target: &Target) -> Result<()> {
    let state_dir = config.state_dir();
    let network = Network::open(&state_dir, &config.name)?;
    if let Some(held) = network.hold(&target.container_id, &target.ifname)? {
        return take_apart(config, &network, held);
    }
    // It may have been attached by the plugins that were here before.
    if let Some(host_local) = config.host_local() {
        host_local.release(&target.container_id, &target.ifname)?;
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
    if config.macspoofchk {
        spoof::forget(&host_veth)?;
    }
    delete_link(&mut netlink, &host_veth)
}

/// Takes apart what ADD made, in the reverse order, and forgets it. Where a part fails, the record stays, so
/// that the next DEL or GC tries again.
pub(crate) fn take_apart(config: &Config, network: &Network, mut held: Held) -> Result<()> {
    held.set_state(State::Deleting)?;
    if held.record.is_none() && held.damage.is_none() {
        // It was about to be made, and nothing was.
        return Ok(network.remove(held)?);
    }
    let remains = Remains::of(config, network, &held)?;
    let closed = remains.close_ports();
    let left = datapath::leave(&remains.bpffs, &remains.host_veth, &remains.addresses);
    let mut netlink = Netlink::open()?;
    delete_link(&mut netlink, &remains.host_veth)?;
    if config.macspoofchk {
        spoof::forget(&remains.host_veth)?;
    }
    closed?;
    left?;
    // Whoever gets one of the addresses next has another link-layer address.
    if let Some(bridge) = netlink.find_link(&remains.bridge)? {
        for address in remains.addresses {
            netlink.forget_neighbour(bridge.index, address)?;
        }
    }
    Ok(network.remove(held)?)
}

/// What an attachment may have left behind.
struct Remains {
    host_veth: String,
    bridge: String,
    bpffs: PathBuf,
    addresses: Vec<IpAddr>,
    /// Whether host ports may lead to it.
    ports: bool,
}

impl Remains {
    fn close_ports(&self) -> Result<()> {
        if self.ports {
            datapath::close_ports(&self.bpffs, &self.addresses)?;
            // Where the agent came after the container, they are here.
            ports::close(&self.addresses)?;
        }
        Ok(())
    }

    fn of(config: &Config, network: &Network, held: &Held) -> Result<Self> {
        let Some(record) = &held.record else {
            // Damaged. Its name says what its device is called, and its addresses are links to it.
            let (container_id, ifname) = held.attachment().unwrap_or_default();
            let node = NodeConfig::read(&config.state_dir()).ok().flatten();
            return Ok(Self {
                host_veth: owned::host_veth_name(&container_id, &ifname),
                bridge: config.bridge().to_owned(),
                bpffs: desired::bpffs(config, node.as_ref()),
                addresses: network.addresses_of(held)?,
                ports: true,
            });
        };
        // An ADD that died may have noted addresses that it never got; those of another plugin are not in our store.
        let delegated = config.delegated_ipam().is_some();
        let addresses = record.addresses.iter().map(ipnet::IpNet::addr);
        Ok(Self {
            host_veth: record.host_veth.clone(),
            bridge: record.bridge.clone(),
            bpffs: record.bpffs.clone(),
            addresses: addresses.filter(|address| delegated || network.holds(held, *address)).collect(),
            ports: !record.host_ports.is_empty(),
        })
    }
}

/// Deletes a link. That there is none is no error; the other end may have taken it along at any moment.
pub(crate) fn delete_link(netlink: &mut Netlink, name: &str) -> Result<()> {
    let Some(link) = netlink.find_link(name)? else { return Ok(()) };
    match netlink.delete_link_promptly(link.index) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
