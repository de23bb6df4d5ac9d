//! The suite `service`: what a service costs, from where it is called, and how many others there are.
//!
//! Nodes with Sluice, with kube-proxy's nftables rules, with its iptables rules, and with none, each with 1, 1,000 and
//! 10,000 services, all at once on this machine and measured in turn in every round. The rules are laid out as
//! kube-proxy does ([`rules`]); where nothing is translated, pods are called by their own addresses.

mod peers;
mod rules;

use std::fmt::Write as _;
use std::time::Duration;

use sluice_proxy::{Pins, ProgramRuns};
use sluice_tests::bed::Host;
use sluice_tests::cluster::{Options, Pod};
use sluice_tests::{Cluster, Error, Result, Running, Testbed, iperf, programs, wait_for};

use self::peers::{Peer, Rules};
use self::rules::Served;
use crate::report::{Better, Case, Measure, Report};

/// How many services there are, the measured ones among them.
const SIZES: [usize; 3] = [1, 1_000, 10_000];

const CASES: &[Case] = &[
    Case { name: "plain bridge", peers: &[] },
    Case { name: "nftables, 1", peers: &[0] },
    Case { name: "nftables, 1000", peers: &[0] },
    Case { name: "nftables, 10000", peers: &[0] },
    Case { name: "iptables, 1", peers: &[0] },
    Case { name: "iptables, 1000", peers: &[0] },
    Case { name: "iptables, 10000", peers: &[0] },
    Case { name: "per packet, 1", peers: &[0, 1] },
    Case { name: "per packet, 1000", peers: &[0, 2] },
    Case { name: "per packet, 10000", peers: &[0, 3, 7] },
    Case { name: "fast path, 1", peers: &[0, 1] },
    Case { name: "fast path, 1000", peers: &[0, 2] },
    Case { name: "fast path, 10000", peers: &[0, 3, 10] },
];

const fn rate(name: &'static str) -> Measure {
    Measure { name, unit: "1/s", better: Better::Higher }
}

const fn bits(name: &'static str) -> Measure {
    Measure { name, unit: "Mbit/s", better: Better::Higher }
}

const fn time(name: &'static str) -> Measure {
    Measure { name, unit: "ns", better: Better::Lower }
}

/// For each way requests, connections, datagrams and throughput; then the programs' run time a packet.
const MEASURES: &[Measure] = &[
    rate("pod to pod, requests"),
    rate("pod to pod, connections"),
    rate("pod to pod, datagrams"),
    bits("pod to pod, throughput"),
    rate("pod to ClusterIP, requests"),
    rate("pod to ClusterIP, connections"),
    rate("pod to ClusterIP, datagrams"),
    bits("pod to ClusterIP, throughput"),
    rate("node to ClusterIP, requests"),
    rate("node to ClusterIP, connections"),
    rate("node to ClusterIP, datagrams"),
    bits("node to ClusterIP, throughput"),
    rate("outside to NodePort here, requests"),
    rate("outside to NodePort here, connections"),
    rate("outside to NodePort here, datagrams"),
    bits("outside to NodePort here, throughput"),
    rate("outside to NodePort there, requests"),
    rate("outside to NodePort there, connections"),
    rate("outside to NodePort there, datagrams"),
    bits("outside to NodePort there, throughput"),
    time("run of from_pod"),
    time("run of from_wire"),
    time("run of to_wire"),
    time("run of from_host"),
];

/// Kinds of measures for each way.
const KINDS: usize = 4;
const THROUGHPUT: usize = 3;
/// The ways, in the order of the measures.
const WAYS: usize = 5;
/// Throughput, and the number of services between the others, are measured every so many rounds.
const SELDOM: u32 = 3;
/// How much is sent to measure throughput: a quarter of a second at the rate of this kind of way.
const THROUGHPUT_BYTES: &str = "512M";
/// How long an exchange is measured at a time.
const SLICE: &str = "150";
/// The programs, in the order of the measures.
const PROGRAMS: [&str; 4] = ["from_pod", "from_wire", "to_wire", "from_host"];

