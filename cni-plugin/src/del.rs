//! DEL: takes an attachment apart, whatever is left of it.

use std::{net::IpAddr, path::PathBuf};

use sluice_netlink::{Netlink, PacketFilter, conditional, owned, spoof};

use crate::{
    config::Config,
    datapath,
    delegate::Delegate,
    desired,
    environment::Target,
    error::Result,
    node::NodeConfig,
    ports,
    store::{self, Held, Network, Protocol, State},
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
    if config.has_conditions() {
        ports::close_conditional(std::iter::once(&host_veth))?;
    }
    let filter = open_filter(config.macspoofchk)?;
    delete_link(&mut netlink, &host_veth, filter, config.macspoofchk)
}

/// A connection to the packet filter, if something is to be deleted there.
fn open_filter(needed: bool) -> Result<Option<PacketFilter>> {
    if needed { Ok(PacketFilter::find()?) } else { Ok(None) }
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
    let mut filter = open_filter(remains.ports || config.macspoofchk)?;
    let closed = remains.close_ports(filter.as_mut());
    let left = datapath::leave(&remains.bpffs, &remains.host_veth, &remains.addresses);
    let mut netlink = Netlink::open()?;
    delete_link(&mut netlink, &remains.host_veth, filter, config.macspoofchk)?;
    closed?;
    left?;
    // Whoever gets one of the addresses next has another link-layer address.
    if let Some(device) = netlink.find_link(&remains.gateway_device)? {
        for address in remains.addresses {
            netlink.forget_neighbour(device.index, address)?;
        }
    }
    Ok(network.remove(held)?)
}

/// What an attachment may have left behind.
struct Remains {
    host_veth: String,
    /// The device by which the node reaches it.
    gateway_device: String,
    bpffs: PathBuf,
    addresses: Vec<IpAddr>,
    /// Whether host ports may lead to it, and whether any of UDP.
    ports: bool,
    udp: bool,
    /// Whether there may be some that not everybody may use.
    conditional: bool,
}

impl Remains {
    fn close_ports(&self, filter: Option<&mut PacketFilter>) -> Result<()> {
        if !self.ports {
            return Ok(());
        }
        datapath::close_ports(&self.bpffs, &self.addresses)?;
        let Some(filter) = filter else { return Ok(()) };
        if self.conditional {
            conditional::close(filter, &self.host_veth)?;
        }
        // Where the agent came after the container, they are here.
        ports::close(filter, &self.addresses, self.udp)
    }

    fn of(config: &Config, network: &Network, held: &Held) -> Result<Self> {
        let Some(record) = &held.record else {
            // Damaged. Its name says what its device is called, and its addresses are links to it.
            let (container_id, ifname) = held.attachment().unwrap_or_default();
            let node = NodeConfig::read(&config.state_dir()).ok().flatten();
            return Ok(Self {
                host_veth: owned::host_veth_name(&container_id, &ifname),
                gateway_device: config.vlan_gateway()?.unwrap_or_else(|| config.bridge().to_owned()),
                bpffs: desired::bpffs(config, node.as_ref()),
                addresses: network.addresses_of(held)?,
                ports: true,
                udp: true,
                conditional: true,
            });
        };
        // An ADD that died may have noted addresses that it never got; those of another plugin are not in our store.
        let delegated = config.delegated_ipam().is_some();
        let addresses = record.addresses.iter().map(ipnet::IpNet::addr);
        Ok(Self {
            host_veth: record.host_veth.clone(),
            gateway_device: record.gateway_device().to_owned(),
            bpffs: record.bpffs.clone(),
            addresses: addresses.filter(|address| delegated || network.holds(held, *address)).collect(),
            ports: !record.host_ports.is_empty(),
            udp: record.host_ports.iter().any(|port| port.protocol == Protocol::Udp),
            conditional: [true, false].iter().any(|v4| !record.conditions(*v4).is_empty()),
        })
    }
}

/// Deletes a link, and what the packet filter has of it if it was `filtered`. That there is none is no error; the other
/// end may have taken it along at any moment. The connection to the packet filter is closed by whoever waits for the
/// link's end.
fn delete_link(
    netlink: &mut Netlink,
    name: &str,
    mut filter: Option<PacketFilter>,
    filtered: bool,
) -> Result<()> {
    // Before the link goes, so that one child waits for both. What the container could still send is nobody's any more:
    // its addresses are out of the datapath.
    if let Some(filter) = filter.as_mut().filter(|_| filtered) {
        spoof::forget(filter, name)?;
    }
    let Some(link) = netlink.find_link(name)? else { return Ok(()) };
    match netlink.delete_link_promptly(link.index, filter.as_ref()) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Deletes the link of an attachment that nobody knows any more.
pub(crate) fn delete_stray(netlink: &mut Netlink, name: &str) -> Result<()> {
    delete_link(netlink, name, PacketFilter::find()?, true)
}
