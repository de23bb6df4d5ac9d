//! What the DNS server should be like, from the configuration, the Corefile and the cluster. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use sluice_dns::{Corefile, CorefileError, Devices, DnsConfig, PageAt, PodRecords, Upstreams};
use sluice_model::{Protocol, Service, ServicePort, Snapshot, TargetPort};

use super::pages;
use crate::{
    api::{Needs, Pods},
    config::Config,
};

/// The port of DNS.
const PORT: u16 = 53;
/// The lameduck time of the standard manifests.
const LAMEDUCK: Duration = Duration::from_secs(5);
/// CoreDNS's ports for `/health`, `/ready` and `/metrics`.
const PAGE_PORTS: [u16; 3] = [8080, 8181, 9153];

/// What the server should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The server's own configuration.
    pub dns: DnsConfig,
    /// Where it is told over HTTP how it is.
    pub doors: DoorAddresses,
    /// Where it is told so by way of the datapath, and the door that leads to.
    pub pages: BTreeMap<SocketAddr, SocketAddr>,
    /// How long it goes on answering after the agent was told to end.
    pub lameduck: Duration,
}

/// The sockets at which it is told over HTTP how the server is, besides the agent's own address for health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorAddresses {
    /// `/health`.
    pub health: Option<SocketAddr>,
    /// `/ready`.
    pub ready: Option<SocketAddr>,
    /// `/metrics`, and the two others beside it.
    pub metrics: Option<SocketAddr>,
}

/// The addresses that this node has, each with its device.
pub type LocalAddresses = BTreeSet<(String, IpAddr)>;

/// The cluster's DNS addresses: those that are configured, and those of the service.
pub fn addresses(config: &Config, snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let service = snapshot.services.get(&config.dns_service);
    let service = service.map(|service| service.cluster_ips.clone()).unwrap_or_default();
    config.cluster_dns.iter().copied().chain(service).collect()
}

/// The service that stands for the cluster's DNS where addresses are configured and nobody has made it: with it
/// the name and the datapath's entry are there as in any cluster.
pub fn default_service(config: &Config) -> Option<Service> {
    if !config.dns || config.cluster_dns.is_empty() {
        return None;
    }
    let port = |name: &str, protocol, port| ServicePort {
        name: name.into(),
        protocol,
        port,
        target_port: TargetPort::Number(port),
        node_port: None,
    };
    let [.., metrics] = PAGE_PORTS;
    Some(Service {
        cluster_ips: config.cluster_dns.clone(),
        ports: vec![
            port("dns", Protocol::Udp, PORT),
            port("dns-tcp", Protocol::Tcp, PORT),
            port("metrics", Protocol::Tcp, metrics),
        ],
        ..Service::new(config.dns_service.clone())
    })
}

/// Who is answered: pods, nodes, this node by any of its addresses, and whom the configuration adds. Where no
/// pod network is known, nobody can tell pods from others, and all are answered (an empty list).
fn clients(
    config: &Config,
    snapshot: &Snapshot,
    addresses: &BTreeSet<IpAddr>,
    local: &LocalAddresses,
) -> Vec<IpNet> {
    let nodes = || snapshot.nodes.values();
    if nodes().all(|node| node.pod_cidrs.is_empty()) {
        return Vec::new();
    }
    let pods = nodes().flat_map(|node| node.pod_cidrs.iter().copied());
    let of_nodes = nodes().flat_map(|node| node.addresses.iter().map(|entry| entry.address));
    let single = of_nodes.chain(addresses.iter().copied()).chain(local.iter().map(|(_, ip)| *ip));
    let loopback = [IpNet::from(IpAddr::from([127, 0, 0, 0])), IpAddr::V6(Ipv6Addr::LOCALHOST).into()];
    let loopback =
        loopback.map(|net| if net.addr().is_ipv4() { IpNet::new_assert(net.addr(), 8) } else { net });
    let all =
        pods.chain(single.map(IpNet::from)).chain(loopback).chain(config.dns_allow_from.iter().copied());
    // In an order, so that the same clients are the same list.
    IpNet::aggregate(&all.collect::<BTreeSet<_>>().into_iter().collect())
}

/// The pods that the server must know of: all, where the names of pods are to be true; this node's, for whose queries
/// it walks their search paths.
fn pods(dns: &DnsConfig) -> Pods {
    match (&dns.node, dns.autopath) {
        _ if dns.pods == PodRecords::Verified => Pods::All,
        (Some(node), true) => Pods::On(node.as_str().into()),
        (None, true) => Pods::All,
        (_, false) => Pods::None,
    }
}

/// What the server must know beside names, addresses and ports.
pub(super) fn needs(dns: &DnsConfig) -> Needs {
    Needs {
        pods: pods(dns),
        service_labels: dns.exposure.labels.is_some(),
        imports: !dns.multicluster_zones.is_empty(),
    }
}

