//! The suite `dns`: what an answer costs, beside the servers that are known to be fast.
//!
//! All servers run at the same time in one namespace on one core, asked in turn by `dnsperf` in another namespace
//! on another core: what the machine does besides hits all of them alike. Names of the cluster are held against
//! `knot` and `nsd`, which have the same zone as a file, and names outside, once asked, against `unbound`; and a server
//! that only sends queries back shows what is not the servers' at all.

mod burst;
mod change;
mod cluster;
mod dnsperf;
mod floor;
mod probe;
mod process;
mod servers;

pub(crate) use burst::measure as measure_burst;
pub(crate) use change::measure as measure_changes;
pub(crate) use cluster::serve;
pub(crate) use floor::serve as serve_floor;
pub(crate) use probe::measure as probe;

use std::net::{IpAddr, Ipv4Addr};

use sluice_tests::bed::Host;
use sluice_tests::{Error, Result, Testbed, programs, wait_for};

use self::dnsperf::Asked;
use self::process::Usage;
use self::servers::Server;
use crate::report::{Better, Case, Measure, Report};

const MEASURES: &[Measure] = &[
    Measure { name: "queries", unit: "1/s", better: Better::Higher },
    Measure { name: "CPU per query", unit: "ns", better: Better::Lower },
    Measure { name: "latency p50", unit: "us", better: Better::Lower },
    Measure { name: "latency p99", unit: "us", better: Better::Lower },
    Measure { name: "latency p99 to p50", unit: "", better: Better::Lower },
    Measure { name: "memory", unit: "KiB", better: Better::Lower },
    Measure { name: "answer p50", unit: "us", better: Better::Lower },
    Measure { name: "answer p99", unit: "us", better: Better::Lower },
    Measure { name: "answer p99 to p50", unit: "", better: Better::Lower },
];
const CASES: &[Case] = &[
    Case { name: "services, knot", peers: &[] },
    Case { name: "services, nsd", peers: &[] },
    Case { name: "services, sluice", peers: &[0, 1, 12] },
    Case { name: "misses, knot", peers: &[] },
    Case { name: "misses, nsd", peers: &[] },
    Case { name: "misses, sluice", peers: &[3, 4] },
    Case { name: "headless, knot", peers: &[] },
    Case { name: "headless, nsd", peers: &[] },
    Case { name: "headless, sluice", peers: &[6, 7] },
    Case { name: "cached, unbound", peers: &[] },
    Case { name: "cached, sluice", peers: &[9] },
    Case { name: "change of a slice, sluice", peers: &[] },
    Case { name: "services, floor", peers: &[] },
    Case { name: "full caches, sluice", peers: &[] },
    Case { name: "1,000 questions under way, sluice", peers: &[] },
    Case { name: "10,000 questions under way, sluice", peers: &[] },
];
/// The case that is no question.
const CHANGE: usize = 11;
/// The case that is a state: all is kept that there is room for.
const FULL: usize = 13;
/// The cases that are bursts: how much more memory there is while so many questions wait for upstreams that say nothing.
const BURSTS: [(usize, u32); 2] = [(14, 1_000), (15, 10_000)];
/// The other cases: who is asked, and what.
const WHAT: [(usize, Server, Workload); 12] = [
    (12, Server::Floor, Workload::Services),
    (0, Server::Knot, Workload::Services),
    (1, Server::Nsd, Workload::Services),
    (2, Server::Sluice, Workload::Services),
    (3, Server::Knot, Workload::Misses),
    (4, Server::Nsd, Workload::Misses),
    (5, Server::Sluice, Workload::Misses),
    (6, Server::Knot, Workload::Headless),
    (7, Server::Nsd, Workload::Headless),
    (8, Server::Sluice, Workload::Headless),
    (9, Server::Unbound, Workload::Cached),
    (10, Server::Sluice, Workload::Cached),
];
/// The server's and the client's addresses.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLIENT: &str = "192.0.2.2";
/// The cores of the servers and of the client.
const CORES: [&str; 2] = ["0", "1"];
/// The part of the rate at saturation at which latency is measured.
const CALM: f64 = 0.2;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    /// 10,000 names of services.
    Services,
    /// As many that do not exist.
    Misses,
    /// A service of 50 endpoints.
    Headless,
    /// 5,000 names of the world outside, all of them known.
    Cached,
    /// 10,000 of them, and as many that do not exist.
    Full,
}

