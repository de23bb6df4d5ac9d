//! The suite `cluster`: what a large cluster costs one of its nodes, beside a small one.
//!
//! An agent is fed by the test API server: how long until it is ready, with empty maps and with those that it left; the
//! memory that it holds; one change, a service more with its endpoints: the time until the datapath has it and until
//! DNS does, and the agent's CPU time for it; and the same for a node more. What is watched for is the maps and the name server themselves, not what
//! the agent says of them.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData};
use serde_json::{Value, json};
use sluice_ebpf_common::{Addr, Be16, Frontend, FrontendKey, LAYOUT};
use sluice_tests::apiserver::ApiServer;
use sluice_tests::cluster::{DNS_ADDRESSES, Options};
use sluice_tests::{Cluster, Error, Result, Testbed};

use crate::report::{Better, Case, Measure, Report};

const MEASURES: &[Measure] = &[
    Measure { name: "first start", unit: "ms", better: Better::Lower },
    Measure { name: "restart", unit: "ms", better: Better::Lower },
    Measure { name: "memory", unit: "MiB", better: Better::Lower },
    Measure { name: "memory for 1,000 objects", unit: "KiB", better: Better::Lower },
    Measure { name: "change until in the datapath", unit: "us", better: Better::Lower },
    Measure { name: "change until in DNS", unit: "us", better: Better::Lower },
    Measure { name: "CPU for a change", unit: "us", better: Better::Lower },
    Measure { name: "node until in the datapath", unit: "us", better: Better::Lower },
    Measure { name: "CPU for a node", unit: "us", better: Better::Lower },
];
const CASES: &[Case] = &[
    Case { name: "10 nodes, 10 services", peers: &[] },
    Case { name: "5,000 nodes, 50,000 services", peers: &[0] },
];
const SIZES: [Size; 2] = [Size { nodes: 10, services: 10 }, Size { nodes: 5_000, services: 50_000 }];
/// A start is measured in so many rounds at most: it takes long, and varies little.
const STARTS: u32 = 3;
/// Changes in a round, of which the median counts.
const CHANGES: u32 = 20;
/// Pause between changes, so that none waits for the one before it.
const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(180);
/// The service that comes and goes. Above the addresses of all others.
const ADDRESS: &str = "10.96.255.250";
const PORT: u16 = 80;

#[derive(Clone, Copy)]
struct Size {
    nodes: u32,
    services: u32,
}

/// Runs the suite.
pub(crate) fn run(rounds: u32) -> Result<Report> {
    let mut report = Report::new("cluster", MEASURES, CASES);
    let mut small = 0.0;
    for (case, size) in SIZES.into_iter().enumerate() {
        let options =
            Options { nodes: 1, api: true, agent: "logLevel: warn\n".to_owned(), ..Options::default() };
        let cluster = Cluster::without_agents(&Testbed::new()?, &options)?;
        let server = cluster.api().server();
        eprintln!("cluster: {}: putting them on the API server", CASES[case].name);
        fill(server, size)?;
        for round in 0..rounds.clamp(1, STARTS) {
            eprintln!("cluster: {}: start {}", CASES[case].name, round + 1);
            // With maps that nobody has filled yet: what an earlier agent has pinned goes.
            cluster.node(1).kill_agent()?;
            let pins = cluster.node(1).bpffs();
            if pins.exists() {
                std::fs::remove_dir_all(&pins).map_err(Error::file("remove", &pins))?;
            }
            report.add(case, 0, start(&cluster)?);
            let memory = memory(&cluster)?;
            report.add(case, 2, memory);
            if case == 0 {
                small = memory;
            } else {
                // A service is two objects: itself and its slice.
                let more = [size, SIZES[0]].map(|size| f64::from(size.nodes + 2 * size.services));
                report.add(case, 3, (memory - small) * 1024.0 / ((more[0] - more[1]) / 1000.0));
            }
            cluster.node(1).kill_agent()?;
            report.add(case, 1, start(&cluster)?);
        }
        let client = cluster.node(1).pod("client")?;
        let resolver = client.host().inside(|| resolver(DNS_ADDRESSES[0]))?;
        for round in 0..rounds {
            eprintln!("cluster: {}: changes, round {} of {rounds}", CASES[case].name, round + 1);
            changes(&cluster, &resolver, &mut report, case)?;
            nodes(&cluster, &mut report, case)?;
        }
    }
    Ok(report)
}

