//! Where it is told over HTTP how DNS is. Pure.
//!
//! CoreDNS has ports 8080 and 8181 in a pod of its own. On a node a socket at any address would keep pods of the host's
//! network from listening at all of them. So these ports of the cluster's DNS addresses are the datapath's: it leads
//! them to a door that is open anyway, that of the metrics or that of the agent's health. A socket is opened only at
//! addresses that are not DNS's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use sluice_dns::PageAt;
use sluice_model::{IpFamily, Node};

use super::desired::DoorAddresses;
use crate::config::{Config, Listen};

/// The sockets to open, and the addresses and ports that the datapath leads to one of them. `said`: where `/health`, `/ready`
/// and `/metrics` are, by a Corefile or by custom; `cluster`: the cluster's DNS addresses; `bound`: all at which DNS is
/// served.
pub(super) fn doors(
    config: &Config,
    said: [Option<PageAt>; 3],
    node: Option<&Node>,
    cluster: &BTreeSet<IpAddr>,
    bound: &BTreeSet<IpAddr>,
) -> (DoorAddresses, BTreeMap<SocketAddr, SocketAddr>) {
    let [health, ready, metrics] = said;
    let is_own = |ip: IpAddr| {
        let is_nodes = node.is_some_and(|node| node.addresses.iter().any(|entry| entry.address == ip));
        bound.contains(&ip) && !ip.is_loopback() && !ip.is_unspecified() && !is_nodes
    };
    let mut asked = Vec::new();
    let mut door = |set: Option<Listen>, said: Option<PageAt>, usual: u16| match (set, said) {
        (Some(Listen(set)), _) => set,
        (None, Some(PageAt::Port(port))) if config.proxy => {
            asked.extend(cluster.iter().map(|ip| SocketAddr::new(*ip, port)));
            None
        }
        (None, Some(PageAt::Address(address))) if config.proxy && is_own(address.ip()) => {
            asked.push(address);
            None
        }
        (None, Some(PageAt::Port(port))) => (port != usual).then(|| everywhere(port)),
        (None, Some(PageAt::Address(address))) => Some(address),
        (None, None) => None,
    };
    let doors = DoorAddresses {
        health: door(config.dns_health_address, health, 8080),
        ready: door(config.dns_ready_address, ready, 8181),
        metrics: config.dns_metrics_address.map_or(
            metrics.map(|at| match at {
                PageAt::Port(port) => everywhere(port),
                PageAt::Address(address) => address,
            }),
            |set| set.0,
        ),
    };
    let open = [doors.metrics, config.healthz_address];
    let server = |at: SocketAddr| open.into_iter().flatten().find_map(|open| reached(open, at, node));
    (doors, asked.into_iter().filter_map(|at| Some((at, server(at)?))).collect())
}

fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Where a socket is reached by those who ask `at`, if it is: at the node's own address, or at the one that is asked.
fn reached(open: SocketAddr, at: SocketAddr, node: Option<&Node>) -> Option<SocketAddr> {
    let family = IpFamily::of(at.ip());
    let ip = open.ip();
    if !ip.is_unspecified() {
        return (IpFamily::of(ip) == family && !ip.is_loopback()).then_some(open);
    }
    // One for all of IPv6 is one for IPv4, too.
    if ip.is_ipv4() && family == IpFamily::V6 {
        return None;
    }
    let own = node.and_then(|node| node.primary_addresses().find(|ip| IpFamily::of(*ip) == family));
    Some(SocketAddr::new(own.unwrap_or(at.ip()), open.port()))
}

#[cfg(test)]
mod tests {
    use sluice_model::{NodeAddress, NodeAddressKind};

    use super::*;
    use crate::config::Settings;

    /// What is told, in words, where `said` is of `/health` alone.
    fn told(settings: &str, said: Option<PageAt>) -> [String; 2] {
        let settings: Settings =
            serde_saphyr::from_str(&format!("nodeName: one\nmanifests: /m\n{settings}")).unwrap();
        let config = Config::new(settings).unwrap();
        let address = |address: &str| NodeAddress {
            kind: NodeAddressKind::Internal,
            address: address.parse().unwrap(),
        };
        let node = Node {
            name: "one".into(),
            pod_cidrs: Vec::new(),
            addresses: vec![address("192.0.2.1"), address("2001:db8::1")],
            zone: None,
            draining: false,
        };
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<_>>();
        let cluster = ips(&["10.96.0.10", "fd00::a"]);
        let bound = ips(&["10.96.0.10", "fd00::a", "169.254.20.10", "192.0.2.1"]);
        let said = [said, None, Some(PageAt::Port(9153))];
        let (doors, pages) = doors(&config, said, Some(&node), &cluster, &bound);
        let pages: Vec<_> = pages.iter().map(|(at, server)| format!("{at} > {server}")).collect();
        [doors.health.map(|at| at.to_string()).unwrap_or_default(), pages.join(", ")]
    }

    #[test]
    fn ports_of_dns_addresses_are_the_datapaths_and_others_are_sockets() {
        let at = |text: &str| Some(PageAt::Address(text.parse().unwrap()));
        let both = "10.96.0.10:8080 > 192.0.2.1:9153, [fd00::a]:8080 > [2001:db8::1]:9153";
        let usual = Some(PageAt::Port(8080));
        for (settings, said, socket, pages) in [
            ("", usual, "", both),
            ("", None, "", ""),
            ("", Some(PageAt::Port(8088)), "", &both.replace("8080", "8088")),
            ("", at("169.254.20.10:8080"), "", "169.254.20.10:8080 > 192.0.2.1:9153"),
            ("", at("127.0.0.1:8080"), "127.0.0.1:8080", ""),
            // The node's own: its pods have that port there.
            ("", at("192.0.2.1:8080"), "192.0.2.1:8080", ""),
            ("dnsHealthAddress: none", usual, "", ""),
            ("dnsHealthAddress: 0.0.0.0:8080", usual, "0.0.0.0:8080", ""),
            ("dnsMetricsAddress: none", usual, "", "10.96.0.10:8080 > 192.0.2.1:10256"),
            ("dnsMetricsAddress: none\nhealthzAddress: none", usual, "", ""),
            (
                "dnsMetricsAddress: 127.0.0.1:9153\nhealthzAddress: '[::]:10256'",
                usual,
                "",
                &both.replace("9153", "10256"),
            ),
            ("proxy: false", usual, "", ""),
            ("proxy: false", Some(PageAt::Port(8088)), "[::]:8088", ""),
            ("proxy: false", at("169.254.20.10:8080"), "169.254.20.10:8080", ""),
        ] {
            assert_eq!(told(settings, said), [socket, pages], "{settings} {said:?}");
        }
    }
}
