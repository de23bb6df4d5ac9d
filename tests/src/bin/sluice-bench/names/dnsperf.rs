//! Asks with `dnsperf`, and reads what it says.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;

use sluice_tests::bed::Host;
use sluice_tests::{Error, Result};

use super::{SERVER, probe, process};

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
    /// The server's core.
    pub(crate) server_core: &'a str,
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
    ///
    /// The server (`pid`, and its children) and the client go before what else is on their cores meanwhile, or it would be
    /// the machine that is measured; and what the client has to say goes to a file, which nobody reads until it ends.
    pub(crate) fn latencies(&self, pid: u32, rate: f64) -> Result<[f64; 2]> {
        let path = self.client.bed().folder().join("latencies");
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        process::hurry(pid)?;
        let rate = format!("{rate:.0}");
        let arguments = [self.arguments().as_slice(), &words(&["-l", SECONDS, "-v", "-Q", &rate])].concat();
        // Not with a real-time priority: its thread that sends would not let the one run that receives.
        let mut command = self.client.command("nice")?;
        let status = command.args(["-n", "-20", "taskset"]).args(arguments).stdout(file).status();
        process::relax(pid)?;
        let status = status.map_err(Error::file("run", "nice"))?;
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        // > NOERROR svc-1.ns-1.svc.cluster.local A 0.000042
        let answers = text.lines().filter(|line| line.starts_with("> "));
        let mut times: Vec<f64> =
            answers.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).map(|seconds| seconds * 1e6);
        let both = at(0.5).zip(at(0.99)).filter(|_| status.success());
        both.map(|(p50, p99)| [p50, p99]).ok_or_else(|| Error::answer("dnsperf", text))
    }

    /// Asks at a rate, with nothing of the client's own in the times: see [`probe`]. The server's core has something to do
    /// between queries, which gives way at once: a virtual machine's core that halts is the hypervisor's to bring back.
    pub(crate) fn answers(&self, pid: u32, rate: f64) -> Result<[f64; 2]> {
        let idle = ["--idle", "0", "taskset", "-c", self.server_core, "sh", "-c", "while :; do :; done"];
        let _awake = self.client.start("awake", "chrt", &idle)?;
        process::hurry(pid)?;
        let server = SocketAddr::new(SERVER, self.port);
        let times = probe::run(self.client, self.core, server, self.file, rate);
        process::relax(pid)?;
        times
    }

    fn run(&self, more: &[&str]) -> Result<String> {
        let arguments = [self.arguments(), words(more)].concat();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.client.succeed("taskset", &arguments)
    }

    /// What `taskset` is told in any case.
    fn arguments(&self) -> Vec<String> {
        let (server, port, file) =
            (SERVER.to_string(), self.port.to_string(), self.file.display().to_string());
        words(&[
            "-c", self.core, "dnsperf", "-s", &server, "-p", &port, "-d", &file, "-e", "-T", "1", "-c",
            CLIENTS,
        ])
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn number(text: &str, label: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error::answer("dnsperf", text.to_owned()))
}
