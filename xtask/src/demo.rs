//! `cargo xtask demo`: sets up what is missing, builds, and runs the demo binary of the tests crate.

use std::process::Command;

use crate::command::{run as run_command, step};
use crate::debian::is_root;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{build, setup};

/// Set up, build, and show two nodes, real pods, curl and nslookup at work (needs root).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave it running, and say how to enter a pod.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove what `--keep` left.
    #[arg(long)]
    down: bool,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !is_root() {
        return Err(Error::NotRoot {
            verb: "demo",
            reason: "it makes network namespaces and loads eBPF programs",
        });
    }
    let demo = workspace.target().join("release/sluice-demo");
    if !(args.down && demo.exists()) {
        step("setup", "looks first, installs only what is missing", || setup::everything(workspace))?;
        build::run(workspace, &build::Args { ebpf_only: false, debug: false })?;
    }
    let mut command = Command::new(demo);
    if args.keep {
        command.arg("--keep");
    }
    if args.down {
        command.arg("--down");
    }
    run_command(&mut command)
}
