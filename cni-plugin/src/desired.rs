//! What an attachment should be: from the configuration, the environment and the node's description, without a
//! look at anything else.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::IpNet;
use sluice_netlink::{MacAddress, TABLE_MAIN, owned};

use crate::{
    config::{Config, DEFAULT_BPFFS, RangeConfig, RouteConfig},
    delegate::Given,
    environment::Target,
    error::{Error, Result},
    node::NodeConfig,
    range::Range,
};

/// One address that the attachment gets, and where from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Alternatives, in the order in which they are tried.
    pub(crate) ranges: Vec<Range>,
    /// The address that was asked for.
    pub(crate) address: Option<IpAddr>,
}

/// What an attachment should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) bridge: String,
    pub(crate) host_veth: String,
    pub(crate) mac: MacAddress,
    pub(crate) host_mac: MacAddress,
    /// `None`: that of the bridge.
    pub(crate) mtu: Option<u32>,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) bpffs: PathBuf,
}

/// Where the datapath is pinned.
pub(crate) fn bpffs(config: &Config, node: Option<&NodeConfig>) -> PathBuf {
    let node = node.and_then(|node| node.bpffs.clone());
    config.bpffs.clone().or(node).unwrap_or_else(|| PathBuf::from(DEFAULT_BPFFS))
}

/// Whether the configuration leaves something to the node.
pub(crate) fn needs_node(config: &Config) -> bool {
    config.ipam.ranges.is_empty()
        && config.ipam.single().is_none()
        && config.runtime_config.ip_ranges.is_empty()
}

impl Desired {
    /// Decides what the attachment should be.
    pub(crate) fn new(config: &Config, target: &Target, node: Option<&NodeConfig>) -> Result<Self> {
        let mut requested = config.requested_addresses()?;
        requested.extend(&target.args.addresses);
        let mut wishes = Vec::new();
        let sets = if gives_addresses(config) { range_sets(config, node)? } else { Vec::new() };
        for ranges in sets {
            let family = |address: &IpAddr| ranges.iter().any(|range| range.subnet().contains(address));
            let address = requested.iter().position(family).map(|index| requested.remove(index));
            wishes.push(Wish { ranges, address });
        }
        if let Some(unmet) = requested.first().filter(|_| config.delegated_ipam().is_none()) {
            return Err(Error::config(format!("address {unmet} was asked for and is in no range")));
        }
        let mtu = config.mtu.filter(|mtu| *mtu > 0).or(node.and_then(|node| node.mtu));
        if let Some(mtu) = mtu.filter(|mtu| !(68..=65535).contains(mtu)) {
            return Err(Error::config(format!("mtu: {mtu} is not from 68 to 65535")));
        }
        let names = (target.container_id.as_str(), target.ifname.as_str());
        let requested_mac = config.requested_mac(target.args.mac.as_deref())?;
        Ok(Self {
            bridge: config.bridge().to_owned(),
            host_veth: owned::host_veth_name(names.0, names.1),
            mac: requested_mac.unwrap_or_else(|| owned::pod_mac(names.0, names.1)),
            host_mac: owned::host_veth_mac(names.0, names.1),
            mtu,
            wishes,
            bpffs: bpffs(config, node),
        })
    }

    /// What tells this node's bridge from others: its first gateway.
    pub(crate) fn seed(&self) -> String {
        let first = self.wishes.first().and_then(|wish| wish.ranges.first());
        first.map(|range| range.gateway().to_string()).unwrap_or_default()
    }
}

impl Given {
    /// As [`Desired::seed`], where another plugin gave the addresses.
    pub(crate) fn seed(&self) -> String {
        self.addresses
            .first()
            .and_then(|first| first.gateway)
            .map(|gateway| gateway.to_string())
            .unwrap_or_default()
    }
}

/// Whether the attachment has addresses.
pub(crate) fn has_addresses(config: &Config) -> bool {
    !config.disable_container_interface && !config.is_bare()
}

/// Whether it is us who give addresses to the attachment.
pub(crate) fn gives_addresses(config: &Config) -> bool {
    has_addresses(config) && config.delegated_ipam().is_none()
}

