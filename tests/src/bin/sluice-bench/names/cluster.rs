//! The cluster that is asked about: for our server as objects, for others as a zone file, for the client as
//! questions. Service `n` is `svc-n.ns-m`, where `m` is `n` modulo 100; `headless.ns-0` has 50 endpoints.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sluice_dns::{CacheConfig, DnsConfig, Server, Upstreams};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, Object, ObjectName, Protocol, Service,
    ServicePort, Snapshot, TargetPort,
};
use sluice_tests::{Error, Result};

use super::Workload;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 2;
const HEADLESS: u32 = 50;
/// Names outside the cluster.
const OUTSIDE: u32 = 5_000;
/// Such names, and as many that do not exist, of which the caches are full.
const FULL: u32 = 10_000;
/// Prime to the numbers of names, so that names that are asked after each other are not neighbours.
const STRIDE: u32 = 7_919;

const fn service_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0000 + n)
}

const fn endpoint_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a80_0000 + n)
}

fn service(name: ObjectName, address: Option<Ipv4Addr>) -> Service {
    let port = ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target_port: TargetPort::Number(8080),
        node_port: None,
    };
    Service {
        headless: address.is_none(),
        cluster_ips: address.map(IpAddr::from).into_iter().collect(),
        ports: vec![port],
        ..Service::new(name)
    }
}

pub(crate) fn slice(service: &ObjectName, addresses: impl Iterator<Item = u32>) -> EndpointSlice {
    let endpoint = |n: u32| Endpoint {
        addresses: vec![endpoint_address(n).into()],
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
        service: Some(service.clone()),
        imported: None,
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: addresses.map(endpoint).collect(),
        last_change: None,
    }
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut add = |name: ObjectName, address, endpoints| {
        let slice = slice(&name, endpoints);
        snapshot.apply(Object::Service(service(name, address)), &mut Changes::default());
        snapshot.apply(Object::EndpointSlice(slice), &mut Changes::default());
    };
    for n in 0..SERVICES {
        let name = ObjectName::new(format!("ns-{}", n % 100), format!("svc-{n}"));
        add(name, Some(service_address(n)), n * ENDPOINTS..(n + 1) * ENDPOINTS);
    }
    add(ObjectName::new("ns-0", "headless"), None, 0..HEADLESS);
    snapshot
}

/// A server of the cluster, on one thread, and what it knows.
pub(crate) fn server(listen: SocketAddr, upstream: SocketAddr) -> Result<(Server, Snapshot)> {
    let config = DnsConfig {
        listen: vec![listen],
        udp_threads: 1,
        upstreams: Upstreams::Addresses(vec![upstream]),
        // As the peer: as long as upstreams say.
        cache: CacheConfig { success_ttl: 3600, ..CacheConfig::default() },
        ..DnsConfig::default()
    };
    let server = Server::bind(config).map_err(|error| failed(&error))?;
    // The snapshot is the agent's, and kept as the agent keeps it.
    let snapshot = snapshot();
    server.publisher().publish(&snapshot, &Changes::everything());
    Ok((server, snapshot))
}

/// What a server runs on besides its thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().map_err(|error| failed(&error))
}

/// Serves the cluster until the process is killed.
pub(crate) fn serve(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let runtime = runtime()?;
    let (server, _snapshot) = server(listen, upstream)?;
    runtime.block_on(server.run(std::future::pending())).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::answer("the DNS server", error.to_string())
}

/// The same cluster as a zone file.
pub(crate) fn zone_file() -> String {
    let mut text = String::from(
        "$ORIGIN cluster.local.\n$TTL 30\n@ SOA ns.dns hostmaster 1 7200 1800 86400 30\n@ NS ns.dns\nns.dns A 10.96.0.10\n",
    );
    // Writing to a string does not fail.
    for n in 0..SERVICES {
        let name = format!("svc-{n}.ns-{}.svc", n % 100);
        let _ = writeln!(text, "{name} A {}\n_http._tcp.{name} SRV 0 100 80 {name}", service_address(n));
        for address in (n * ENDPOINTS..(n + 1) * ENDPOINTS).map(endpoint_address) {
            let _ = writeln!(text, "{}.{name} A {address}", address.to_string().replace('.', "-"));
        }
    }
    for address in (0..HEADLESS).map(endpoint_address) {
        let label = address.to_string().replace('.', "-");
        let _ = writeln!(text, "headless.ns-0.svc A {address}\n{label}.headless.ns-0.svc A {address}");
        let _ = writeln!(text, "_http._tcp.headless.ns-0.svc SRV 0 2 8080 {label}.headless.ns-0.svc");
    }
    text
}

/// The files of questions.
pub(crate) struct Queries([PathBuf; 5]);

impl Queries {
    /// The one of a workload.
    pub(crate) fn of(&self, workload: Workload) -> &Path {
        &self.0[workload as usize]
    }
}

/// Writes the files of questions.
pub(crate) fn write_queries(folder: &Path) -> Result<Queries> {
    let all = |count: u32, name: &dyn Fn(u32) -> String| -> String {
        (0..count).map(|n| format!("{} A\n", name(n.wrapping_mul(STRIDE) % count))).collect()
    };
    let in_cluster = |kind: &str, n: u32| format!("{kind}-{n}.ns-{}.svc.cluster.local", n % 100);
    let texts = [
        ("services", all(SERVICES, &|n| in_cluster("svc", n))),
        ("misses", all(SERVICES, &|n| in_cluster("no", n))),
        ("headless", all(1, &|_| "headless.ns-0.svc.cluster.local".to_owned())),
        ("cached", all(OUTSIDE, &|n| format!("host-{n}.example.org"))),
        (
            "full",
            all(2 * FULL, &|n| format!("{}-{n}.example.org", if n % 2 == 0 { "host" } else { "absent" })),
        ),
    ];
    let mut files = Vec::new();
    for (name, text) in texts {
        let path = folder.join(format!("{name}.queries"));
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
        files.push(path);
    }
    files.try_into().map(Queries).map_err(|_| Error::answer("questions", "a file too few"))
}
