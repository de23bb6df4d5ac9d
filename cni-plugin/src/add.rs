//! ADD: makes an attachment, or leaves nothing behind.

use std::time::Duration;

use sluice_netlink::{BridgePort, Namespace, Netlink, VethEnd};

use crate::{
    bridge::{self, Bridge},
    config::Config,
    datapath::Datapath,
    del,
    desired::{self, Desired},
    environment::Target,
    error::{Code, Error, Result},
    node::NodeConfig,
    pod,
    range::Range,
    result::{AddResult, Address, Interface},
    store::{Attachment, Held, Network, RECORD_VERSION, State, Wanted},
};

/// How long the bridge may take to let the new port pass packets. It takes microseconds; a machine that takes
/// longer than this has another problem.
const CARRIER_LIMIT: Duration = Duration::from_secs(10);

/// Makes the attachment.
pub(crate) fn add(config: &Config, target: &Target) -> Result<AddResult> {
    let state_dir = config.state_dir();
    let node = if desired::needs_node(config) || config.mtu.is_none() || config.bpffs.is_none() {
        NodeConfig::read(&state_dir)?
    } else {
        None
    };
    let wanted = Desired::new(config, target, node.as_ref())?;
    let namespace = open_namespace(target)?;
    let network = Network::open(&state_dir, &config.name)?;
    let mut held = network.create(&target.container_id, &target.ifname)?;
    match attach(config, target, &wanted, &namespace, &network, &mut held) {
        Ok(result) => Ok(result),
        Err(error) => Err(match del::take_apart(&network, held) {
            Ok(()) => error,
            Err(left) => error.detail(format_args!("and undoing it failed: {left}")),
        }),
    }
}

/// Opens the container's namespace, which must not be our own: the addresses would go to the node.
pub(crate) fn open_namespace(target: &Target) -> Result<Namespace> {
    let invalid = |why: String| Error::new(Code::InvalidNamespace, format!("CNI_NETNS: {why}"));
    let path = target.netns.as_deref().unwrap_or_else(|| std::path::Path::new(""));
    let namespace = Namespace::open(path).map_err(|error| invalid(error.to_string()))?;
    let own = Namespace::current()?;
    if namespace.id()? == own.id()? {
        return Err(invalid(format!("{} is the namespace of the node itself", path.display())));
    }
    Ok(namespace)
}

fn attach(
    config: &Config,
    target: &Target,
    wanted: &Desired,
    namespace: &Namespace,
    network: &Network,
    held: &mut Held,
) -> Result<AddResult> {
    let mut netlink = Netlink::open()?;
    let gateways = Desired::gateways(wanted.wishes.iter().flat_map(|wish| &wish.ranges));
    let bridge = bridge::ensure(&mut netlink, config, &gateways)?;

    let wishes: Vec<_> =
        wanted.wishes.iter().map(|wish| Wanted { ranges: &wish.ranges, address: wish.address }).collect();
    let ranges = network.reserve(held, record(config, target, wanted, &bridge), &wishes)?;
    let record = held.record.clone().ok_or_else(|| Error::new(Code::Io, "the record was not kept"))?;

    let mtu = wanted.mtu.unwrap_or(bridge.mtu);
    create_veth(&mut netlink, target, wanted, namespace, &bridge, mtu, config.tx_queue_len)?;
    let host = netlink.link(&wanted.host_veth)?;
    if config.hairpin_mode || config.port_isolation {
        let port = BridgePort {
            hairpin: config.hairpin_mode.then_some(true),
            isolated: config.port_isolation.then_some(true),
            learning: None,
        };
        netlink.set_bridge_port(host.index, port)?;
    }

    let routes = desired::routes(config, &ranges);
    let peer =
        host.peer.ok_or_else(|| Error::new(Code::Kernel, format!("link {} has no peer", host.name)))?;
    let interface =
        pod::Interface { name: &target.ifname, index: peer, addresses: &record.addresses, routes: &routes };
    namespace.run(|| pod::set_up(config, &interface))??;

    match Datapath::open(&record.bpffs)? {
        Some(datapath) => datapath.enter(&record, host.index)?,
        None if config.require_datapath => {
            let msg =
                format!("no datapath is pinned in {}, and requireDatapath is set", record.bpffs.display());
            return Err(Error::new(Code::TryLater, msg));
        }
        None => {}
    }
    if !config.disable_container_interface {
        netlink.wait_for_carrier(&wanted.host_veth, CARRIER_LIMIT)?;
    }
    held.set_state(State::Ready)?;
    Ok(result(config, target, &record, &bridge, mtu, wanted, &ranges, routes))
}

fn record(config: &Config, target: &Target, wanted: &Desired, bridge: &Bridge) -> Attachment {
    Attachment {
        state: State::Adding,
        version: RECORD_VERSION,
        container_id: target.container_id.clone(),
        ifname: target.ifname.clone(),
        network: config.name.clone(),
        netns: target.netns.clone().unwrap_or_default(),
        pod: target.args.pod.clone(),
        addresses: Vec::new(),
        host_veth: wanted.host_veth.clone(),
        mac: wanted.mac,
        bridge: wanted.bridge.clone(),
        gateway_mac: bridge.mac,
        bpffs: wanted.bpffs.clone(),
    }
}

fn create_veth(
    netlink: &mut Netlink,
    target: &Target,
    wanted: &Desired,
    namespace: &Namespace,
    bridge: &Bridge,
    mtu: u32,
    tx_queue_len: Option<u32>,
) -> Result<()> {
    let host = VethEnd::new(&wanted.host_veth).mac(wanted.host_mac).mtu(mtu).master(bridge.index).up();
    let mut own = VethEnd::new(&target.ifname).mac(wanted.mac).mtu(mtu).namespace(namespace);
    if let Some(length) = tx_queue_len {
        own = own.tx_queue_len(length);
    }
    let Err(error) = netlink.create_veth(&host, &own) else { return Ok(()) };
    if !error.is_exists() {
        return Err(error.into());
    }
    if netlink.find_link(&wanted.host_veth)?.is_none() {
        let msg =
            format!("CNI_IFNAME={:?}: the container has an interface of this name already", target.ifname);
        return Err(Error::new(Code::InvalidEnvironment, msg));
    }
    // Ours, and of an attachment that has no record: its state directory was lost. The record of this one is
    // held by us alone, so nobody else is at work on it.
    del::delete_link(netlink, &wanted.host_veth)?;
    Ok(netlink.create_veth(&host, &own)?)
}

#[expect(clippy::too_many_arguments, reason = "all that ADD found out, in one place, once")]
fn result(
    config: &Config,
    target: &Target,
    record: &Attachment,
    bridge: &Bridge,
    mtu: u32,
    wanted: &Desired,
    ranges: &[Range],
    routes: Vec<crate::config::RouteConfig>,
) -> AddResult {
    let interface = |name: &str, mac, mtu, sandbox| Interface { name: name.to_owned(), mac, mtu, sandbox };
    let sandbox = record.netns.to_string_lossy().into_owned();
    AddResult {
        interfaces: vec![
            interface(&record.bridge, bridge.mac, bridge.mtu, None),
            interface(&record.host_veth, wanted.host_mac, mtu, None),
            interface(&target.ifname, record.mac, mtu, Some(sandbox)),
        ],
        addresses: record
            .addresses
            .iter()
            .zip(ranges)
            .map(|(address, range)| Address {
                address: *address,
                gateway: config.is_gateway.then(|| range.gateway()),
            })
            .collect(),
        routes,
        dns: config.dns(),
    }
}
