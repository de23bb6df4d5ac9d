//! ADD: makes an attachment, or leaves nothing behind.

use std::time::Duration;

use ipnet::IpNet;
use sluice_netlink::{BridgePort, Namespace, Netlink, VethEnd, VethPair, masquerade, owned, spoof};

use crate::{
    bridge::{self, Bridge},
    config::{Config, Dns, RouteConfig},
    datapath::Datapath,
    del,
    delegate::{Delegate, Given},
    desired::{self, Desired},
    environment::Target,
    error::{Code, Error, Result},
    node::NodeConfig,
    pod, ports,
    result::{AddResult, Address, Interface},
    store::{self, Attachment, Held, Network, RECORD_VERSION, State, Wanted},
};

/// How long the bridge may take to let the new port pass packets. It takes microseconds; a machine that takes
/// longer than this has another problem.
const CARRIER_LIMIT: Duration = Duration::from_secs(10);

/// How many names of devices are tried, at most.
const NAMES: u32 = 8;

/// Makes the attachment.
pub(crate) fn add(config: &Config, target: &Target, delegate: Option<&Delegate>) -> Result<AddResult> {
    let state_dir = config.state_dir();
    let node = if desired::needs_node(config) { NodeConfig::read(&state_dir)? } else { None };
    let wanted = Desired::new(config, target, node.as_ref())?;
    let mut netlink = Netlink::open()?;
    let (namespace, home) = open_namespaces(target, &netlink)?;
    let network = Network::open(&state_dir, &config.name)?.beside(config.host_local());
    let mut held = network.create(&target.container_id, &target.ifname)?;
    let attempt =
        Attempt { config, target, wanted: &wanted, namespace: &namespace, home: &home, network: &network };
    match attempt.attach(&mut netlink, &mut held, delegate) {
        Ok(result) => Ok(result),
        Err(error) => {
            let undone = del::take_apart(config, &network, held);
            let given_back = delegate.map_or(Ok(()), |delegate| delegate.forward("DEL", config));
            Err([undone, given_back]
                .into_iter()
                .filter_map(Result::err)
                .fold(error, |error, left| error.detail(format_args!("and undoing it failed: {left}"))))
        }
    }
}

/// Opens the container's namespace, which must not be our own, in which `netlink` was opened: the addresses would go to
/// the node. Our own is the second one.
pub(crate) fn open_namespaces(target: &Target, netlink: &Netlink) -> Result<(Namespace, Namespace)> {
    let invalid = |why: String| Error::new(Code::InvalidNamespace, format!("CNI_NETNS: {why}"));
    let path = target.netns.as_deref().unwrap_or_else(|| std::path::Path::new(""));
    let namespace = Namespace::open(path).map_err(|error| invalid(error.to_string()))?;
    let own = Namespace::of(netlink)?;
    if namespace.id()? == own.id()? {
        return Err(invalid(format!("{} is the namespace of the node itself", path.display())));
    }
    Ok((namespace, own))
}

/// All that an ADD works with.
struct Attempt<'a> {
    config: &'a Config,
    target: &'a Target,
    wanted: &'a Desired,
    namespace: &'a Namespace,
    home: &'a Namespace,
    network: &'a Network,
}

