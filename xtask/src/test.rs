//! `cargo xtask test`: everything that tests the project, in the order in which a mistake shows soonest.
//!
//! User space is compiled once, in the `dev` profile, binaries and tests together: one selection of packages is one
//! set of features, so no dependency is built twice. Clippy shares build scripts and macros with it.

use std::process::Command;

use crate::build::{ebpf, user_space};
use crate::command::{run as run_command, step};
use crate::debian::is_root;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{lint, setup, tidy};

/// What is compiled and tested: all but the eBPF programs, which have their own compiler.
const SELECTION: [&str; 3] = ["--workspace", "--exclude", "sluice-ebpf"];

/// Run everything that tests the project (needs root).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the tests: neither lint nor tidy.
    #[arg(long)]
    tests_only: bool,
    /// Arguments for `cargo nextest run`, such as a filter: `cargo xtask test -- -E 'binary(clusterip)'`.
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !is_root() {
        let reason = "the tests make network namespaces and load eBPF programs; \
                      without root, `cargo test` runs those of the default members";
        return Err(Error::NotRoot { verb: "test", reason });
    }
    prepare(workspace)?;
    if !args.tests_only {
        tidy::run(workspace, &tidy::Args {})?;
        lint::check(workspace)?;
    }
    compile(workspace)?;
    eprintln!("==> tests");
    run_command(nextest(workspace, "run").arg("--no-fail-fast").args(&args.nextest))
}

/// Builds all that is tested, and the tests.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    compile(workspace)
}

/// `cargo nextest` with a verb of its own, for all that is tested.
pub(crate) fn nextest(workspace: &Workspace, verb: &str) -> Command {
    let mut command = user_space(workspace, &["nextest", verb]);
    command.args(SELECTION);
    command
}

fn prepare(workspace: &Workspace) -> Result<()> {
    step("setup", "", || setup::everything(workspace))?;
    step("eBPF programs", "half a minute the first time", || ebpf(workspace))
}

fn compile(workspace: &Workspace) -> Result<()> {
    step("binaries and tests", "some minutes the first time", || {
        let mut command = user_space(workspace, &["build"]);
        run_command(command.args(SELECTION).args(["--bins", "--tests"]))
    })
}