/// The first of a way's ports: requests, connections, datagrams, throughput. Each way has its own, so that what one
/// leaves behind (sockets in TIME-WAIT) is not met by another.
const fn first_port(way: usize) -> u16 {
    5000 + 10 * way as u16
}

/// The node port of a port.
const fn node_port(port: u16) -> u16 {
    port + 25_000
}

/// The services that are measured: the pod of this node behind the first, that of the other node behind the second.
const ADDRESSES: [&str; 2] = ["10.96.0.50", "10.96.0.51"];
const NODE: &str = "192.168.77.1";

/// Where clients are, and what they call.
pub(crate) trait Places {
    /// A pod of the first node.
    fn client(&self) -> &Host;
    /// The first node.
    fn node(&self) -> &Host;
    /// A host outside.
    fn outside(&self) -> &Host;
    /// The addresses of the pods that serve: of the first node, and of the second.
    fn pods(&self) -> [String; 2];
    /// Whether there are services; otherwise pods are called in their place.
    fn has_services(&self) -> bool;
}

/// A node with Sluice.
struct Ours {
    cluster: Cluster,
    pods: [Pod; 3],
    _servers: Vec<Running>,
}

impl Places for Ours {
    fn client(&self) -> &Host {
        self.pods[0].host()
    }

    fn node(&self) -> &Host {
        self.cluster.node(1).host()
    }

    fn outside(&self) -> &Host {
        self.cluster.outside()
    }

    fn pods(&self) -> [String; 2] {
        [1, 2].map(|pod| self.pods[pod].addresses()[0].to_string())
    }

    fn has_services(&self) -> bool {
        true
    }
}

/// All ports of the measured services, and enough others to make up the number. The measured ones are in the middle.
pub(crate) fn served(pods: [&str; 2], services: usize) -> Vec<Served> {
    let mut others = (0..services.saturating_sub(1)).map(|index| Served {
        address: format!("10.97.{}.{}", index / 250, index % 250 + 1),
        protocol: "tcp",
        port: 80,
        node_port: None,
        endpoint: (format!("10.244.2.{}", 100 + index % 100), 8080),
    });
    let mut all: Vec<Served> = others.by_ref().take((services - 1) / 2).collect();
    for (address, pod) in ADDRESSES.into_iter().zip(pods) {
        for (protocol, port) in ports() {
            all.push(Served {
                address: address.to_owned(),
                protocol,
                port,
                // The service of the other node's pod has node ports of its own.
                node_port: Some(node_port(port) + if address == ADDRESSES[1] { 1000 } else { 0 }),
                endpoint: (pod.to_owned(), port),
            });
        }
    }
    all.extend(others);
    all
}

/// The ports that servers listen on.
fn ports() -> impl Iterator<Item = (&'static str, u16)> {
    (0..WAYS).flat_map(|way| {
        let first = first_port(way);
        [("tcp", first), ("tcp", first + 1), ("udp", first + 2), ("tcp", first + 3)]
    })
}

/// Runs the suite.
pub(crate) fn run(rounds: u32) -> Result<Report> {
    let bed = Testbed::new()?;
    let mut places: Vec<Box<dyn Places>> = Vec::new();
    let mut ours = Vec::new();
    for (name, rules) in [("plain", Rules::None), ("nft", Rules::Nftables), ("ipt", Rules::Iptables)] {
        let sizes = if rules == Rules::None { &SIZES[..1] } else { &SIZES };
        for size in sizes {
            eprintln!("service: setting up {name} with {size}");
            places.push(Box::new(Peer::new(&bed, &format!("{name}{size}"), rules, *size)?));
        }
    }
    for fast_path in [false, true] {
        for size in SIZES {
            eprintln!("service: setting up Sluice with {size}, fast path {fast_path}");
            let cluster = ours_with(fast_path, size)?;
            ours.push((places.len(), cluster.cluster.node(1).bpffs()));
            places.push(Box::new(cluster));
        }
    }
    let mut report = Report::new("service", MEASURES, CASES);
    for round in 0..rounds {
        eprintln!("service: round {} of {rounds}, about 40 s, or 80 with throughput", round + 1);
        report.begin(round);
        let seldom = round % SELDOM == 0;
        for measure in 0..WAYS * KINDS {
            if measure % KINDS == THROUGHPUT && !seldom {
                continue;
            }
            // Each round begins with another case: none is always the first after a change of load.
            for place in 0..places.len() {
                let case = (place + round as usize) % places.len();
                if seldom || !is_between(case) {
                    report.add(case, measure, value(&*places[case], measure)?);
                }
            }
        }
    }
    // Counting costs time: after all that is measured.
    eprintln!("service: run times of the programs");
    for (case, bpffs) in &ours {
        for (index, nanoseconds) in run_times(&*places[*case], &Pins::new(bpffs))?.into_iter().enumerate() {
            if let Some(nanoseconds) = nanoseconds {
                report.add(*case, WAYS * KINDS + index, nanoseconds);
            }
        }
    }
    Ok(report)
}

