//! What tests build clusters of, and how they ask.

pub(crate) mod bed;
pub(crate) mod framing;
pub(crate) mod https;
pub(crate) mod script;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, Imported, IpFamily, Namespace, Object, ObjectName,
    Pod, Protocol, Service, ServiceImport, ServiceKind, ServicePort, Snapshot, TargetPort,
};

use crate::{
    DnsConfig, Publisher, Upstreams,
    handler::{Client, Handler, Outcome, Transport},
    metrics::Metrics,
    name::WireName,
    routes::Routes,
    rules::RuleSet,
    transfer::Transfers,
    zone::Origin,
};

/// A service without addresses and ports.
pub(crate) fn service(name: &str) -> Service {
    Service::new(name.parse().unwrap())
}

/// A service with cluster addresses and ports `name/protocol/number`.
pub(crate) fn cluster_ip(name: &str, addresses: &[&str], ports: &[&str]) -> Object {
    let mut service = service(name);
    service.cluster_ips = addresses.iter().map(|a| a.parse().unwrap()).collect();
    service.ports = ports
        .iter()
        .map(|port| {
            let (name, protocol, number) = port_of(port);
            let target_port = TargetPort::Number(number);
            ServicePort { name: name.into(), protocol, port: number, target_port, node_port: None }
        })
        .collect();
    Object::Service(service)
}

/// A headless service.
pub(crate) fn headless(name: &str) -> Object {
    Object::Service(Service { headless: true, ..service(name) })
}

/// An ExternalName service.
pub(crate) fn external(name: &str, target: &str) -> Object {
    let kind = ServiceKind::ExternalName;
    Object::Service(Service { kind, external_name: Some(target.into()), ..service(name) })
}

/// A namespace.
pub(crate) fn namespace(name: &str) -> Object {
    Object::Namespace(Namespace { name: name.into(), labels: BTreeMap::new() })
}

/// A pod with an address.
pub(crate) fn pod(name: &str, address: &str, host_network: bool) -> Object {
    Object::Pod(Pod {
        name: name.parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
        node: Some("here".into()),
        labels: BTreeMap::new(),
        hostname: None,
        subdomain: None,
        ports: Vec::new(),
        host_network,
        own_search: false,
        ready: true,
        terminating: false,
    })
}

fn port_of(text: &str) -> (&str, Protocol, u16) {
    let parts: Vec<_> = text.split('/').collect();
    (parts[0], parts[1].parse().unwrap(), parts[2].parse().unwrap())
}

/// A slice `of` a service; endpoints are `address[=hostname][@zone][!]`, where `!` says not ready.
pub(crate) fn slice(name: &str, of: &str, ports: &[&str], endpoints: &[&str]) -> Object {
    let endpoints: Vec<Endpoint> = endpoints
        .iter()
        .map(|text| {
            let (text, ready) = text.strip_suffix('!').map_or((*text, true), |text| (text, false));
            let (text, zone) = text.split_once('@').map_or((text, None), |(a, z)| (a, Some(z.into())));
            let (address, hostname) = text.split_once('=').map_or((text, None), |(a, h)| (a, Some(h.into())));
            Endpoint {
                addresses: vec![address.parse().unwrap()],
                ready,
                serving: ready,
                terminating: false,
                hostname,
                node: None,
                zone,
                hints: Hints::default(),
                pod: Some(ObjectName::new("default", format!("pod-{}", address.replace(['.', ':'], "")))),
            }
        })
        .collect();
    let family = endpoints.first().map_or(IpFamily::V4, |e| IpFamily::of(e.addresses[0]));
    let ports = ports
        .iter()
        .map(|port| {
            let (name, protocol, port) = port_of(port);
            EndpointPort { name: name.into(), protocol, port }
        })
        .collect();
    let service: ObjectName = of.parse().unwrap();
    let name = ObjectName::new(service.namespace.clone(), name);
    Object::EndpointSlice(EndpointSlice {
        name,
        service: Some(service),
        imported: None,
        headless: false,
        family,
        ports,
        endpoints,
        last_change: None,
    })
}

