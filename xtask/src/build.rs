//! `cargo xtask build`: the eBPF programs, then the binaries that carry them.

use std::process::Command;

use crate::command::{cargo, run as run_command, step};
use crate::error::Result;
use crate::plugin;
use crate::setup;
use crate::toolchain::{Toolchain, linker};
use crate::workspace::Workspace;

/// The variable by which `proxy`'s build script learns which object to embed.
pub(crate) const OBJECT_VARIABLE: &str = "SLUICE_EBPF_OBJECT";

/// Build the eBPF programs, then the user-space binaries with the programs inside.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the eBPF programs.
    #[arg(long)]
    pub(crate) ebpf_only: bool,
    /// User space without optimisation: quicker to build, slower to run.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain()?;
    step("eBPF programs", "half a minute the first time", || ebpf(workspace))?;
    if args.ebpf_only {
        eprintln!("    {}", workspace.ebpf_object().display());
        return Ok(());
    }
    let (profile, folder) = if args.debug { ("dev", "debug") } else { ("release", "release") };
    step(&format!("user space ({profile})"), "some minutes the first time", || {
        let mut arguments =
            vec!["build", "--profile", profile, "-p", "sluice", "-p", "sluice-tests", "--bins"];
        if args.debug {
            arguments.extend(["-p", "sluice-cni"]);
        }
        run_command(&mut user_space(workspace, &arguments))
    })?;
    if !args.debug {
        step("the plugin, static", "a minute the first time", || plugin::build_beside(workspace))?;
    }
    for binary in ["sluice", "sluice-cni"] {
        eprintln!("    {}", workspace.target().join(folder).join(binary).display());
    }
    Ok(())
}

/// Builds the eBPF programs.
pub(crate) fn ebpf(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::find().ok_or_else(setup::no_toolchain)?;
    let linker = linker().ok_or_else(setup::no_linker)?;
    let mut command = toolchain.cargo_build(&linker);
    command.current_dir(workspace.root());
    command.args(["--package", "sluice-ebpf", "--bin", "sluice-ebpf", "--profile", "bpf", "--target-dir"]);
    run_command(command.arg(workspace.ebpf_target()))
}

/// `cargo` for user space. `proxy`'s build script finds the eBPF object in the usual target folder of its own
/// accord; it is told only where another is used, so that a plain `cargo build` sees the same environment and
/// nothing is built twice.
pub(crate) fn user_space(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = cargo(workspace.root(), arguments);
    if !workspace.has_usual_target() {
        command.env(OBJECT_VARIABLE, workspace.ebpf_object());
    }
    command
}