fn failed(what: &str) -> impl FnOnce(aya::maps::MapError) -> Error {
    let what = what.to_owned();
    move |error| Error::answer(what, error)
}

/// Nodes, and services with two endpoints each.
fn fill(server: &ApiServer, size: Size) -> Result<()> {
    for number in 0..size.nodes {
        let (high, low) = (number / 250, number % 250 + 1);
        let networks =
            [format!("10.{}.{}.0/24", 128 + number / 256, number % 256), format!("fd00:300:{number:x}::/64")];
        let addresses = [format!("172.16.{high}.{low}"), format!("fd78::{high:x}:{low:x}")];
        server.put(node(number, networks, addresses))?;
    }
    for number in 0..size.services {
        let address = format!("10.96.{}.{}", number / 256, number % 256);
        if DNS_ADDRESSES.contains(&address.as_str()) {
            continue;
        }
        let node = number % size.nodes;
        let endpoint = |last: u32| format!("10.{}.{}.{last}", 128 + node / 256, node % 256);
        let [service, slice] = objects(&format!("service-{number}"), &address, [endpoint(2), endpoint(3)]);
        server.put(service)?;
        server.put(slice)?;
    }
    Ok(())
}

/// A node, as the API has it.
fn node(number: u32, networks: [String; 2], addresses: [String; 2]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": format!("far-{number}"), "managedFields": managed(&["f:metadata", "f:spec", "f:status"], 12),
            "labels": { "topology.kubernetes.io/zone": format!("z{}", number % 3) },
        },
        "spec": { "podCIDR": networks[0], "podCIDRs": networks },
        "status": {
            "addresses": addresses.map(|address| json!({ "type": "InternalIP", "address": address })),
            "nodeInfo": { "kubeletVersion": "v1.36.0", "osImage": "Debian GNU/Linux 12 (bookworm)" },
            // What makes real Node objects large.
            "images": (0..20).map(|image| json!({ "names": [format!("registry.example/image-{image}@sha256:{number:064}")], "sizeBytes": 1 << 26 })).collect::<Vec<_>>(),
        },
    })
}

/// Who has set which field: half of a real object.
fn managed(fields: &[&str], each: u32) -> Value {
    let entry = |field: &&str| {
        let set = (0..each).map(|number| (format!("f:field-{number}"), json!({ ".": {}, "f:part": {} })));
        json!({
            "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": { *field: set.collect::<serde_json::Map<_, _>>() },
        })
    };
    fields.iter().map(entry).collect()
}

/// A service and its slice, with what real ones carry along.
fn objects(name: &str, address: &str, endpoints: [String; 2]) -> [Value; 2] {
    let fields = managed(&["f:spec"], 12);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name }, "managedFields": fields },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": { "app": name }, "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{ "name": "http", "protocol": "TCP", "port": PORT, "targetPort": 8080 }],
        },
        "status": { "loadBalancer": {} },
    });
    let endpoints = endpoints.iter().enumerate().map(|(at, address)| {
        json!({
            "addresses": [address], "nodeName": "far-0",
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": "default", "name": format!("{name}-{at}"), "uid": "00000000-0000-0000-0000-000000000000" },
        })
    });
    let endpoints: Vec<_> = endpoints.collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-x"), "namespace": "default", "managedFields": fields,
            "labels": { "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
        },
        "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }],
        "endpoints": endpoints,
    });
    [service, slice]
}

/// Milliseconds until the agent is ready.
fn start(cluster: &Cluster) -> Result<f64> {
    let started = Instant::now();
    cluster.node(1).start_agent()?;
    cluster.node(1).wait_ready_within(LIMIT)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn agent(cluster: &Cluster) -> Result<u32> {
    cluster.node(1).agent_pid().ok_or_else(|| Error::Missing("running agent".to_owned()))
}

/// What of the agent is in memory, in MiB.
fn memory(cluster: &Cluster) -> Result<f64> {
    let path = format!("/proc/{}/status", agent(cluster)?);
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| Error::answer(path, "no VmRSS"))
}

/// The CPU time of all of the agent's threads, in microseconds.
fn cpu(cluster: &Cluster) -> Result<f64> {
    let path = format!("/proc/{}/task", agent(cluster)?);
    let tasks = std::fs::read_dir(&path).map_err(Error::file("read", &path))?;
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    Ok(nanoseconds.sum::<f64>() / 1e3)
}

