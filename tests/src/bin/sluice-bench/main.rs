//! The benchmarks: `run` measures and prints; `serve`, `rr` and `crr` are its load, started in namespaces.

mod cluster;
mod cni;
mod load;
mod names;
mod path;
mod report;
mod service;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sluice_tests::{Error, Result};

/// Sluice's benchmarks.
#[derive(Parser)]
enum Cli {
    /// Measure, print a table, write the numbers.
    Run {
        /// The suite; all of them without one.
        suite: Option<Suite>,
        /// Where to write the numbers as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How often each case is measured.
        #[arg(long, default_value_t = 15)]
        rounds: u32,
    },
    /// Answer exchanges: *rr* on this port, *crr* on the next, *udp* on the one after.
    Serve {
        /// The first port.
        port: u16,
    },
    /// Measure how long a change of endpoints takes until it is answered.
    NamesChanges,
    /// Measure what questions take that wait for upstreams, in KiB.
    NamesBurst {
        /// How many at one time.
        count: u32,
    },
    /// Ask at a rate, and print the median and the 99th percentile of the time until the kernel has the answer.
    NamesProbe {
        /// Whom.
        server: SocketAddr,
        /// What: a file for dnsperf.
        questions: PathBuf,
        /// How often a second.
        rate: u32,
    },
    /// Send queries back, for the suite `dns`.
    ServeFloor {
        /// Where.
        listen: SocketAddr,
    },
    /// Serve the names of the suite `dns`.
    ServeNames {
        /// Where.
        listen: SocketAddr,
        /// Who knows the names outside.
        upstream: SocketAddr,
    },
    /// Measure exchanges a second, and print the number.
    Load {
        /// Which.
        exchange: load::Exchange,
        /// With whom.
        target: SocketAddr,
        /// For how long.
        #[arg(long, default_value_t = 1000)]
        milliseconds: u64,
    },
    /// Call plugins as a runtime does, as standard input says, and print what it took.
    CniCalls,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// Requests, connections and throughput between two pods of a node.
    Path,
    /// Services, called from pods, nodes and outside, against kube-proxy's rules, with up to 10,000 others.
    Service,
    /// ADD and DEL of the CNI plugin, of the reference plugins, and of the bare kernel.
    Cni,
    /// Answers of the cluster's DNS, beside knot, nsd and unbound.
    Dns,
    /// The cost of a large cluster to a node: start, memory, and one change.
    Cluster,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli::Run { suite, json, rounds } => run(suite, json, rounds),
        Cli::CniCalls => cni::calls(),
        Cli::NamesChanges => names::measure_changes().map(|[p50, p99]| println!("{p50} {p99}")),
        Cli::NamesBurst { count } => names::measure_burst(count).map(|kib| println!("{kib}")),
        Cli::NamesProbe { server, questions, rate } => {
            names::probe(server, &questions, rate).map(|[p50, p99]| println!("{p50} {p99}"))
        }
        Cli::ServeFloor { listen } => names::serve_floor(listen),
        Cli::ServeNames { listen, upstream } => names::serve(listen, upstream),
        Cli::Serve { port } => load::serve(port).map_err(Error::file("serve on", port.to_string())),
        Cli::Load { exchange, target, milliseconds } => {
            let rate = load::measure(exchange, target, Duration::from_millis(milliseconds));
            rate.map(|rate| println!("{rate}")).map_err(Error::file("measure", target.to_string()))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(suite: Option<Suite>, json: Option<PathBuf>, rounds: u32) -> Result<()> {
    let all = vec![Suite::Path, Suite::Service, Suite::Cni, Suite::Dns, Suite::Cluster];
    let suites = suite.map_or(all, |suite| vec![suite]);
    let mut reports = Vec::new();
    for suite in suites {
        let report = match suite {
            Suite::Path => path::run(rounds),
            Suite::Service => service::run(rounds),
            Suite::Cni => cni::run(rounds),
            Suite::Dns => names::run(rounds),
            Suite::Cluster => cluster::run(rounds),
        }?;
        report.print();
        reports.push(report);
    }
    json.map_or(Ok(()), |file| report::write(&file, &reports))
}