/// Runs the suite.
pub(crate) fn run(rounds: u32) -> Result<Report> {
    let bed = Testbed::new()?;
    eprintln!("dns: setting up five servers");
    let lan = bed.switch("lan")?;
    let (server, client) = (bed.host("server")?, bed.host("client")?);
    lan.connect(&server, "eth0", &[&format!("{SERVER}/24")])?;
    lan.connect(&client, "eth0", &[&format!("{CLIENT}/24")])?;
    let _upstream = servers::upstream(&server)?;
    let mut running = Vec::new();
    for kind in Server::ALL {
        running.push((kind, kind.start(&server, CORES[0])?));
    }
    for (kind, _) in &running {
        wait_until_it_answers(*kind, &client)?;
    }
    let files = cluster::write_queries(bed.folder())?;
    let pid = |kind: Server| running.iter().find(|(other, _)| *other == kind).map_or(0, |(_, run)| run.pid());

    let mut report = Report::new("dns", MEASURES, CASES);
    for round in 0..rounds {
        eprintln!("dns: round {} of {rounds}, about three quarters of a minute", round + 1);
        let [p50, p99] = changes(&server)?;
        report.add(CHANGE, 2, p50);
        report.add(CHANGE, 3, p99);
        for place in 0..WHAT.len() {
            // Each round begins with another case: none is always the first after a change of load.
            let (case, kind, workload) = WHAT[(place + round as usize) % WHAT.len()];
            let asked = Asked {
                client: &client,
                core: CORES[1],
                server_core: CORES[0],
                port: kind.port(),
                file: files.of(workload),
            };
            if workload == Workload::Cached {
                asked.once()?;
            }
            let before = Usage::of(pid(kind))?;
            let answered = asked.at_saturation()?;
            let after = Usage::of(pid(kind))?;
            report.add(case, 0, answered.rate);
            report.add(case, 1, (after.cpu - before.cpu).as_nanos() as f64 / answered.count);
            report.add(case, 5, after.memory as f64);
            let [p50, p99] = asked.latencies(pid(kind), answered.rate * CALM)?;
            report.add(case, 2, p50);
            report.add(case, 3, p99);
            report.add(case, 4, p99 / p50);
            let [p50, p99] = asked.answers(pid(kind), answered.rate * CALM)?;
            report.add(case, 6, p50);
            report.add(case, 7, p99);
            report.add(case, 8, p99 / p50);
        }
    }
    let (port, file) = (Server::Sluice.port(), files.of(Workload::Full));
    Asked { client: &client, core: CORES[1], server_core: CORES[0], port, file }.once()?;
    report.add(FULL, 5, Usage::of(pid(Server::Sluice))?.memory as f64);
    for (case, count) in BURSTS {
        report.add(case, 5, burst(&server, count)?);
    }
    Ok(report)
}

/// Has a burst measured in a process of its own, which may have as many files open as there are questions.
fn burst(host: &Host, count: u32) -> Result<f64> {
    let own = programs::built("sluice-bench")?;
    let command = format!("ulimit -n 20000; exec {} names-burst {count}", own.display());
    let text = host.succeed("sh", &["-c", &command])?;
    text.trim().parse().map_err(|_| Error::answer("names-burst", text))
}

/// Has changes measured in a process of their own.
fn changes(host: &Host) -> Result<[f64; 2]> {
    let own = programs::built("sluice-bench")?;
    let text = host.succeed("taskset", &["-c", CORES[0], &own.to_string_lossy(), "names-changes"])?;
    let numbers: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    numbers.try_into().map_err(|_| Error::answer("names-changes", text))
}

fn wait_until_it_answers(kind: Server, client: &Host) -> Result<()> {
    let port = kind.port().to_string();
    let name = if kind == Server::Unbound { "www.example.org" } else { "svc-1.ns-1.svc.cluster.local" };
    let server = format!("@{SERVER}");
    wait_for(&format!("{kind:?}"), std::time::Duration::from_secs(20), || {
        let arguments = ["+short", "+tries=1", "+time=1", "-p", &port, &server, name];
        let output = client.run("dig", &arguments)?;
        let said = output.stdout;
        // The floor has no addresses to give.
        let answered = if kind == Server::Floor {
            output.code == Some(0)
        } else {
            said.trim().parse::<std::net::IpAddr>().is_ok()
        };
        if answered {
            return Ok(Some(()));
        }
        Err(Error::answer(format!("{kind:?}"), said))
    })
}