/// Whether a case has neither the smallest nor the largest number of services.
const fn is_between(case: usize) -> bool {
    case > 0 && (case - 1) % SIZES.len() == 1
}

/// Two nodes with Sluice and so many services.
fn ours_with(fast_path: bool, size: usize) -> Result<Ours> {
    let cluster = Cluster::new(&Options { fast_path, ..Options::default() })?;
    let pods =
        [cluster.node(1).pod("client")?, cluster.node(1).pod("local")?, cluster.node(2).pod("remote")?];
    let address = |pod: usize| pods[pod].addresses()[0].to_string();
    let all = served([&address(1), &address(2)], size);
    cluster.apply("services.yaml", &manifests(&all))?;
    let servers = [serve(pods[1].host())?, serve(pods[2].host())?].into_iter().flatten().collect();
    let ours = Ours { cluster, pods, _servers: servers };
    // Until all are in force.
    let frontends = all.iter().map(|served| 1 + usize::from(served.node_port.is_some())).sum::<usize>();
    wait_for(&format!("{size} services"), Duration::from_secs(120), || {
        for node in ours.cluster.nodes() {
            let text = node.host().curl("http://127.0.0.1:10249/metrics")?;
            let name = "sluice_map_entries{map=\"frontends\"} ";
            let count = text.lines().find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok());
            if count.is_none_or(|count| count < frontends) {
                return Err(Error::answer(node.name(), format!("{count:?} of {frontends} frontends")));
            }
        }
        Ok(Some(()))
    })?;
    Ok(ours)
}

/// Services and slices as manifests, a service for each address.
fn manifests(all: &[Served]) -> String {
    let mut text = String::new();
    for group in all.chunk_by(|one, next| one.address == next.address) {
        let [first, ..] = group else { continue };
        let name = format!("s-{}", first.address.replace('.', "-"));
        let kind = if first.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        let _infallible = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec:\n  type: {kind}\n  clusterIP: {0}\n  clusterIPs: [{0}]\n  ports:\n",
            first.address
        );
        let mut slice = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
             endpoints: [{{addresses: [{}], conditions: {{ready: true}}}}]\nports:\n",
            first.endpoint.0
        );
        for served in group {
            let Served { protocol, port, node_port, endpoint: (_, to), .. } = served;
            let protocol = protocol.to_uppercase();
            let node_port = node_port.map_or(String::new(), |port| format!(", nodePort: {port}"));
            let _infallible =
                writeln!(text, "  - {{name: p{port}, protocol: {protocol}, port: {port}{node_port}}}");
            let _infallible = writeln!(slice, "- {{name: p{port}, protocol: {protocol}, port: {to}}}");
        }
        text += &slice;
        text += "---\n";
    }
    text
}

/// Starts the servers of a pod: exchanges on the first three ports of each way, iperf3 on the fourth.
fn serve(pod: &Host) -> Result<Vec<Running>> {
    let own = programs::built("sluice-bench")?;
    let own = own.to_string_lossy();
    let mut servers = Vec::new();
    for way in 0..WAYS {
        let first = first_port(way);
        servers.push(pod.start(&format!("load-{first}"), &own, &["serve", &first.to_string()])?);
        let port = (first + 3).to_string();
        servers.push(pod.start(&format!("iperf-{first}"), "iperf3", &["--server", "--port", &port])?);
    }
    Ok(servers)
}

