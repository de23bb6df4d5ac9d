//! GC: leaves exactly the attachments that the runtime calls valid, and nothing else of ours.

use std::collections::BTreeSet;

use sluice_netlink::{Netlink, host_port, masquerade, owned};

use crate::{
    config::{Config, ValidAttachment},
    datapath, del,
    delegate::Delegate,
    desired,
    error::{Code, Error, Result},
    node::NodeConfig,
    ports,
    store::{self, Attachment, Network},
};

/// Takes apart every attachment of the network that is not valid, then removes what carries our marks and belongs
/// to no attachment. Goes on where something fails, and reports all of it.
pub(crate) fn gc(config: &Config, delegate: Option<&Delegate>) -> Result<()> {
    let valid = config.valid_attachments().ok_or_else(|| {
        // An empty list means that nothing is valid. None at all is more likely a mistake than that.
        Error::config("cni.dev/valid-attachments is missing, and GC needs it")
    })?;
    let valid: BTreeSet<&ValidAttachment> = valid.iter().collect();
    let state_dir = config.state_dir();
    let network = Network::open(&state_dir, &config.name)?;
    let mut failures = Vec::new();
    for (container_id, ifname) in network.attachments()? {
        let attachment = ValidAttachment { container_id, ifname };
        if valid.contains(&attachment) {
            continue;
        }
        let ValidAttachment { container_id, ifname } = attachment;
        let taken_apart = network
            .hold(&container_id, &ifname)
            .map_err(Error::from)
            .and_then(|held| held.map_or(Ok(()), |held| del::take_apart(config, &network, held)));
        if let Err(error) = taken_apart {
            failures.push(format!("{container_id}:{ifname}: {error}"));
        }
    }
    if let Some(Err(error)) = config.host_local().map(|host_local| {
        host_local.release_others(|id, ifname| {
            valid
                .iter()
                .any(|valid| valid.container_id == id && ifname.is_none_or(|ifname| valid.ifname == ifname))
        })
    }) {
        failures.push(error.to_string());
    }
    if let Err(error) = network.drop_orphans() {
        failures.push(error.to_string());
    }
    if let Err(error) = remove_unrecorded(config) {
        failures.push(error.to_string());
    }
    if let Some(Err(error)) = delegate.map(|delegate| delegate.forward("GC", config)) {
        failures.push(error.to_string());
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(failures.fold(Error::new(Code::Kernel, first), Error::detail)),
    }
}

/// Removes ports of our bridge, pins and map entries that carry our marks and that no record knows, of whatever
/// network. Where a record cannot be read, what it knows is not known, and nothing is removed.
fn remove_unrecorded(config: &Config) -> Result<()> {
    let state_dir = config.state_dir();
    // Devices first: a device that is there has had its record since before it was made.
    let mut netlink = Netlink::open()?;
    let Some(bridge) = netlink.find_link(config.bridge())? else { return Ok(()) };
    let links = netlink.links()?;
    let node = NodeConfig::read(&state_dir)?;
    let bpffs = desired::bpffs(config, node.as_ref());
    let entries = datapath::list(&bpffs)?;
    let filter_ports = host_port::list()?;
    let conditional = ports::list_conditional()?;

    let listing = store::list(&state_dir)?;
    if let Some(damage) = listing.damaged.into_iter().next() {
        return Err(damage.into());
    }
    let known: BTreeSet<&str> = listing.attachments.iter().map(|record| record.host_veth.as_str()).collect();
    let addresses: BTreeSet<_> =
        listing.attachments.iter().flat_map(|record| &record.addresses).map(ipnet::IpNet::addr).collect();
    let stray = |name: &str| owned::is_host_veth_name(name) && !known.contains(name);
    for link in links.iter().filter(|link| stray(&link.name) && link.master == Some(bridge.index)) {
        del::delete_stray(&mut netlink, &link.name)?;
    }
    let stray_addresses: Vec<_> =
        entries.addresses.into_iter().filter(|address| !addresses.contains(address)).collect();
    datapath::leave(&bpffs, "", &stray_addresses)?;
    let mappings: Vec<_> = listing.attachments.iter().flat_map(Attachment::mappings).collect();
    let known: BTreeSet<_> = listing.attachments.iter().flat_map(Attachment::port_entries).collect();
    let stray_ports: Vec<_> = entries.host_ports.into_iter().filter(|port| !known.contains(port)).collect();
    datapath::close_listed_ports(&bpffs, &stray_ports)?;
    if listing.attachments.is_empty() {
        masquerade::remove_all()?;
    } else {
        ports::close_others(&filter_ports, &mappings)?;
        ports::close_conditional(conditional.iter().filter(|device| stray(device)))?;
    }
    for host_veth in entries.host_veths.iter().filter(|name| stray(name)) {
        datapath::leave(&bpffs, host_veth, &[])?;
    }
    Ok(())
}