impl Attempt<'_> {
    fn attach(
        &self,
        netlink: &mut Netlink,
        held: &mut Held,
        delegate: Option<&Delegate>,
    ) -> Result<AddResult> {
        let Self { config, target, wanted, .. } = *self;
        let given = delegate.map(|delegate| delegate.add(config)).transpose()?;
        let own_dns = config.dns()?;
        let seed = given.as_ref().map_or_else(|| wanted.seed(), Given::seed);
        let bridge = bridge::ensure(netlink, config, &seed)?;
        let mut given = self.reserve(held, &bridge, given)?;
        if own_dns != Dns::default() {
            given.dns = own_dns;
        }
        bridge::ensure_gateways(netlink, config, &bridge.gateway, &gateways(&given.addresses))?;

        let mtu = wanted.mtu.unwrap_or(bridge.mtu);
        let pair = self.create_veth(netlink, held, &bridge, mtu)?;
        let record = held.record.clone().ok_or_else(|| Error::new(Code::Io, "the record was not kept"))?;
        let routes = desired::routes(config, &given);
        let interface = pod::Interface {
            name: &target.ifname,
            index: pair.peer,
            mtu,
            addresses: &record.addresses,
            routes: &routes,
        };
        self.namespace.visit(self.home, || pod::set_up(config, &interface))??;
        if let Some(limit) = config.bandwidth().ingress() {
            limit.set(netlink, pair.index, mtu)?;
        }

        match Datapath::open(&record.bpffs)? {
            Some(datapath) => {
                datapath.enter(&record, pair.index)?;
                ports::open(netlink, &record, pair.index, true)?;
            }
            None if config.require_datapath => {
                let msg = format!(
                    "no datapath is pinned in {}, and requireDatapath is set",
                    record.bpffs.display()
                );
                return Err(Error::new(Code::TryLater, msg));
            }
            // The datapath has its own of both.
            None => {
                for address in record.addresses.iter().filter(|_| config.ip_masq) {
                    masquerade::ensure(address.trunc())?;
                }
                ports::open(netlink, &record, pair.index, false)?;
            }
        }
        if !config.disable_container_interface {
            netlink.wait_for_carrier(&record.host_veth, CARRIER_LIMIT)?;
        }
        held.set_state(State::Ready)?;
        Ok(self.result(&record, &bridge, mtu, given, routes))
    }

    /// Writes the record, with addresses of ours or with those that another plugin gave.
    fn reserve(&self, held: &mut Held, bridge: &Bridge, given: Option<Given>) -> Result<Given> {
        let mut record = self.record(bridge)?;
        // Nobody else chooses ports until the record says which are ours.
        let _ports = ports::claim(&self.config.state_dir(), &record)?;
        if let Some(given) = given {
            record.addresses = given.addresses.iter().map(|given| given.address).collect();
            self.network.record(held, record)?;
            return Ok(given);
        }
        let wishes = &self.wanted.wishes;
        let wishes: Vec<_> =
            wishes.iter().map(|wish| Wanted { ranges: &wish.ranges, address: wish.address }).collect();
        let ranges = self.network.reserve(held, record, &wishes)?;
        let addresses = held.record.iter().flat_map(|record| &record.addresses).zip(&ranges);
        let addresses = addresses.map(|(address, range)| Address {
            address: *address,
            // Where the node is not the gateway, somebody else on the bridge is.
            gateway: Some(range.gateway()),
        });
        Ok(Given { addresses: addresses.collect(), routes: Vec::new(), dns: Dns::default() })
    }

    fn record(&self, bridge: &Bridge) -> Result<Attachment> {
        let Self { config, target, wanted, .. } = *self;
        Ok(Attachment {
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
            gateway_mac: bridge.gateway.mac,
            gateway_device: (bridge.gateway.name != wanted.bridge).then(|| bridge.gateway.name.clone()),
            bpffs: wanted.bpffs.clone(),
            host_ports: if desired::has_addresses(config) { config.host_ports()? } else { Vec::new() },
            masquerade: config.masquerades_host_ports(),
            conditions_v4: config.conditions(true).to_vec(),
            conditions_v6: config.conditions(false).to_vec(),
            aliases: config.runtime_config.aliases.clone(),
            shaped: config.bandwidth().ingress().is_some(),
            bridged: config.port_isolation
                || config.vlans()?.is_some()
                // What the packet filter has translated must come back to it.
                || config.has_conditions() && !config.host_ports()?.is_empty(),
        })
    }

    /// Makes the veth pair, under the name in the record or, where that is another attachment's, under one that is not.
    fn create_veth(
        &self,
        netlink: &mut Netlink,
        held: &mut Held,
        bridge: &Bridge,
        mtu: u32,
    ) -> Result<VethPair> {
        let Self { config, target, wanted, .. } = *self;
        let mut name = wanted.host_veth.clone();
        let mut number = 1;
        let pair = loop {
            if let Some(pair) = self.try_create_veth(netlink, &name, bridge, mtu)? {
                break pair;
            }
            if number == NAMES {
                return Err(Error::new(
                    Code::Kernel,
                    format!("{NAMES} names of devices are taken, the last {name}"),
                ));
            }
            name = owned::other_host_veth_name(&target.container_id, &target.ifname, number);
            if let Some(mut record) = held.record.clone() {
                record.host_veth.clone_from(&name);
                self.network.record(held, record)?;
            }
            number += 1;
        };
        if config.macspoofchk {
            spoof::allow_only(&name, wanted.mac)?;
        }
        if let Some(vlans) = config.vlans()? {
            // The container's end is still down: nothing has passed by the VLAN that the port began with.
            bridge::set_vlans(netlink, config, pair.index, &vlans)?;
        }
        if config.hairpin_mode || config.port_isolation {
            let port = BridgePort {
                hairpin: config.hairpin_mode.then_some(true),
                isolated: config.port_isolation.then_some(true),
                learning: None,
            };
            netlink.set_bridge_port(pair.index, port)?;
        }
        Ok(pair)
    }

    /// `None` if the name is another attachment's.
    fn try_create_veth(
        &self,
        netlink: &mut Netlink,
        name: &str,
        bridge: &Bridge,
        mtu: u32,
    ) -> Result<Option<VethPair>> {
        let Self { config, target, wanted, namespace, .. } = *self;
        let host = VethEnd::new(name).mac(wanted.host_mac).mtu(mtu).master(bridge.index).queues(1).up();
        let mut own = VethEnd::new(&target.ifname).mac(wanted.mac).mtu(mtu).queues(1).namespace(namespace);
        if let Some(length) = config.tx_queue_len {
            own = own.tx_queue_len(length);
        }
        match netlink.create_veth(&host, &own) {
            Ok(pair) => return Ok(Some(pair)),
            Err(error) if !error.is_exists() => return Err(error.into()),
            Err(_) => {}
        }
        if netlink.find_link(name)?.is_none() {
            let ifname = &target.ifname;
            let msg = format!("CNI_IFNAME={ifname:?}: the container has an interface of this name already");
            return Err(Error::new(Code::InvalidEnvironment, msg));
        }
        let others = store::list(&config.state_dir())?.attachments.into_iter().filter(|other| {
            (&other.container_id, &other.ifname, &other.network)
                != (&target.container_id, &target.ifname, &config.name)
        });
        if others.into_iter().any(|other| other.host_veth == name) {
            return Ok(None);
        }
        // Ours, and of an attachment that has no record: its state directory was lost.
        del::delete_stray(netlink, name)?;
        Ok(Some(netlink.create_veth(&host, &own)?))
    }

    fn result(
        &self,
        record: &Attachment,
        bridge: &Bridge,
        mtu: u32,
        given: Given,
        routes: Vec<RouteConfig>,
    ) -> AddResult {
        let interface =
            |name: &str, mac, mtu, sandbox| Interface { name: name.to_owned(), mac, mtu, sandbox };
        let sandbox = record.netns.to_string_lossy().into_owned();
        let gateway = &bridge.gateway;
        let other = record.gateway_device.iter().map(|name| interface(name, gateway.mac, bridge.mtu, None));
        let interfaces = [
            interface(&record.bridge, bridge.mac, bridge.mtu, None),
            interface(&record.host_veth, self.wanted.host_mac, mtu, None),
            interface(&self.target.ifname, record.mac, mtu, Some(sandbox)),
        ];
        AddResult {
            interfaces: interfaces.into_iter().chain(other).collect(),
            addresses: given.addresses,
            routes,
            dns: given.dns,
        }
    }
}

/// The addresses that the bridge must have: the gateways, with the length of their network's prefix.
fn gateways(addresses: &[Address]) -> Vec<IpNet> {
    let mut gateways: Vec<IpNet> = addresses
        .iter()
        .filter_map(|given| IpNet::new(given.gateway?, given.address.prefix_len()).ok())
        .collect();
    gateways.dedup();
    gateways
}