/// Where a way begins, and the target of one of its ports.
fn way(places: &dyn Places, way: usize, kind: usize) -> (&Host, String) {
    let port = first_port(way) + kind as u16;
    let [local, remote] = places.pods();
    let services = places.has_services();
    let cluster = if services { ADDRESSES[0].to_owned() } else { local.clone() };
    match way {
        0 => (places.client(), format!("{local}:{port}")),
        1 => (places.client(), format!("{cluster}:{port}")),
        2 => (places.node(), format!("{cluster}:{port}")),
        3 if services => (places.outside(), format!("{NODE}:{}", node_port(port))),
        3 => (places.outside(), format!("{local}:{port}")),
        _ if services => (places.outside(), format!("{NODE}:{}", node_port(port) + 1000)),
        _ => (places.outside(), format!("{remote}:{port}")),
    }
}

fn value(places: &dyn Places, measure: usize) -> Result<f64> {
    let (host, target) = way(places, measure / KINDS, measure % KINDS);
    let own = programs::built("sluice-bench")?;
    // The first try may come before a server listens.
    wait_for(&format!("{} to {target}", host.name()), Duration::from_secs(20), || {
        let exchange = match measure % KINDS {
            0 => "rr",
            1 => "crr",
            2 => "udp",
            _ => return iperf(host, &target).map(Some),
        };
        let text =
            host.succeed(&own.to_string_lossy(), &["load", exchange, &target, "--milliseconds", SLICE])?;
        text.trim().parse().map(Some).map_err(|error| Error::answer("sluice-bench load", error))
    })
}

fn iperf(client: &Host, target: &str) -> Result<f64> {
    let (address, port) = target.rsplit_once(':').unwrap_or((target, "5201"));
    iperf::megabits(client, &["--bytes", THROUGHPUT_BYTES, "--client", address, "--port", port])
}

/// Nanoseconds a run of each program, over requests on all ways; `None` where it did not run.
fn run_times(places: &dyn Places, pins: &Pins) -> Result<[Option<f64>; 4]> {
    let failed = |error: sluice_proxy::DatapathError| Error::answer("the programs' statistics", error);
    let _counting = sluice_proxy::count_runs().map_err(failed)?;
    let before = sluice_proxy::program_runs(pins).map_err(failed)?;
    for way in 1..WAYS {
        value(places, way * KINDS)?;
    }
    let after = sluice_proxy::program_runs(pins).map_err(failed)?;
    let of = |runs: &[ProgramRuns], name: &str| {
        runs.iter()
            .find(|runs| runs.program == name)
            .map_or((0, 0.0), |runs| (runs.count, runs.time.as_secs_f64()))
    };
    Ok(PROGRAMS.map(|name| {
        let ((runs, time), (runs_before, time_before)) = (of(&after, name), of(&before, name));
        let count = runs.saturating_sub(runs_before);
        (count > 0).then(|| (time - time_before) * 1e9 / count as f64)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_services_as_asked_for() {
        for size in SIZES {
            let mut addresses: Vec<_> =
                served(["a", "b"], size).into_iter().map(|served| served.address).collect();
            addresses.dedup();
            // The second measured service is beside the count.
            assert_eq!(addresses.len(), size + 1);
        }
        assert_eq!(CASES.len(), 1 + 4 * SIZES.len());
        assert_eq!(MEASURES.len(), WAYS * KINDS + PROGRAMS.len());
        let between: Vec<_> = (0..CASES.len()).filter(|case| is_between(*case)).collect();
        assert!(between.iter().all(|case| CASES[*case].name.ends_with(", 1000")), "{between:?}");
        assert_eq!(between.len(), 4);
    }

    #[test]
    fn rules_name_every_port() {
        let all = served(["10.244.1.3", "10.244.2.3"], 1);
        let (nft, ipt) = (rules::nftables(NODE, &all), rules::iptables(&all));
        for (protocol, port) in ports() {
            assert!(nft.contains(&format!("10.96.0.51 . {protocol} . {port} : goto")), "{port} in {nft}");
            assert!(
                ipt.contains(&format!("-p {protocol} -m {protocol} --dport {port} -j KUBE-SVC-")),
                "{port}"
            );
        }
    }
}
