//! Asks with `dnsperf`, and reads what it says.

use std::path::Path;

use sluice_tests::bed::Host;
use sluice_tests::{Error, Result};

use super::SERVER;

/// How long a measurement takes, in seconds.
const SECONDS: &str = "1";
/// Clients, and so ports; and queries under way.
const CLIENTS: &str = "16";
const OUTSTANDING: &str = "400";

/// Who is asked, and what.
pub(crate) struct Asked<'a> {
    pub(crate) client: &'a Host,
    /// The client's core.
    pub(crate) core: &'a str,
    pub(crate) port: u16,
    pub(crate) file: &'a Path,
}

/// What was answered.
pub(crate) struct Answered {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Answers.
    pub(crate) count: f64,
}

impl Asked<'_> {
    /// Asks every question once.
    pub(crate) fn once(&self) -> Result<()> {
        self.run(&["-n", "1", "-q", "50"]).map(drop)
    }

    /// Asks as fast as answers come.
    pub(crate) fn at_saturation(&self) -> Result<Answered> {
        let text = self.run(&["-l", SECONDS, "-q", OUTSTANDING])?;
        Ok(Answered {
            rate: number(&text, "Queries per second:")?,
            count: number(&text, "Queries completed:")?,
        })
    }

    /// Asks at a rate; the median and the 99th percentile of the time from query to answer, in microseconds.
    pub(crate) fn latencies(&self, rate: f64) -> Result<[f64; 2]> {
        let text = self.run(&["-l", SECONDS, "-v", "-Q", &format!("{rate:.0}")])?;
        // > NOERROR svc-1.ns-1.svc.cluster.local A 0.000042
        let answers = text.lines().filter(|line| line.starts_with("> "));
        let mut times: Vec<f64> =
            answers.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).map(|seconds| seconds * 1e6);
        at(0.5).zip(at(0.99)).map(|(p50, p99)| [p50, p99]).ok_or_else(|| Error::answer("dnsperf", text))
    }

    fn run(&self, more: &[&str]) -> Result<String> {
        let (port, file) = (self.port.to_string(), self.file.display().to_string());
        let usual = [
            "-c", self.core, "dnsperf", "-s", SERVER, "-p", &port, "-d", &file, "-e", "-T", "1", "-c",
            CLIENTS,
        ];
        self.client.succeed("taskset", &[&usual, more].concat())
    }
}

fn number(text: &str, label: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error::answer("dnsperf", text.to_owned()))
}