/// One round of changes.
fn changes(cluster: &Cluster, resolver: &UdpSocket, report: &mut Report, case: usize) -> Result<()> {
    let server = cluster.api().server();
    let pin = cluster.node(1).bpffs().join(LAYOUT).join("maps/frontends");
    let frontends = frontends(&pin)?;
    let key = key()?;
    let (mut datapath, mut names, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let before = cpu(cluster)?;
        let name = format!("change-{number}");
        let [service, slice] = objects(&name, ADDRESS, ["10.128.0.9".to_owned(), "10.128.0.10".to_owned()]);
        let started = Instant::now();
        server.put(slice.clone())?;
        server.put(service.clone())?;
        until("the datapath", || Ok(frontends.get(&key, 0).is_ok()))?;
        datapath.push(started.elapsed().as_secs_f64() * 1e6);
        until("the name", || is_known(resolver, &name))?;
        names.push(started.elapsed().as_secs_f64() * 1e6);
        server.delete(&service)?;
        server.delete(&slice)?;
        until("the datapath", || Ok(frontends.get(&key, 0).is_err()))?;
        std::thread::sleep(PAUSE);
        // A service that comes and goes is two changes.
        work.push((cpu(cluster)? - before) / 2.0);
    }
    report.add(case, 6, middle(work));
    report.add(case, 4, middle(datapath));
    report.add(case, 5, middle(names));
    Ok(())
}

/// Nodes that come and go, each with a pod network of its own.
fn nodes(cluster: &Cluster, report: &mut Report, case: usize) -> Result<()> {
    let server = cluster.api().server();
    let pin = cluster.node(1).bpffs().join(LAYOUT).join("maps/networks");
    let networks = MapData::from_pin(pin).map_err(failed("the map of networks"))?;
    let networks: LpmTrie<MapData, Addr, u32> =
        LpmTrie::try_from(Map::LpmTrie(networks)).map_err(failed("the map of networks"))?;
    let network: IpAddr = "10.250.7.0".parse().map_err(|error| Error::answer("10.250.7.0", error))?;
    // Of IPv4, mapped into IPv6.
    let key = Key::new(96 + 24, Addr::from(network));
    let (mut there, mut work) = (Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let before = cpu(cluster)?;
        let networks_of = ["10.250.7.0/24".to_owned(), "fd00:300:ffff::/64".to_owned()];
        let object = node(1_000_000 + number, networks_of, ["172.31.0.9", "fd78::ffff:9"].map(str::to_owned));
        let started = Instant::now();
        server.put(object.clone())?;
        until("the node's network", || Ok(networks.get(&key, 0).is_ok()))?;
        there.push(started.elapsed().as_secs_f64() * 1e6);
        server.delete(&object)?;
        until("the end of the node's network", || Ok(networks.get(&key, 0).is_err()))?;
        std::thread::sleep(PAUSE);
        work.push((cpu(cluster)? - before) / 2.0);
    }
    report.add(case, 8, middle(work));
    report.add(case, 7, middle(there));
    Ok(())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Tries until it is so, and hardly pauses.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > LIMIT {
            return Err(Error::TimedOut { what: what.to_owned(), waited: LIMIT, last: None });
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

fn frontends(pin: &Path) -> Result<HashMap<MapData, FrontendKey, Frontend>> {
    let data = MapData::from_pin(pin).map_err(failed("the map of frontends"))?;
    HashMap::try_from(Map::HashMap(data)).map_err(failed("the map of frontends"))
}

fn key() -> Result<FrontendKey> {
    let address: IpAddr = ADDRESS.parse().map_err(|error| Error::answer(ADDRESS, error))?;
    Ok(FrontendKey { addr: address.into(), port: Be16::from_host(PORT), proto: 6, ..FrontendKey::default() })
}

/// A socket that asks the cluster's DNS.
fn resolver(server: &str) -> Result<UdpSocket> {
    let failed = |error| Error::file("ask", server)(error);
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(failed)?;
    socket.connect((server, 53)).map_err(failed)?;
    Ok(socket)
}

/// Whether the service has its address in DNS.
fn is_known(resolver: &UdpSocket, name: &str) -> Result<bool> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "default", "svc", "cluster", "local"] {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut answer = [0_u8; 512];
    let failed = |error| Error::file("ask for", name)(error);
    resolver.send(&query).map_err(failed)?;
    resolver.recv(&mut answer).map_err(failed)?;
    // The number of answers.
    Ok(answer[6..8] != [0, 0])
}
