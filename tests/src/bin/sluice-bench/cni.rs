//! The suite `cni`: what ADD and DEL of a container cost, in time, CPU and memory.
//!
//! Each on a node of its own: this project's plugin; Debian's reference plugins with the same configuration, called one
//! after the other as a runtime calls a chain; and a floor, the bare netlink requests of one process that has been
//! started already. Debian's bridge plugin masquerades by the program `iptables`, whichever that is on the machine, once
//! for each family. In every round each of them makes and unmakes the same containers, in turn, one at a time and
//! eight at once.

mod call;
mod floor;

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_netlink::Namespace;
use sluice_tests::bed::Host;
use sluice_tests::{Error, Result, Testbed, programs};

pub(crate) use self::call::calls;
use self::call::{Call, Calls, Cost, Step};
use crate::report::{Better, Case, Measure, Report};

const CASES: &[Case] = &[
    Case { name: "floor", peers: &[] },
    Case { name: "floor, both families", peers: &[] },
    Case { name: "sluice", peers: &[0, 6] },
    Case { name: "sluice, masquerade", peers: &[0, 7] },
    Case { name: "sluice, masquerade, both families", peers: &[1, 8] },
    Case { name: "sluice, masquerade, ports, rates", peers: &[0, 9] },
    Case { name: "reference", peers: &[] },
    Case { name: "reference, masquerade", peers: &[] },
    Case { name: "reference, masquerade, both families", peers: &[] },
    Case { name: "reference, masquerade, ports, rates", peers: &[] },
];

/// Who attaches in a case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Floor,
    Own,
    Reference,
}

/// What a case does, as its name says.
#[derive(Clone, Copy)]
struct Kind {
    who: Who,
    masquerade: bool,
    /// IPv6 beside IPv4.
    both: bool,
    /// Host ports and limits of rates.
    all: bool,
}

impl Kind {
    fn of(case: usize) -> Self {
        let what = CASES[case].name;
        let who = match what.split(',').next() {
            Some("floor") => Who::Floor,
            Some("sluice") => Who::Own,
            _ => Who::Reference,
        };
        let has = |part: &str| what.contains(part);
        Self { who, masquerade: has("masquerade"), both: has("both"), all: has("rates") }
    }
}

const fn measure(name: &'static str, unit: &'static str) -> Measure {
    Measure { name, unit, better: Better::Lower }
}

const MEASURES: &[Measure] = &[
    measure("ADD p50", "us"),
    measure("ADD p95", "us"),
    measure("ADD p99", "us"),
    measure("ADD CPU", "us"),
    measure("ADD memory", "KiB"),
    measure("DEL p50", "us"),
    measure("DEL p95", "us"),
    measure("DEL p99", "us"),
    measure("DEL CPU", "us"),
    measure("DEL memory", "KiB"),
    measure("ADD p50, 8 at once", "us"),
    measure("ADD p95, 8 at once", "us"),
    measure("DEL p50, 8 at once", "us"),
    measure("DEL p95, 8 at once", "us"),
];

/// Calls one after the other in a round, of each case.
const SERIAL: usize = 12;
/// Calls at once.
const AT_ONCE: usize = 8;
/// How long the kernel is left to bury devices before anything is measured again: a DEL of this project's returns
/// before that, and must not be paid for by whoever comes next.
const SETTLE: Duration = Duration::from_millis(60);
/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// Nodes, and containers to attach to them.
struct Bench {
    /// For the floor, this project's plugin and the reference: in one namespace, a packet filter's change by the one
    /// would hold up the other.
    nodes: [Host; 3],
    state: PathBuf,
    containers: Vec<Namespace>,
}

/// Runs the suite.
pub(crate) fn run(rounds: u32) -> Result<Report> {
    let bed = Testbed::new()?;
    let netns = |error: sluice_netlink::Error| Error::answer("a container's namespace", error);
    let bench = Bench {
        nodes: [bed.host("floor")?, bed.host("own")?, bed.host("reference")?],
        state: bed.subfolder("state")?,
        containers: (0..AT_ONCE).map(|_| Namespace::create().map_err(netns)).collect::<Result<_>>()?,
    };
    floor::prepare(&bench.nodes[0])?;
    let mut report = Report::new("cni", MEASURES, CASES);
    // Bridges, chains and files that the first call makes are there before anything is measured.
    for case in 0..CASES.len() {
        bench.pair(case, 1)?;
    }
    for round in 0..rounds {
        eprintln!("cni: round {} of {rounds}, about 15 s", round + 1);
        let mut serial: Vec<[Vec<Cost>; 2]> = vec![Default::default(); CASES.len()];
        for turn in 0..SERIAL {
            // Each turn begins with another case: none is always the first after the same other.
            for place in 0..CASES.len() {
                let case = (place + turn) % CASES.len();
                let [add, del] = bench.pair(case, 1)?;
                serial[case][0].extend(add);
                serial[case][1].extend(del);
            }
        }
        for (case, costs) in serial.iter().enumerate() {
            for (first, costs) in [0, 5].into_iter().zip(costs) {
                let walls = sorted(costs.iter().map(|cost| cost.wall));
                for (place, share) in [50, 95, 99].into_iter().enumerate() {
                    report.add(case, first + place, percentile(&walls, share));
                }
                report.add(case, first + 3, percentile(&sorted(costs.iter().map(|cost| cost.cpu)), 50));
                // What the floor takes of memory is this benchmark's own.
                if Kind::of(case).who != Who::Floor {
                    let memory = sorted(costs.iter().map(|cost| cost.memory));
                    report.add(case, first + 4, percentile(&memory, 50));
                }
            }
        }
        for place in 0..CASES.len() {
            let case = (place + round as usize) % CASES.len();
            for (first, costs) in [10, 12].into_iter().zip(bench.pair(case, AT_ONCE)?) {
                let walls = sorted(costs.iter().map(|cost| cost.wall));
                report.add(case, first, percentile(&walls, 50));
                report.add(case, first + 1, percentile(&walls, 95));
            }
        }
    }
    Ok(report)
}