/// The sets of ranges of which an address each is wanted.
pub(crate) fn range_sets(config: &Config, node: Option<&NodeConfig>) -> Result<Vec<Vec<Range>>> {
    let range = |range: &RangeConfig| -> Result<Range> {
        let range = Range::new(range.subnet, range.range_start, range.range_end, range.gateway)?;
        Ok(range.without(config.ipam.reserved.iter().map(|block| (*block).into())))
    };
    // In host-local's order: the pod's address is the first one, so what the runtime gives for this attachment goes first.
    let single = config.ipam.single().map(|range| vec![range]);
    let written = config.runtime_config.ip_ranges.iter().chain(single.as_ref()).chain(&config.ipam.ranges);
    let mut sets: Vec<Vec<Range>> =
        written.map(|set| set.iter().map(range).collect()).collect::<Result<_>>()?;
    if sets.is_empty() {
        let Some(node) = node else {
            return Err(Error::config(
                "no addresses to give: the configuration has no ipam.ranges, and the agent has written no node.json",
            ));
        };
        for cidr in &node.pod_cidrs {
            let cidr = RangeConfig { subnet: *cidr, range_start: None, range_end: None, gateway: None };
            sets.push(vec![range(&cidr)?]);
        }
    }
    check_sets(&sets)?;
    Ok(sets)
}

fn check_sets(sets: &[Vec<Range>]) -> Result<()> {
    if sets.is_empty() || sets.iter().any(Vec::is_empty) {
        return Err(Error::config("no addresses to give: there is an empty set of ranges"));
    }
    for set in sets {
        let v4 = set[0].subnet().addr().is_ipv4();
        if set.iter().any(|range| range.subnet().addr().is_ipv4() != v4) {
            return Err(Error::config(format!("a set of ranges has both families: {}, ...", set[0])));
        }
    }
    let all: Vec<&Range> = sets.iter().flatten().collect();
    for (index, range) in all.iter().enumerate() {
        if let Some(other) = all[..index].iter().find(|other| other.overlaps(range)) {
            return Err(Error::config(format!("the ranges {other} and {range} overlap")));
        }
    }
    Ok(())
}

