//! `cargo xtask build`: the eBPF programs, then the binaries that carry them.

use std::path::Path;
use std::process::Command;

use crate::command::{cargo, run as run_command, step};
use crate::error::{Error, Result};
use crate::setup;
use crate::toolchain::{TARGET, Toolchain, linker};
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
        let arguments = [
            "build",
            "--profile",
            profile,
            "-p",
            "sluice",
            "-p",
            "sluice-cni",
            "-p",
            "sluice-tests",
            "--bins",
        ];
        run_command(&mut user_space(workspace, &arguments))
    })?;
    for binary in ["sluice", "sluice-cni"] {
        eprintln!("    {}", workspace.target().join(folder).join(binary).display());
    }
    Ok(())
}

/// Builds the eBPF programs, and replaces the object only if it differs.
pub(crate) fn ebpf(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::find().ok_or_else(setup::no_toolchain)?;
    let linker = linker().ok_or_else(setup::no_linker)?;
    let mut command = toolchain.cargo_build(&linker);
    command.current_dir(workspace.root());
    command.args(["--package", "sluice-ebpf", "--bin", "sluice-ebpf", "--profile", "bpf", "--target-dir"]);
    command.arg(workspace.ebpf_target());
    run_command(&mut command)?;
    let built = workspace.ebpf_target().join(TARGET).join("bpf/sluice-ebpf");
    copy_if_changed(&built, &workspace.ebpf_object())
}

/// `cargo` for user space, told where the eBPF object is. Everything that compiles user space goes through here, so
/// that the object's path is always the same and nothing is built twice.
pub(crate) fn user_space(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = cargo(workspace.root(), arguments);
    command.env(OBJECT_VARIABLE, workspace.ebpf_object());
    command
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).map_err(Error::file("read", from))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    // Written beside and renamed: a build that runs at the same time sees the old object or the new one, whole.
    let beside = to.with_extension("o.new");
    std::fs::write(&beside, new).map_err(Error::file("write", &beside))?;
    std::fs::rename(&beside, to).map_err(Error::file("replace", to))
}