/// An import; without addresses a headless one.
pub(crate) fn import(name: &str, addresses: &[&str], ports: &[&str]) -> Object {
    let port = |port: &&str| {
        let (name, protocol, port) = port_of(port);
        EndpointPort { name: name.into(), protocol, port }
    };
    Object::ServiceImport(ServiceImport {
        name: name.parse().unwrap(),
        headless: addresses.is_empty(),
        ips: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ports: ports.iter().map(port).collect(),
        labels: None,
    })
}

/// As [`slice`], of an import and a cluster.
pub(crate) fn slice_from(cluster: &str, name: &str, of: &str, ports: &[&str], endpoints: &[&str]) -> Object {
    let Object::EndpointSlice(slice) = slice(name, of, ports, endpoints) else { unreachable!() };
    let imported = Imported { service: of.parse().unwrap(), cluster: cluster.into() };
    Object::EndpointSlice(EndpointSlice { service: None, imported: Some(Box::new(imported)), ..slice })
}

/// A snapshot of these objects.
pub(crate) fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    objects.into_iter().for_each(|object| snapshot.apply(object, &mut Changes::default()));
    snapshot
}

/// An origin as a server makes it of a configuration.
pub(crate) fn origin(config: &DnsConfig) -> Arc<Origin> {
    let addresses = ["10.96.0.10", "fd00:96::a"].map(|address| address.parse().unwrap());
    Arc::new(Origin::new(WireName::parse(&config.zone).unwrap(), config, &addresses))
}

/// A client that is no pod.
pub(crate) const TCP: Client =
    Client { transport: Transport::Tcp, address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port: 4096 };
/// The same over UDP.
pub(crate) const UDP: Client = Client { transport: Transport::Udp, ..TCP };

/// A server without sockets.
pub(crate) struct Fixture {
    pub(crate) handler: Handler,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Metrics,
}

impl Fixture {
    /// With nothing published.
    pub(crate) fn new(config: &DnsConfig) -> Self {
        let (origin, slot, metrics) = (origin(config), Arc::default(), Metrics::new().unwrap());
        let routes = Routes::new(config, &[], &metrics, None).unwrap();
        let publisher = Publisher::new(origin.clone(), Arc::clone(&slot), metrics.clone());
        let rules = RuleSet::new(&config.rules, &metrics.rules).unwrap();
        let handler =
            Handler::new(origin, slot, routes, rules, Transfers::new(config).unwrap(), config, &metrics);
        Self { handler, publisher, metrics }
    }

    /// With these objects published and nobody to forward to.
    pub(crate) fn with(config: DnsConfig, objects: impl IntoIterator<Item = Object>) -> Self {
        let fixture = Self::new(&DnsConfig { upstreams: Upstreams::None, ..config });
        fixture.publisher.publish(&snapshot(objects), &Changes::everything());
        fixture
    }

    /// The answer to a question over TCP; `None` where others would be asked.
    pub(crate) fn ask(&self, name: &str, qtype: RecordType) -> Option<Message> {
        let mut out = Vec::new();
        match self.handler.answer(&question(name, qtype), TCP, 0, &mut out).0 {
            Outcome::Answered(_) | Outcome::Refresh(_) => Some(Message::from_vec(&out).unwrap()),
            Outcome::Later => None,
            outcome => panic!("no answer to {name}: {outcome:?}"),
        }
    }

    /// An answer as text: its code, then its records in order, each as `name ttl type data`.
    pub(crate) fn told(&self, name: &str, qtype: RecordType) -> Vec<String> {
        let Some(message) = self.ask(name, qtype) else { return vec!["NOT OURS".to_owned()] };
        let mut lines = vec![format!("{:?}", message.metadata.response_code).to_uppercase()];
        let mut records: Vec<_> = message
            .answers
            .iter()
            .map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data))
            .collect();
        records.sort();
        lines.extend(records);
        lines
    }
}

/// A query as a client sends it.
pub(crate) fn question(name: &str, qtype: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
    message.to_vec().unwrap()
}
