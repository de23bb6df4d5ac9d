//! CHECK: whether an attachment is still as ADD left it. All that is wrong is said, not only the first thing.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;
use sluice_netlink::{
    BridgePort, Link, Netlink, PacketFilter, Route, RouteFilter, Shape, Shaped, masquerade, spoof, sysctl,
};

use crate::{
    add,
    config::{self, Config, Limit, RouteConfig},
    datapath::Datapath,
    delegate::Delegate,
    environment::Target,
    error::{Code, Error, Result},
    ports,
    store::{Attachment, Held, Mapping, Network, State},
};

/// Compares the attachment with its record and with what ADD reported.
pub(crate) fn check(config: &Config, target: &Target, delegate: Option<&Delegate>) -> Result<()> {
    let previous = config
        .prev_result
        .as_ref()
        .ok_or_else(|| Error::config("prevResult is missing, and CHECK needs it"))?;
    let network = Network::open(&config.state_dir(), &config.name)?;
    let held = network.hold(&target.container_id, &target.ifname)?;
    let Some(held) = held else {
        let msg = format!("container {} is not attached by {}", target.container_id, target.ifname);
        return Err(Error::new(Code::UnknownContainer, msg));
    };
    if let Some(damage) = held.damage {
        return Err(damage.into());
    }
    let record = held.record.as_ref().filter(|record| record.state == State::Ready);
    let record = record.ok_or_else(|| damaged("the attachment was never completed"))?;

    let mut findings = Findings::default();
    match delegate {
        Some(delegate) => delegate.forward("CHECK", config)?,
        None => findings.reservation(&network, &held, record),
    }
    findings.node(config, record, &previous_gateways(previous, record))?;
    let routes = previous_routes(previous)?;
    let (namespace, home) = add::open_namespaces(target, &Netlink::open()?)?;
    namespace.visit(&home, || findings.container(config, target, record, &routes))??;
    findings.report(previous, target, record);
    findings.into_result()
}

fn damaged(msg: impl Into<String>) -> Error {
    Error::new(Code::Damaged, msg)
}

