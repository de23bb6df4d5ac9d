//! Building the plugin, which a runtime starts anew for every command: what its start takes is most of what can be
//! saved.
//!
//! It is linked without shared libraries, which would have to be found and bound every time; and with musl where the
//! compiler has it. glibc asks the processor for its caches and features at every start, dozens of questions of which a
//! hypervisor answers each in ten microseconds: a third of a millisecond, when all of an ADD takes one and a half.
//!
//! And it is linked to run at one place in memory. One that can be put anywhere begins by entering where it is into each
//! of its pages that hold addresses, which the kernel copies for it: a twentieth of the CPU time of an ADD.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{cargo, output, run as run_command, which};
use crate::error::{Error, Result};
use crate::workspace::Workspace;

const NAME: &str = "sluice-cni";
/// Of the workspace's Cargo.toml.
const PROFILE: &str = "plugin";
/// How its code is laid out: see above.
const AT_ONE_PLACE: [&str; 3] = ["--", "-C", "relocation-model=static"];

/// Builds it in release, and says where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(target) = musl(workspace)? {
        let arguments = ["rustc", "--profile", PROFILE, "--target", &target, "-p", NAME, "--bin", NAME];
        run_command(cargo(workspace.root(), arguments).args(AT_ONE_PLACE))?;
        return Ok(workspace.target().join(target).join(PROFILE).join(NAME));
    }
    let arguments = ["rustc", "--profile", PROFILE, "-p", NAME, "--bin", NAME];
    let mut command = cargo(workspace.root(), arguments);
    run_command(command.args(AT_ONE_PLACE).args(["-C", "target-feature=+crt-static"]))?;
    Ok(workspace.target().join(PROFILE).join(NAME))
}

/// Builds it and puts it beside the other programs.
pub(crate) fn build_beside(workspace: &Workspace) -> Result<()> {
    let (built, place) = (build(workspace)?, workspace.target().join("release").join(NAME));
    // Whoever runs the old one meanwhile goes on with it.
    let draft = place.with_extension("new");
    fs::copy(&built, &draft).map_err(Error::file("copy", &built))?;
    fs::rename(&draft, &place).map_err(Error::file("replace", &place))
}

/// The target with musl for this machine, if the compiler has the standard library for it or can get it.
fn musl(workspace: &Workspace) -> Result<Option<String>> {
    let host = host(workspace)?;
    let Some(target) = host.strip_suffix("-gnu").map(|start| format!("{start}-musl")) else {
        return Ok(host.ends_with("-musl").then_some(host));
    };
    if !has(workspace, &target) && which("rustup").is_some() {
        eprintln!("    about to install the standard library for {target} by rustup");
        let mut command = Command::new("rustup");
        if run_command(command.current_dir(workspace.root()).args(["target", "add", &target])).is_err() {
            eprintln!("    it cannot be had: the plugin is linked with glibc, and starts more slowly");
        }
    }
    Ok(has(workspace, &target).then_some(target))
}

/// Whether the compiler has the standard library for a target.
fn has(workspace: &Workspace, target: &str) -> bool {
    let folder = output(rustc(workspace).args(["--print", "target-libdir", "--target", target]));
    folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// The compiler's own target.
pub(crate) fn host(workspace: &Workspace) -> Result<String> {
    let text = output(rustc(workspace).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let reason = "no line `host:`".to_owned();
    host.map(ToOwned::to_owned).ok_or(Error::Output { command: "rustc -vV".to_owned(), reason })
}

fn rustc(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace.root());
    command
}
