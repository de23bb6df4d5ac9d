//! Debian packages: what is missing, and installing it after saying so.

use std::path::Path;
use std::process::Command;

use crate::command::{output, run, which};
use crate::error::{Error, Result};

/// The packages of `wanted` that are not installed.
pub(crate) fn missing(wanted: &[&str]) -> Vec<String> {
    let installed = |package: &str| {
        let mut query = Command::new("dpkg-query");
        query
            .args(["--show", "--showformat=${db:Status-Status}", package])
            .stderr(std::process::Stdio::null());
        query.output().is_ok_and(|output| output.status.success() && output.stdout == b"installed")
    };
    wanted.iter().filter(|package| !installed(package)).map(|package| (*package).to_owned()).collect()
}

/// Installs packages; refuses with the way to get them where that cannot work.
pub(crate) fn install(packages: &[String], purpose: &str) -> Result<()> {
    let list = packages.join(" ");
    if which("apt-get").is_none() {
        return Err(Error::Missing {
            what: format!("{purpose} (as Debian packages: {list})"),
            way: "this is not a Debian system; install the same programs with its package manager".to_owned(),
        });
    }
    if !is_root() {
        return Err(Error::Missing {
            what: format!("{purpose}: the Debian packages {list}"),
            way: format!("run as root: apt-get update && apt-get install --no-install-recommends {list}"),
        });
    }
    eprintln!("    about to install Debian packages for {purpose}: {list}");
    update()?;
    let unknown: Vec<_> = packages.iter().filter(|package| !is_known(package)).cloned().collect();
    if !unknown.is_empty() {
        return Err(Error::Missing {
            what: format!("{purpose}: this Debian release's archive has no {}", unknown.join(", ")),
            way: "enable the release's security and updates archives in /etc/apt/sources.list, which carry them"
                .to_owned(),
        });
    }
    let mut command = apt_get(["install", "--quiet", "--yes", "--no-install-recommends"]);
    run(command.args(packages))
}

/// Fetches the lists of what the archives have.
pub(crate) fn update() -> Result<()> {
    run(&mut apt_get(["update", "--quiet"]))
}

/// Whether this process may install things and make namespaces.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}

fn is_known(package: &str) -> bool {
    output(Command::new("apt-cache").args(["show", "--quiet", package])).is_ok_and(|text| !text.is_empty())
}

fn apt_get<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("apt-get");
    // Another apt at work is waited for, and nothing asks a question.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=600"]).args(arguments);
    command
}