/// The routes of the container: those of the configuration and of another plugin that gave the addresses, and a
/// default route of each family by way of its gateway unless there is one.
pub(crate) fn routes(config: &Config, given: &Given) -> Vec<RouteConfig> {
    let gateway = |v4: bool| {
        given.addresses.iter().filter_map(|given| given.gateway).find(|gateway| gateway.is_ipv4() == v4)
    };
    // Another plugin has read `ipam.routes` itself.
    let own = if config.delegated_ipam().is_none() { config.ipam.routes.clone() } else { None };
    let mut routes: Vec<RouteConfig> = own.unwrap_or_default();
    routes.extend(given.routes.iter().cloned());
    for route in &mut routes {
        route.gw = route.gw.or_else(|| gateway(route.dst.addr().is_ipv4()));
    }
    for (any, v4) in [(IpAddr::V4(Ipv4Addr::UNSPECIFIED), true), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), false)] {
        let Ok(dst) = IpNet::new(any, 0) else { continue };
        let is_default = |route: &RouteConfig| route.dst == dst && route.table() == TABLE_MAIN;
        let wanted = config.is_default_gateway() && !routes.iter().any(is_default);
        if let Some(gw) = gateway(v4).filter(|_| wanted) {
            routes.push(RouteConfig::new(dst, Some(gw)));
        }
    }
    // A route of a family that the container has no address of could not be made.
    routes.retain(|route| {
        given.addresses.iter().any(|given| given.address.addr().is_ipv4() == route.dst.addr().is_ipv4())
    });
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{environment::Args, result::Address};

    fn target() -> Target {
        Target {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            netns: None,
            args: Args::default(),
        }
    }

    fn desired(config: &str, node: Option<&NodeConfig>) -> Result<Desired> {
        Desired::new(&Config::parse(config.as_bytes())?, &target(), node)
    }

    fn node() -> NodeConfig {
        NodeConfig {
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()],
            mtu: Some(1400),
            bpffs: Some(PathBuf::from("/node/bpf")),
        }
    }

    #[test]
    fn the_node_says_what_the_configuration_leaves_open() {
        let wanted = desired(r#"{"name":"n"}"#, Some(&node())).unwrap();
        assert_eq!((wanted.wishes.len(), wanted.mtu), (2, Some(1400)));
        assert_eq!(wanted.bpffs, PathBuf::from("/node/bpf"));
        assert_eq!(wanted.seed(), "10.244.1.1");

        let text = r#"{"name":"n","mtu":9000,"bpffs":"/x","ipam":{"ranges":[[{"subnet":"10.9.0.0/16"}]]}}"#;
        let wanted = desired(text, Some(&node())).unwrap();
        assert_eq!((wanted.wishes.len(), wanted.mtu, wanted.bpffs), (1, Some(9000), PathBuf::from("/x")));
        let error = desired(r#"{"name":"n"}"#, None).unwrap_err();
        assert!(error.msg.contains("no node.json"), "{}", error.msg);
        let mtu = |text| desired(text, Some(&node())).map(|wanted| wanted.mtu);
        assert_eq!(mtu(r#"{"name":"n","mtu":0}"#).unwrap(), Some(1400), "none is said");
        assert_eq!(mtu(r#"{"name":"n","mtu":67}"#).unwrap_err().msg, "mtu: 67 is not from 68 to 65535");
    }

    #[test]
    fn an_address_that_was_asked_for_goes_to_the_set_that_has_it() {
        let text = r#"{"name":"n","runtimeConfig":{"ips":["fd00:244:1::9"]}}"#;
        let wishes = desired(text, Some(&node())).unwrap().wishes;
        assert_eq!((wishes[0].address, wishes[1].address), (None, Some("fd00:244:1::9".parse().unwrap())));
        let error =
            desired(r#"{"name":"n","runtimeConfig":{"ips":["192.0.2.1"]}}"#, Some(&node())).unwrap_err();
        assert_eq!(error.msg, "address 192.0.2.1 was asked for and is in no range");
    }

    #[test]
    fn senseless_sets_are_refused() {
        for (ranges, part) in [
            (r#"[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]"#, "both families"),
            (r#"[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.0.0/25"}]]"#, "overlap"),
            (r#"[[]]"#, "empty set"),
        ] {
            let error =
                desired(&format!(r#"{{"name":"n","ipam":{{"ranges":{ranges}}}}}"#), None).unwrap_err();
            assert!(error.msg.contains(part), "{}", error.msg);
        }
    }

    #[test]
    fn routes_are_the_configured_ones_and_a_default_of_each_family() {
        let address = |address: &str, gateway: &str| Address {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        };
        let both = [address("10.1.0.2/24", "10.1.0.1"), address("fd00::2/64", "fd00::1")];
        let routes = |text: &str, addresses: &[Address]| {
            let config = Config::parse(text.as_bytes()).unwrap();
            let routes = routes(&config, &Given { addresses: addresses.to_vec(), ..Given::default() });
            routes.iter().map(|r| format!("{} {}", r.dst, r.gw.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(routes(r#"{"name":"n"}"#, &both), ["0.0.0.0/0 10.1.0.1", "::/0 fd00::1"]);
        assert_eq!(routes(r#"{"name":"n"}"#, &both[..1]), ["0.0.0.0/0 10.1.0.1"]);
        assert!(routes(r#"{"name":"n","isDefaultGateway":false}"#, &both).is_empty());
        let text =
            r#"{"name":"n","ipam":{"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.9"},{"dst":"192.0.2.0/24"}]}}"#;
        assert_eq!(routes(text, &both[..1]), ["0.0.0.0/0 10.1.0.9", "192.0.2.0/24 10.1.0.1"]);
        let text = r#"{"name":"n","ipam":{"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.9","table":100}]}}"#;
        assert_eq!(routes(text, &both[..1]), ["0.0.0.0/0 10.1.0.9", "0.0.0.0/0 10.1.0.1"], "another table's");
    }
}