/// What the server should be like. `local`: this node's addresses.
pub(super) fn wanted(
    config: &Config,
    corefile: Option<&str>,
    snapshot: &Snapshot,
    local: &LocalAddresses,
) -> Result<Wanted, CorefileError> {
    let addresses = addresses(config, snapshot);
    let pods = snapshot.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
    let services = snapshot.service_cidrs.values().flat_map(|object| object.cidrs.iter().copied());
    let networks: BTreeSet<IpNet> =
        pods.chain(services).chain(config.service_cidrs.iter().copied()).collect();
    let upstreams = if config.dns_upstreams.is_empty() {
        Upstreams::ResolvConf(config.resolv_conf.clone())
    } else {
        Upstreams::Addresses(config.dns_upstreams.clone())
    };
    let base = DnsConfig {
        zone: config.cluster_domain.clone(),
        multicluster_zones: config.dns_multicluster_zones.clone(),
        ttl: config.dns_ttl,
        upstreams,
        networks: networks.into_iter().collect(),
        node: Some(config.node_name.to_string()),
        allow_from: clients(config, snapshot, &addresses, local),
        ..DnsConfig::default()
    };
    let (mut dns, said, lameduck, devices) = match corefile {
        None => (base, PAGE_PORTS.map(|port| Some(PageAt::Port(port))), LAMEDUCK, Devices::default()),
        Some(text) => {
            let Corefile { config, health, ready, metrics, lameduck, devices } = Corefile::read(text, base)?;
            (config, [health, ready, metrics], lameduck, devices)
        }
    };
    // The cluster's DNS addresses are served whatever else a Corefile binds, and on the port of DNS: the one that a
    // Corefile names for a pod of its own is behind a service's.
    let mut listen: BTreeSet<SocketAddr> =
        addresses.iter().map(|ip| SocketAddr::new(*ip, PORT)).chain(dns.listen).collect();
    listen.extend(devices.listen(local.iter().map(|(device, ip)| (device.as_str(), *ip))));
    dns.listen = listen.into_iter().collect();
    let bound = dns.listen.iter().map(SocketAddr::ip).collect();
    let node = snapshot.nodes.get(&config.node_name).map(|node| &**node);
    let (doors, pages) = pages::doors(config, said, node, &addresses, &bound);
    Ok(Wanted { dns, doors, pages, lameduck: config.dns_lameduck.unwrap_or(lameduck) })
}

#[cfg(test)]
mod tests {
    use sluice_model::{Changes, Node, NodeAddress, NodeAddressKind, Object};

    use super::*;
    use crate::config::{Listen, Settings};

