//! `cargo xtask bench`: builds in release and runs the benchmark binary of the tests crate.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{run as run_command, step};
use crate::debian::{self, is_root};
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{build, setup};

/// What the suite `cni` is measured against, and what that runs.
const CNI_PEERS: [&str; 2] = ["containernetworking-plugins", "iptables"];

/// What loads the rules that the suite `service` is measured against.
const SERVICE_PEERS: [&str; 2] = ["nftables", "iptables"];

/// Measure, print a table, and write the numbers as JSON (needs root).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The suite to run; all of them without one. Suites: path, service, cni, dns, cluster.
    suite: Option<String>,
    /// Write the numbers to this file, as a list of
    /// {"suite","name","value","unit","peer","peer_value","ratio"}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds; every round measures every case once, and medians are over rounds.
    #[arg(long)]
    rounds: Option<u32>,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !is_root() {
        return Err(Error::NotRoot { verb: "bench", reason: "it measures between network namespaces" });
    }
    setup::everything(workspace)?;
    for (suite, packages) in [("cni", &CNI_PEERS), ("service", &SERVICE_PEERS)] {
        let missing = debian::missing(packages);
        if args.suite.as_deref().is_none_or(|asked| asked == suite) && !missing.is_empty() {
            let reason = format!("the suite {suite}");
            step(&reason, "up to a minute", || debian::install(&missing, &reason))?;
        }
    }
    if args.suite.as_deref().is_none_or(|suite| suite == "dns") {
        setup::name_servers()?;
    }
    build::run(workspace, &build::Args { ebpf_only: false, debug: false })?;
    let mut command = Command::new(workspace.target().join("release/sluice-bench"));
    command.arg("run").args(&args.suite);
    if let Some(file) = &args.json {
        command.arg("--json").arg(file);
    }
    if let Some(rounds) = args.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    run_command(&mut command)
}
