//! The suite `path`: what the way between two pods of one node costs.
//!
//! Four ways, measured in turn in every round, so that what the machine does besides hits all of them alike: a plain
//! bridge without Sluice; pod to pod with Sluice; pod to a ClusterIP with the fast path, and without it.

use std::time::Duration;

use sluice_tests::bed::Host;
use sluice_tests::cluster::{Options, Workload, service};
use sluice_tests::{Cluster, Error, Result, Running, Testbed, iperf, programs, wait_for};

use crate::report::{Better, Case, Measure, Report};

const MEASURES: &[Measure] = &[
    Measure { name: "requests", unit: "1/s", better: Better::Higher },
    Measure { name: "connections", unit: "1/s", better: Better::Higher },
    Measure { name: "throughput", unit: "Mbit/s", better: Better::Higher },
];
const CASES: &[Case] = &[
    Case { name: "plain bridge", peers: &[] },
    Case { name: "pod to pod", peers: &[0] },
    Case { name: "ClusterIP, fast path", peers: &[1, 0] },
    Case { name: "ClusterIP, per packet", peers: &[1, 0] },
];
/// How long an exchange is measured at a time. Short slices in turn: a disturbance hits all ways alike.
const SLICE: &str = "250";
/// Throughput, whose slice is a second, is measured in every third round.
const THROUGHPUT: usize = 2;
const THROUGHPUT_EVERY: u32 = 3;
/// The server's ports: rr, crr, iperf3.
const PORTS: [u16; 3] = [5001, 5002, 5201];
const CLUSTER_IP: &str = "10.96.0.50";

/// A way to measure: from where, to which address. The case is its place in the list.
struct Way<'a> {
    client: &'a Host,
    address: String,
}

/// Runs the suite.
pub(crate) fn run(rounds: u32) -> Result<Report> {
    let bed = Testbed::new()?;
    eprintln!("path: setting up a plain bridge and two nodes");
    let plain = plain(&bed)?;
    let (fast, fast_pods) = sluice(true)?;
    let (packet, packet_pods) = sluice(false)?;
    let _servers = [&plain.2, fast_pods.1.host(), packet_pods.1.host()]
        .map(serve)
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    // Pod to pod shares its pods with the fast path, whose connections are of the same kind: the per-packet
    // service's clients number their connections otherwise, and a server's TIME-WAIT of the one would hold up
    // the other for a second.
    let ways = [
        Way { client: &plain.1, address: PLAIN_SERVER.to_owned() },
        Way { client: fast_pods.0.host(), address: fast_pods.1.addresses()[0].to_string() },
        Way { client: fast_pods.0.host(), address: CLUSTER_IP.to_owned() },
        Way { client: packet_pods.0.host(), address: CLUSTER_IP.to_owned() },
    ];
    let mut report = Report::new("path", MEASURES, CASES);
    for round in 0..rounds {
        eprintln!("path: round {} of {rounds}, about 4 s", round + 1);
        for measure in 0..MEASURES.len() {
            if measure == THROUGHPUT && round % THROUGHPUT_EVERY != 0 {
                continue;
            }
            // Each round begins with another way: no way is always the first after a change of load.
            for place in 0..ways.len() {
                let case = (place + round as usize) % ways.len();
                report.add(case, measure, value(&ways[case], measure)?);
            }
        }
    }
    drop((fast, packet));
    Ok(report)
}

const PLAIN_SERVER: &str = "192.0.2.2";

/// Two namespaces on a bridge, as the reference plugins would wire them.
fn plain(bed: &Testbed) -> Result<(sluice_tests::bed::Switch, Host, Host)> {
    let bridge = bed.switch("plain")?;
    let (client, server) = (bed.host("client")?, bed.host("server")?);
    bridge.connect(&client, "eth0", &["192.0.2.1/24"])?;
    bridge.connect(&server, "eth0", &["192.0.2.2/24"])?;
    Ok((bridge, client, server))
}

/// A node with a client pod and a server pod that a service leads to.
fn sluice(fast_path: bool) -> Result<(Cluster, (sluice_tests::cluster::Pod, sluice_tests::cluster::Pod))> {
    let cluster = Cluster::new(&Options { nodes: 1, fast_path, ..Options::default() })?;
    let node = cluster.node(1);
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    let ports = PORTS.map(|port| format!("- {{name: p{port}, port: {port}}}\n")).concat();
    let spec = format!("clusterIP: {CLUSTER_IP}\nclusterIPs: [{CLUSTER_IP}]\nports:\n{ports}");
    let workload = Workload { name: "server", node: node.name(), app: "bench", spec: "" };
    cluster.apply("bench.yaml", &(workload.manifest() + &service("bench", &spec)))?;
    Ok((cluster, (client, server)))
}

fn serve(server: &Host) -> Result<[Running; 2]> {
    let own = programs::built("sluice-bench")?;
    let load = server.start("load", &own.to_string_lossy(), &["serve", &PORTS[0].to_string()])?;
    let iperf = server.start("iperf3", "iperf3", &["--server"])?;
    Ok([load, iperf])
}

fn value(way: &Way, measure: usize) -> Result<f64> {
    let Way { client, address } = way;
    let own = programs::built("sluice-bench")?;
    let target = format!("{address}:{}", PORTS[measure]);
    // The first try may come before the service is in force.
    wait_for(&format!("{} to {target}", client.name()), Duration::from_secs(20), || {
        let value = match measure {
            0 => client.succeed(&own.to_string_lossy(), &["load", "rr", &target, "--milliseconds", SLICE])?,
            1 => {
                client.succeed(&own.to_string_lossy(), &["load", "crr", &target, "--milliseconds", SLICE])?
            }
            _ => {
                let options = ["--time", "1", "--omit", "0", "--client", address];
                return iperf::megabits(client, &options).map(Some);
            }
        };
        value.trim().parse().map(Some).map_err(|error| Error::answer("sluice-bench load", error))
    })
}
