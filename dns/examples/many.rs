//! Serves a cluster of many services, for measurements:
//!
//!     many ADDRESS SERVICES ENDPOINTS THREADS [UPSTREAM]
//!
//! Service `n` is `svc-n.ns-m.svc.cluster.local`, where `m` is `n` modulo 100. `headless.ns-0` has 50 endpoints.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use sluice_dns::{DnsConfig, Server, Upstreams};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, Object, ObjectName, Protocol, Service,
    ServicePort, Snapshot, TargetPort,
};

fn service(name: ObjectName, address: Option<IpAddr>) -> Service {
    let port = ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target_port: TargetPort::Number(8080),
        node_port: None,
    };
    Service {
        headless: address.is_none(),
        cluster_ips: address.into_iter().collect(),
        ports: vec![port],
        ..Service::new(name)
    }
}

fn slice(service: &ObjectName, addresses: impl Iterator<Item = u32>) -> EndpointSlice {
    let endpoint = |n: u32| Endpoint {
        addresses: vec![IpAddr::from(Ipv4Addr::from(0x0a80_0000 + n))],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: None,
        zone: None,
        hints: Hints::default(),
        pod: None,
    };
    EndpointSlice {
        name: ObjectName::new(service.namespace.clone(), format!("{}-1", service.name)),
        service: service.clone(),
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: addresses.map(endpoint).collect(),
        last_change: None,
    }
}

/// The resident memory in KiB.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let (Some(address), Some(services), Some(endpoints), Some(threads)) =
        (arguments.first().and_then(|text| text.parse::<SocketAddr>().ok()), number(1), number(2), number(3))
    else {
        return Err("many ADDRESS SERVICES ENDPOINTS THREADS [UPSTREAM]".into());
    };
    let upstreams = match arguments.get(4) {
        Some(text) => Upstreams::Addresses(vec![text.parse()?]),
        None => Upstreams::None,
    };
    let config =
        DnsConfig { listen: vec![address], udp_threads: threads as usize, upstreams, ..DnsConfig::default() };
    let before = resident();
    let mut snapshot = Snapshot::default();
    for n in 0..services {
        let name = ObjectName::new(format!("ns-{}", n % 100), format!("svc-{n}"));
        let address = IpAddr::from(Ipv4Addr::from(0x0a60_0000 + n));
        let slice = slice(&name, n * endpoints..(n + 1) * endpoints);
        snapshot.apply(Object::Service(service(name, Some(address))), &mut Changes::default());
        snapshot.apply(Object::EndpointSlice(slice), &mut Changes::default());
    }
    let name = ObjectName::new("ns-0", "headless");
    let headless = slice(&name, 0..50);
    snapshot.apply(Object::Service(service(name, None)), &mut Changes::default());
    snapshot.apply(Object::EndpointSlice(headless), &mut Changes::default());
    let with_snapshot = resident();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let server = Server::bind(config)?;
    let publisher = server.publisher();
    let start = std::time::Instant::now();
    publisher.publish(&snapshot, &Changes::everything());
    let took = start.elapsed();
    let mut changes = Changes::default();
    changes.services.insert(ObjectName::new("ns-1", "svc-1"));
    let start = std::time::Instant::now();
    publisher.publish(&snapshot, &changes);
    eprintln!(
        "first publish {took:?}, one change {:?}; resident KiB: {before:?}, with the snapshot {with_snapshot:?}, \
         with the zone {:?}",
        start.elapsed(),
        resident()
    );
    runtime.block_on(server.run(std::future::pending()))?;
    Ok(())
}