    fn config(change: impl FnOnce(&mut Settings)) -> Config {
        let mut settings = Settings {
            node_name: Some("one".into()),
            manifests: Some("/m".into()),
            cluster_dns: Some(vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()]),
            ..Settings::default()
        };
        change(&mut settings);
        Config::new(settings).unwrap()
    }

    fn node(name: &str, cidrs: &[&str], address: &str) -> Object {
        Object::Node(Node {
            name: name.into(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            addresses: vec![NodeAddress {
                kind: NodeAddressKind::Internal,
                address: address.parse().unwrap(),
            }],
            zone: None,
            draining: false,
        })
    }

    fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        objects.into_iter().for_each(|object| snapshot.apply(object, &mut Changes::default()));
        snapshot
    }

    #[test]
    fn dns_has_the_addresses_of_the_configuration_and_of_its_service() {
        let config = config(|_| {});
        assert_eq!(addresses(&config, &Snapshot::default()).len(), 2);
        let mut service = default_service(&config).unwrap();
        assert_eq!(service.name.to_string(), "kube-system/kube-dns");
        let ports: Vec<_> = service.ports.iter().map(|port| port.port).collect();
        assert!(service.is_proxied() && ports == [53, 53, 9153]);
        service.cluster_ips = vec!["10.96.0.11".parse().unwrap()];
        let snapshot = snapshot([Object::Service(service)]);
        let addresses: Vec<_> = addresses(&config, &snapshot).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.96.0.10", "10.96.0.11", "fd00::a"]);
    }

    #[test]
    fn pods_are_asked_for_as_the_corefile_needs_them() {
        let config = config(|_| {});
        let of = |corefile: Option<&str>| {
            let wanted = wanted(&config, corefile, &Snapshot::default(), &BTreeSet::new()).unwrap();
            pods(&wanted.dns)
        };
        let with = |option: &str| {
            format!(
                ".:53 {{\n  kubernetes cluster.local in-addr.arpa {{\n    pods {option}\n  }}\n  forward . /etc/resolv.conf\n}}\n"
            )
        };
        assert_eq!(of(None), Pods::On("one".into()));
        assert_eq!(of(Some(&with("insecure"))), Pods::On("one".into()));
        assert_eq!(of(Some(&with("verified"))), Pods::All);
        assert_eq!(pods(&DnsConfig { autopath: false, ..DnsConfig::default() }), Pods::None);
    }

    #[test]
    fn imports_are_asked_for_where_a_zone_of_a_set_of_clusters_is_named() {
        let zones =
            |settings: &mut Settings| settings.dns_multicluster_zones = Some(vec!["a.test".to_owned()]);
        let (plain, set) = (config(|_| {}), config(zones));
        let text = ".:53 {\n kubernetes cluster.local b.test {\n multicluster b.test\n }\n}";
        for (config, corefile, zones) in
            [(&plain, None, &[][..]), (&set, None, &["a.test"]), (&plain, Some(text), &["b.test"])]
        {
            let dns = wanted(config, corefile, &Snapshot::default(), &BTreeSet::new()).unwrap().dns;
            assert_eq!(dns.multicluster_zones, zones);
            assert_eq!(needs(&dns).imports, !zones.is_empty());
        }
    }

    #[test]
    fn without_an_address_there_is_nothing_to_stand_for_dns() {
        let config = config(|settings| settings.cluster_dns = None);
        assert_eq!(default_service(&config), None);
        assert!(addresses(&config, &Snapshot::default()).is_empty());
    }

    #[test]
    fn pods_and_nodes_are_answered_and_the_world_is_not() {
        let nodes = [
            node("one", &["10.1.0.0/24", "fd00:1::/64"], "192.0.2.1"),
            node("two", &["10.1.1.0/24"], "192.0.2.2"),
        ];
        let local = [("eth1".to_owned(), "198.51.100.1".parse().unwrap())].into();
        let config =
            config(|settings| settings.dns_allow_from = Some(vec!["203.0.113.0/24".parse().unwrap()]));
        let dns = wanted(&config, None, &snapshot(nodes), &local).unwrap().dns;
        let is_answered =
            |client: &str| dns.allow_from.iter().any(|net| net.contains(&client.parse::<IpAddr>().unwrap()));
        for client in [
            "10.1.0.7",
            "10.1.1.7",
            "fd00:1::7",
            "192.0.2.1",
            "192.0.2.2",
            "198.51.100.1",
            "10.96.0.10",
            "fd00::a",
            "127.0.0.1",
            "::1",
            "203.0.113.9",
        ] {
            assert!(is_answered(client), "{client}");
        }
        for client in ["10.1.2.7", "192.0.2.3", "8.8.8.8", "2001:db8::1"] {
            assert!(!is_answered(client), "{client}");
        }
        let nobody = wanted(&config, None, &snapshot([node("one", &[], "192.0.2.1")]), &local).unwrap();
        assert!(nobody.dns.allow_from.is_empty(), "without pod networks all are answered");
    }

    #[test]
    fn a_corefile_says_what_the_settings_leave_open() {
        let text = ".:5353 {\n health :8088 {\n lameduck 7s\n }\n ready\n kubernetes k8s.test {\n ttl 9\n }\n bind 169.254.20.10\n \
                    forward . 192.0.2.53\n}";
        let empty = (Snapshot::default(), BTreeSet::new());
        let told = wanted(&config(|_| {}), Some(text), &empty.0, &empty.1).unwrap();
        assert_eq!((told.dns.zone.as_str(), told.dns.ttl), ("k8s.test", 9));
        let listen: Vec<_> = told.dns.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["10.96.0.10:53", "169.254.20.10:5353", "[fd00::a]:53"]);
        let doors = |wanted: &Wanted| {
            [wanted.doors.health, wanted.doors.ready, wanted.doors.metrics]
                .map(|door| door.map(|at| at.port()))
        };
        assert_eq!((doors(&told), told.lameduck), ([None, None, None], Duration::from_secs(7)));

        let flags = config(|settings| {
            settings.dns_health_address = Some(Listen(None));
            settings.dns_ready_address = "127.0.0.1:8282".parse().ok();
            settings.dns_metrics_address = "127.0.0.1:9".parse().ok();
            settings.dns_lameduck = "1s".parse().ok();
        });
        let told = wanted(&flags, Some(text), &empty.0, &empty.1).unwrap();
        assert_eq!((doors(&told), told.lameduck), ([None, Some(8282), Some(9)], Duration::from_secs(1)));

        let plain = wanted(&config(|_| {}), None, &empty.0, &empty.1).unwrap();
        assert_eq!((doors(&plain), plain.lameduck), ([None, None, Some(9153)], LAMEDUCK));
        // What a device has, but where the cluster's own addresses are.
        let text = ".:5353 {\n bind eth1 {\n except 192.0.2.9\n }\n}";
        let local = |device: &str, ip: &str| (device.to_owned(), ip.parse().unwrap());
        let local =
            [local("eth0", "192.0.2.7"), local("eth1", "192.0.2.8"), local("eth1", "192.0.2.9")].into();
        let told = wanted(&config(|_| {}), Some(text), &empty.0, &local).unwrap();
        let listen: Vec<_> = told.dns.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["10.96.0.10:53", "192.0.2.8:5353", "[fd00::a]:53"]);

        let error = wanted(&flags, Some(". {\n whoami\n}"), &empty.0, &empty.1).unwrap_err();
        assert_eq!(error.to_string(), "line 2: whoami: this directive is not supported");
    }
}
