//! `cargo xtask dist`: the release archive. Programs that need nothing of the machine they run on, the manifests and
//! the image's recipe, and the documents for whoever installs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{ebpf, user_space};
use crate::command::{output, run as run_command, step};
use crate::error::{Error, Result};
use crate::plugin::{self, host};
use crate::setup;
use crate::workspace::Workspace;

/// What goes along, from the top of the repository.
const ALONG: [&str; 6] = ["deploy", "docs", "README.md", "CHANGELOG.md", "LICENSE", "ARCHITECTURE.md"];

/// Build static programs and make the release archive.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, _args: &Args) -> Result<()> {
    setup::toolchain()?;
    step("eBPF programs", "half a minute the first time", || ebpf(workspace))?;
    let host = host(workspace)?;
    let mut programs = vec![workspace.target().join(&host).join("release/sluice")];
    step("static programs", "some minutes the first time", || {
        let arguments = ["build", "--release", "--target", &host, "-p", "sluice", "--bins"];
        // The target is named although it is the host's: build scripts and macros, which cannot be static, are then
        // built without these flags, and in a folder of their own.
        let mut command = user_space(workspace, &arguments);
        run_command(command.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
        programs.push(plugin::build(workspace)?);
        Ok(())
    })?;
    let architecture = host.split('-').next().unwrap_or_default();
    let name = format!("sluice-{}-{architecture}", env!("CARGO_PKG_VERSION"));
    let dist = workspace.target().join("dist");
    let folder = dist.join(&name);
    collect(workspace, &programs, &folder)?;
    let archive = pack(&dist, &name)?;
    eprintln!("    {}", folder.display());
    eprintln!("    {}", archive.display());
    Ok(())
}

/// Fills the folder that is packed and that images are built from.
fn collect(workspace: &Workspace, programs: &[PathBuf], folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::file("remove", folder))?;
    }
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).map_err(Error::file("make", &bin))?;
    for from in programs {
        needs_nothing(from)?;
        let to = bin.join(from.file_name().unwrap_or_default());
        fs::copy(from, &to).map_err(Error::file("copy", from))?;
    }
    let mut copy = Command::new("cp");
    copy.current_dir(workspace.root()).arg("-r").args(ALONG).arg(folder);
    run_command(&mut copy)
}

/// A program that asks for an interpreter does not start in an image that has none.
fn needs_nothing(program: &Path) -> Result<()> {
    let headers = output(Command::new("readelf").arg("--program-headers").arg(program))?;
    if headers.contains("INTERP") {
        let reason = "it is linked dynamically".to_owned();
        return Err(Error::Output { command: program.display().to_string(), reason });
    }
    Ok(())
}

/// The archive and its checksum. From the same contents the same archive: no times, no owners, one order.
fn pack(dist: &Path, name: &str) -> Result<PathBuf> {
    let archive = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    tar.current_dir(dist);
    tar.args([
        "--create",
        "--use-compress-program=gzip -n",
        "--file",
        &archive,
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
    ]);
    run_command(tar.args(["--numeric-owner", "--mode=u+rw,go=rX", name]))?;
    let sum = output(Command::new("sha256sum").current_dir(dist).arg(&archive))?;
    let file = dist.join(format!("{archive}.sha256"));
    fs::write(&file, sum).map_err(Error::file("write", file))?;
    Ok(dist.join(archive))
}