/// What is wrong.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn expect(&mut self, fine: bool, finding: impl FnOnce() -> String) {
        if !fine {
            self.0.push(finding());
        }
    }

    fn into_result(self) -> Result<()> {
        let mut findings = self.0.into_iter();
        match findings.next() {
            None => Ok(()),
            Some(first) => Err(findings.fold(damaged(first), Error::detail)),
        }
    }

    fn reservation(&mut self, network: &Network, held: &Held, record: &Attachment) {
        for address in &record.addresses {
            self.expect(network.holds(held, address.addr()), || format!("address {address} is not reserved"));
        }
    }

    fn node(&mut self, config: &Config, record: &Attachment, gateways: &[IpAddr]) -> Result<()> {
        let mut netlink = Netlink::open()?;
        let (bridge, vlans) = (netlink.find_link(&record.bridge)?, config.vlans()?);
        self.expect(bridge.is_some(), || format!("bridge {} is gone", record.bridge));
        if let Some(bridge) = &bridge {
            self.expect(bridge.flags.is_up(), || format!("bridge {} is down", record.bridge));
            self.expect(vlans.is_none() || bridge.vlan_filtering == Some(true), || {
                format!("bridge {} does not keep VLANs apart", record.bridge)
            });
            self.expect(!config.promisc_mode || bridge.flags.is_promiscuous(), || {
                format!("bridge {} does not take every packet", record.bridge)
            });
        }
        let gateway = match &record.gateway_device {
            Some(name) => netlink.find_link(name)?,
            None => bridge.clone(),
        };
        if let Some(gateway) = gateway {
            let present = netlink.addresses_of(gateway.index)?;
            for address in gateways.iter().filter(|_| config.is_gateway()) {
                let has = present.iter().any(|found| found.address.addr() == *address);
                let what = if record.gateway_device.is_some() { "link" } else { "bridge" };
                self.expect(has, || format!("{what} {} has no address {address}", gateway.name));
            }
        } else if let Some(name) = &record.gateway_device {
            self.0.push(format!("link {name} is gone"));
        }
        let Some(host) = netlink.find_link(&record.host_veth)? else {
            self.0.push(format!("link {} is gone", record.host_veth));
            return Ok(());
        };
        self.expect(host.flags.is_up(), || format!("link {} is down", host.name));
        self.expect(bridge.is_none_or(|bridge| host.master == Some(bridge.index)), || {
            format!("link {} is not a port of bridge {}", host.name, record.bridge)
        });
        if let Some(vlans) = vlans {
            let are = vlans.are(&netlink.vlans(host.index)?);
            self.expect(are, || format!("link {} is in other VLANs than it should be", host.name));
        }
        if config.macspoofchk {
            let filtered = match PacketFilter::find()? {
                Some(mut filter) => spoof::is_filtered(&mut filter, &host.name)?,
                None => false,
            };
            self.expect(filtered, || format!("link {} lets any link-layer address through", host.name));
        }
        if let Some(limit) = config.bandwidth().ingress() {
            self.shaped(&mut netlink, &host, &limit)?;
        }
        let datapath = Datapath::open(&record.bpffs)?;
        let filtered = |mapping: &Mapping| datapath.is_none() || mapping.conditional;
        let hairpin = config.hairpin_mode || record.mappings().iter().any(filtered);
        for Mapping { protocol, host_ip, host_port, .. } in ports::missing(record, datapath.is_some())? {
            self.0.push(format!("host port {host_port} of protocol {protocol} on {host_ip} is not open"));
        }
        self.port(&host, config.port_isolation, hairpin);
        match datapath {
            Some(datapath) => match datapath.check(record, host.index) {
                Err(error) if error.code == Code::Damaged => self.0.push(error.msg),
                other => other?,
            },
            None => {
                self.expect(!config.require_datapath, || {
                    format!("no datapath is pinned in {}", record.bpffs.display())
                });
                for network in record.addresses.iter().map(IpNet::trunc).filter(|_| config.ip_masq) {
                    let held = match PacketFilter::find()? {
                        Some(mut filter) => masquerade::is_ensured(&mut filter, network)?,
                        None => false,
                    };
                    self.expect(held, || format!("packets of {network} leave without the node's address"));
                }
            }
        }
        Ok(())
    }

    /// Settings of the container's port. What the kernel does not say, and what others may want besides, is no damage.
    fn port(&mut self, host: &Link, isolated: bool, hairpin: bool) {
        let BridgePort { isolated: is_isolated, hairpin: sends_back, .. } = host.port;
        self.expect(is_isolated.is_none_or(|is| is == isolated), || {
            let what = if isolated { "is not isolated" } else { "is isolated" };
            format!("link {} {what} from other containers' ports", host.name)
        });
        self.expect(!hairpin || sends_back != Some(false), || {
            format!("link {} does not send packets back to where they came from", host.name)
        });
    }

    fn shaped(&mut self, netlink: &mut Netlink, link: &Link, limit: &Limit) -> Result<()> {
        let name = &link.name;
        let (found, of) = match &limit.some {
            None => (netlink.shaped(link.index)?, None),
            Some(_) => netlink.shaped_some(link.index)?.unzip(),
        };
        let Shape { rate, limit: length, .. } = limit.shape(link.mtu);
        self.expect(found == Some(Shaped { rate, limit: length }), || match found {
            None => format!("link {name} has no limit of its rate"),
            Some(found) => format!("link {name} has a limit of {} bytes a second, not {rate}", found.rate),
        });
        self.expect(found.is_none() || of == limit.some, || {
            format!("link {name} has a limit of its rate for other networks than it should be")
        });
        Ok(())
    }

    fn container(
        &mut self,
        config: &Config,
        target: &Target,
        record: &Attachment,
        routes: &[RouteConfig],
    ) -> Result<()> {
        let mut netlink = Netlink::open()?;
        let Some(link) = netlink.find_link(&target.ifname)? else {
            self.0.push(format!("interface {} is gone from the container", target.ifname));
            return Ok(());
        };
        let up = link.flags.is_up() || config.disable_container_interface;
        self.expect(up, || format!("interface {} is down", link.name));
        self.expect(link.mac == Some(record.mac), || {
            format!("interface {} has another link-layer address than {}", link.name, record.mac)
        });
        if let Some(limit) = config.bandwidth().egress() {
            self.shaped(&mut netlink, &link, &limit)?;
        }
        self.tuning(config, &link)?;
        let present: BTreeSet<IpNet> =
            netlink.addresses_of(link.index)?.into_iter().map(|found| found.address).collect();
        for address in &record.addresses {
            self.expect(present.contains(address), || {
                format!("interface {} has no address {address}", link.name)
            });
        }
        let present = netlink.routes(&RouteFilter::default())?;
        for route in routes {
            let same = |found: &Route| {
                // Results before 1.1.0 do not say which table.
                found.destination == route.dst
                    && route.table.is_none_or(|table| found.table == table)
                    && (route.gw.is_none() || found.gateway == route.gw)
            };
            self.expect(present.iter().any(same), || format!("the container has no route to {}", route.dst));
        }
        Ok(())
    }

    /// What the configuration says of the container's interface and its settings.
    fn tuning(&mut self, config: &Config, link: &Link) -> Result<()> {
        let name = &link.name;
        self.expect(!config.promisc || link.flags.is_promiscuous(), || {
            format!("interface {name} does not take every packet")
        });
        self.expect(!config.allmulti || link.flags.is_all_multicast(), || {
            format!("interface {name} does not take every multicast packet")
        });
        self.expect(config.tx_queue_len.is_none_or(|length| link.tx_queue_len == length), || {
            format!("interface {name} has a transmit queue of {} packets", link.tx_queue_len)
        });
        for (setting, value) in &config.sysctl {
            // Some can only be written.
            if let Ok(found) = sysctl::read(&config::sysctl_path(setting, name)?) {
                // The kernel writes lists with its own space between.
                let same = found.split_whitespace().eq(value.split_whitespace());
                self.expect(same, || format!("sysctl {setting} is {found:?}, not {value:?}"));
            }
        }
        Ok(())
    }

    /// What ADD reported, plugins after us included, must hold what we did.
    fn report(&mut self, previous: &Value, target: &Target, record: &Attachment) {
        let list = |key: &str| previous.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |entry: &Value| entry["name"] == target.ifname.as_str();
        self.expect(list("interfaces").iter().any(named), || {
            format!("prevResult has no interface {}", target.ifname)
        });
        for address in &record.addresses {
            let text = address.to_string();
            self.expect(list("ips").iter().any(|ip| ip["address"] == text.as_str()), || {
                format!("prevResult has no address {text}")
            });
        }
    }
}

/// The gateways that ADD reported for the attachment's addresses.
fn previous_gateways(previous: &Value, record: &Attachment) -> Vec<IpAddr> {
    let ips = previous.get("ips").and_then(Value::as_array).into_iter().flatten();
    let own = ips.filter(|ip| {
        let address = ip["address"].as_str().and_then(|text| text.parse::<IpNet>().ok());
        address.is_some_and(|address| record.addresses.contains(&address))
    });
    own.filter_map(|ip| ip["gateway"].as_str()?.parse().ok()).collect()
}

pub(crate) fn previous_routes(previous: &Value) -> Result<Vec<RouteConfig>> {
    match previous.get("routes") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(routes) => serde_json::from_value(routes.clone()).map_err(|error| {
            Error::new(Code::Decode, format!("prevResult.routes is not understood: {error}"))
        }),
    }
}