impl Bench {
    /// Attaches so many containers at once, then takes them off again.
    fn pair(&self, case: usize, count: usize) -> Result<[Vec<Cost>; 2]> {
        let mut calls = Vec::new();
        for (index, container) in self.containers.iter().take(count).enumerate() {
            calls.push(Call {
                container: format!("case{case}-{index}"),
                netns: format!("/proc/{}/fd/{}", std::process::id(), container.as_fd().as_raw_fd()),
                steps: self.steps(case, index)?,
                result: Value::Null,
                both: Kind::of(case).both,
            });
        }
        let node = &self.nodes[Kind::of(case).who as usize];
        let mut calls = Calls { netns: node.netns_path(), command: "ADD".to_owned(), calls };
        let added = calls.run()?;
        for (call, cost) in calls.calls.iter_mut().zip(&added) {
            call.result = cost.result.clone();
        }
        "DEL".clone_into(&mut calls.command);
        let deleted = calls.run()?;
        sleep(SETTLE);
        Ok([added, deleted])
    }

    /// The plugins that are called, in the order of ADD; none is the floor.
    fn steps(&self, case: usize, index: usize) -> Result<Vec<Step>> {
        let Kind { who, masquerade, both, all } = Kind::of(case);
        let ports = json!([{ "hostPort": 8000 + index, "containerPort": 80, "protocol": "tcp" }]);
        let rates = json!({
            "ingressRate": 100_000_000, "ingressBurst": 1_000_000, "egressRate": 100_000_000, "egressBurst": 1_000_000,
        });
        // Networks of their own, so that no case meets another's.
        let mut ranges = vec![json!([{ "subnet": format!("10.{}.0.0/16", 90 + case) }])];
        ranges.extend(both.then(|| json!([{ "subnet": format!("fd00:{case}::/64") }])));
        let mut config = json!({
            "cniVersion": "1.0.0",
            "name": format!("case{case}"),
            "isGateway": true,
            "isDefaultGateway": true,
            "ipMasq": masquerade,
        });
        if who == Who::Own {
            config["type"] = "sluice-cni".into();
            config["bridge"] = format!("own{case}").into();
            config["stateDir"] = self.state.display().to_string().into();
            config["bpffs"] = self.state.join("none").display().to_string().into();
            config["ipam"] = json!({ "ranges": ranges });
            if all {
                config["runtimeConfig"] = json!({ "portMappings": ports, "bandwidth": rates });
            }
            return Ok(vec![Step { program: programs::built("sluice-cni")?, config }]);
        }
        if who == Who::Floor {
            return Ok(Vec::new());
        }
        let program = |name: &str| PathBuf::from(REFERENCE).join(name);
        config["type"] = "bridge".into();
        config["bridge"] = format!("ref{case}").into();
        let data = self.state.join("host-local");
        config["ipam"] = json!({ "type": "host-local", "ranges": ranges, "dataDir": data });
        let mut steps = vec![Step { program: program("bridge"), config }];
        if all {
            for (plugin, key, wishes) in
                [("portmap", "portMappings", &ports), ("bandwidth", "bandwidth", &rates)]
            {
                let mut config = json!({
                    "cniVersion": "1.0.0", "name": format!("case{case}"), "type": plugin, "snat": true,
                    "capabilities": { key: true },
                });
                config["runtimeConfig"][key] = wishes.clone();
                steps.push(Step { program: program(plugin), config });
            }
        }
        Ok(steps)
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value that this share (in percent) of all do not exceed.
fn percentile(sorted: &[f64], share: usize) -> f64 {
    let place = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!([50, 95, 99].map(|share| percentile(&values, share)), [10.0, 19.0, 20.0]);
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }
}
