//! `cargo xtask lint`: formatting and clippy, over everything that a stable compiler reads.

use crate::build::{self, user_space};
use crate::command::{cargo, run as run_command, step};
use crate::error::Result;
use crate::setup;
use crate::workspace::Workspace;

/// Check formatting and lints.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Format instead of complaining.
    #[arg(long)]
    fix: bool,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.fix {
        return step("format", "", || run_command(&mut cargo(workspace.root(), ["fmt", "--all"])));
    }
    setup::toolchain()?;
    step("eBPF programs", "", || build::ebpf(workspace))?;
    check(workspace)
}

/// The checks alone; the eBPF object must be there, as `proxy` embeds it.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    step("formatting", "", || run_command(&mut cargo(workspace.root(), ["fmt", "--all", "--check"])))?;
    step("clippy", "a minute or two the first time", || {
        let clippy = ["clippy", "--workspace", "--exclude", "sluice-ebpf", "--all-targets"];
        run_command(user_space(workspace, &clippy).args(["--", "-D", "warnings"]))
    })
}
