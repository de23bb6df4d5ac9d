//! Finds the pods that another plugin has attached. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use sluice_cni::store::Attachment;
use sluice_netlink::{Link, Netlink, RouteFilter, TABLE_MAIN, Topic, Watch};
use tracing::{debug, error};

use super::Wire;

/// How long to wait for more of the same burst.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// How long a burst may hold up its first change.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(50);
/// How often pods are looked for without a notice.
const RESCAN: Duration = Duration::from_secs(5);

/// The pods of other plugins, each as a record of ours. What cannot be looked into, or has no address yet, is none.
pub fn attachments(netlink: &mut Netlink) -> sluice_netlink::Result<Vec<Attachment>> {
    Ok(wires(netlink)?.into_iter().map(Wire::attachment).collect())
}

fn wires(netlink: &mut Netlink) -> sluice_netlink::Result<Vec<Wire>> {
    let links = netlink.links()?;
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    // A node may itself be a container on a veth pair, whose far end is no pod of it.
    let filter = RouteFilter { table: Some(TABLE_MAIN), ..RouteFilter::default() };
    let routes = netlink.routes(&filter)?;
    let leads_out: BTreeSet<u32> = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0 || route.gateway.is_some())
        .filter_map(|route| route.device)
        .collect();
    let mut wires = Vec::new();
    for link in links.iter().filter(|link| link.is_kind("veth") && !leads_out.contains(&link.index)) {
        let (Some(namespace), Some(peer)) = (link.peer_namespace, link.peer) else { continue };
        let (inside, addresses) = match look_inside(netlink, namespace, peer) {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, device = link.name, "cannot look at the other end");
                continue;
            }
        };
        let bridge = link.master.and_then(|index| by_index.get(&index)).filter(|link| link.is_kind("bridge"));
        let (Some(mac), Some(own)) = (inside.mac, link.mac) else { continue };
        if !addresses.is_empty() {
            wires.push(Wire {
                host: link.name.clone(),
                inside: inside.name,
                mac,
                addresses,
                bridge: bridge.map(|bridge| bridge.name.clone()),
                gateway_mac: bridge.and_then(|bridge| bridge.mac).unwrap_or(own),
            });
        }
    }
    wires.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(wires)
}

/// The far end of a pair, and its addresses, without those that mean the link only.
fn look_inside(
    netlink: &mut Netlink,
    namespace: i32,
    index: u32,
) -> sluice_netlink::Result<(Link, Vec<IpNet>)> {
    let link = netlink.link_in(namespace, index)?;
    let addresses = netlink.addresses_in(namespace, index)?.into_iter().map(|entry| entry.address);
    let of_more = |address: &IpNet| match address {
        IpNet::V4(network) => !network.addr().is_link_local(),
        IpNet::V6(network) => !network.addr().is_unicast_link_local(),
    };
    Ok((link, addresses.filter(of_more).collect()))
}

/// Sends the pods of other plugins now, and whenever they change, until `send` says that nobody listens.
pub fn watch(send: impl Fn(Vec<Attachment>) -> bool + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("pods".into()).spawn(move || {
        if let Err(error) = follow(&send) {
            error!(%error, "cannot watch for pods of another plugin; they are found with the periodic repair");
            // What is gated by the first answer goes on.
            send(Vec::new());
        }
    })?;
    Ok(())
}

fn follow(send: &impl Fn(Vec<Attachment>) -> bool) -> sluice_netlink::Result<()> {
    let mut watch = Watch::open_everywhere(&[Topic::Links, Topic::Addresses])?;
    let mut netlink = Netlink::open()?;
    let mut held = None;
    loop {
        match attachments(&mut netlink) {
            Ok(found) if held.as_ref() != Some(&found) => {
                if !send(found.clone()) {
                    return Ok(());
                }
                held = Some(found);
            }
            Ok(_) => {}
            Err(error) => error!(%error, "cannot look for pods; what is known of them stays"),
        }
        if watch.next(Some(RESCAN))?.is_some() {
            let limit = Instant::now() + LONGEST_DEBOUNCE;
            while watch.next(Some(DEBOUNCE.min(limit.saturating_duration_since(Instant::now()))))?.is_some() {
            }
        }
    }
}
