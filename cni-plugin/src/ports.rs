//! Host ports: who has which, and those of a node without a datapath.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use sluice_netlink::{
    BridgePort, Netlink, PacketFilter, conditional,
    conntrack::{self, UDP},
    host_port::{self, HostPort},
    sysctl,
};

use crate::{
    config::conditions,
    error::Result,
    store::{self, Attachment, Mapping, PortLock, State},
};

/// Makes sure that nobody else has the host ports of a record that is about to be written; `None` if it has none.
pub(crate) fn claim(state_dir: &Path, record: &Attachment) -> Result<Option<PortLock>> {
    if record.host_ports.is_empty() {
        return Ok(None);
    }
    let mut netlink = Netlink::open()?;
    // A container that ended without a DEL took its device along. What led to it leads nowhere, and does not keep
    // the container's successor from starting.
    let mut gone = |other: &Attachment| {
        other.state != State::Adding && netlink.find_link(&other.host_veth).is_ok_and(|link| link.is_none())
    };
    Ok(Some(store::claim_ports(state_dir, record, &mut gone)?))
}

fn to_netlink(mapping: &Mapping) -> HostPort {
    let Mapping { protocol, host_ip, host_port, address, port, masquerade, .. } = *mapping;
    HostPort { protocol, host_ip, host_port, address, port, masquerade }
}

/// The mappings that are the packet filter's: all of them or, beside a datapath, those that not everybody may use.
fn filtered(record: &Attachment, datapath: bool) -> Vec<Mapping> {
    let mut mappings = record.mappings();
    mappings.retain(|mapping| mapping.conditional || !datapath);
    mappings
}

/// Opens the host ports of an attachment by the kernel's own packet filter, as far as no `datapath` serves them.
pub(crate) fn open(netlink: &mut Netlink, record: &Attachment, ifindex: u32, datapath: bool) -> Result<()> {
    let mappings = filtered(record, datapath);
    if mappings.is_empty() {
        return Ok(());
    }
    for v4 in [true, false] {
        let ports: Vec<_> =
            mappings.iter().filter(|mapping| mapping.address.is_ipv4() == v4).map(to_netlink).collect();
        let Some(first) = ports.first() else { continue };
        if let Some(address) = record.addresses.iter().find(|address| address.addr() == first.address) {
            let conditions = record.conditions(v4);
            if conditions.is_empty() {
                host_port::open(address.trunc(), &ports)?;
            } else {
                host_port::open(address.trunc(), &[])?;
                let key = if v4 { "conditionsV4" } else { "conditionsV6" };
                let conditions = conditions::parse(key, conditions, v4)?;
                conditional::open(&record.host_veth, &ports, &conditions)?;
            }
        }
        if v4 {
            // The node's own connections to 127.0.0.1; the packet filter keeps others from it.
            sysctl::ensure(&format!("net/ipv4/conf/{}/route_localnet", record.gateway_device()), "1")?;
        }
    }
    forget_former_flows(netlink, &mappings)?;
    // The way from the container to its own host port, where bridges obey the packet filter.
    let port = BridgePort { hairpin: Some(true), ..BridgePort::default() };
    Ok(netlink.set_bridge_port(ifindex, port)?)
}

/// Makes UDP clients of the ports come to their new holder: until now their datagrams went to another, or to nobody, and
/// connection tracking would lead them there for as long as they come.
fn forget_former_flows(netlink: &mut Netlink, mappings: &[Mapping]) -> Result<()> {
    let udp: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.protocol == UDP).collect();
    let Some(mut filter) = PacketFilter::find()?.filter(|_| !udp.is_empty()) else { return Ok(()) };
    let own: BTreeSet<IpAddr> = netlink.addresses()?.iter().map(|found| found.address.addr()).collect();
    let leads = |mapping: &Mapping, at: SocketAddr| {
        let meant = if mapping.host_ip.is_unspecified() {
            mapping.host_ip.is_ipv4() == at.is_ipv4() && own.contains(&at.ip())
        } else {
            mapping.host_ip == at.ip()
        };
        meant && mapping.host_port == at.port()
    };
    conntrack::forget(&mut filter, |flow| {
        flow.protocol == UDP && udp.iter().any(|mapping| leads(mapping, flow.destination))
    })?;
    Ok(())
}

/// Closes the host ports that lead to these addresses, and ends the flows of `udp` that came by them: whoever gets one of
/// the addresses next is not whom they are meant for. (To list all that is tracked takes the kernel milliseconds.)
pub(crate) fn close(filter: &mut PacketFilter, addresses: &[IpAddr], udp: bool) -> Result<()> {
    host_port::close(filter, |port| addresses.contains(&port.address))?;
    if !udp {
        return Ok(());
    }
    conntrack::forget(filter, |flow| {
        flow.protocol == UDP && flow.backend != flow.destination && addresses.contains(&flow.backend.ip())
    })?;
    Ok(())
}

/// Closes those of `listed` that none of these mappings is about.
pub(crate) fn close_others(listed: &BTreeSet<HostPort>, mappings: &[Mapping]) -> Result<()> {
    // Where it leads is what counts, and not who is masqueraded on the way.
    let plain = |port: &HostPort| HostPort { masquerade: false, ..*port };
    let known: BTreeSet<_> = mappings.iter().map(|mapping| plain(&to_netlink(mapping))).collect();
    let stray: BTreeSet<_> = listed.iter().map(plain).filter(|port| !known.contains(port)).collect();
    match PacketFilter::find()?.filter(|_| !stray.is_empty()) {
        Some(mut filter) => Ok(host_port::close(&mut filter, |port| stray.contains(&plain(port)))?),
        None => Ok(()),
    }
}

/// The mappings of an attachment that the packet filter should have beside a `datapath`, or without one, and has not.
pub(crate) fn missing(record: &Attachment, datapath: bool) -> Result<Vec<Mapping>> {
    let mut mappings = filtered(record, datapath);
    if mappings.is_empty() {
        return Ok(mappings);
    }
    let open = host_port::list()?;
    let is_open = |v4| match PacketFilter::find()? {
        Some(mut filter) => conditional::is_open(&mut filter, &record.host_veth, v4),
        None => Ok(false),
    };
    let by_condition = [is_open(true)?, is_open(false)?];
    mappings.retain(|mapping| match mapping.conditional {
        true => !by_condition[usize::from(mapping.address.is_ipv6())],
        false => !open.contains(&to_netlink(mapping)),
    });
    Ok(mappings)
}

/// The devices of which host ports are open that not everybody may use.
pub(crate) fn list_conditional() -> Result<BTreeSet<String>> {
    Ok(PacketFilter::find()?
        .map_or_else(|| Ok(BTreeSet::new()), |mut filter| conditional::list(&mut filter))?)
}

/// Closes the host ports of these devices that not everybody may use.
pub(crate) fn close_conditional<'a>(devices: impl Iterator<Item = &'a String>) -> Result<()> {
    for device in devices {
        if let Some(mut filter) = PacketFilter::find()? {
            conditional::close(&mut filter, device)?;
        }
    }
    Ok(())
}
