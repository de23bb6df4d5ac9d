//! Removing a bed, whatever became of its owner.
//!
//! A bed is found again by its name alone:
//!
//! ```text
//! /run/sluice-testbed/<bed>/            state folders, manifests, logs, bpffs mounts
//! /run/sluice-testbed/<bed>.lock        held (flock) by the owner and its reaper as long as one of them lives
//! /run/netns/sluice-<bed>-<name>        the namespaces;  /etc/netns/sluice-<bed>-<name>/ their files
//! <cgroup2>/sluice-<bed>/               every process of the bed
//! ```
//!
//! The reaper is a process of its own group. It waits for the end of a pipe that only the owner holds; closed on
//! purpose or by the owner's death, it removes the bed. Should the reaper itself be killed, the lock is free and
//! the next bed's [`sweep`] does its work.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::{Error, Result, wait_for};

/// Where beds keep their files.
pub(crate) const BEDS: &str = "/run/sluice-testbed";
/// Where `ip netns` finds namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// Where the files are that `ip netns exec` lays over those in `/etc`.
pub(crate) const NAMESPACE_FILES: &str = "/etc/netns";
/// In the bed's folder: the bed outlives its owner on purpose.
pub(crate) const KEPT: &str = "kept";

/// What the reaper process does: waits for the owner's end, then removes the bed, unless it is to be kept.
pub fn watch(bed: &str) -> Result<()> {
    // The end of the input is the signal; there is nothing to read and no error that means anything else.
    let _end = std::io::stdin().read(&mut [0_u8; 1]);
    if Path::new(BEDS).join(bed).join(KEPT).exists() { Ok(()) } else { remove(bed) }
}

/// Removes the beds that have neither owner nor reaper and are not kept.
pub fn sweep() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(BEDS) else { return Ok(()) }; // no bed was ever made here
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(bed) = name.strip_suffix(".lock") else { continue };
        let kept = Path::new(BEDS).join(bed).join(KEPT).exists();
        let Ok(lock) = File::open(entry.path()) else { continue }; // removed in this moment
        if !kept && lock.try_lock().is_ok() {
            remove(bed)?;
        }
    }
    Ok(())
}

/// Removes a bed and everything that bears its name. What is already gone is as good as removed; the first of the
/// other errors is returned, after everything was tried.
pub fn remove(bed: &str) -> Result<()> {
    empty(bed)?;
    let lock = Path::new(BEDS).join(format!("{bed}.lock"));
    gone(std::fs::remove_file(&lock)).map_err(Error::file("remove", &lock))
}

/// Removes everything but the lock.
pub(crate) fn empty(bed: &str) -> Result<()> {
    let folder = Path::new(BEDS).join(bed);
    let prefix = format!("sluice-{bed}-");
    let mut outcome = Ok(());
    let mut note = |result: Result<()>| {
        if outcome.is_ok() {
            outcome = result;
        }
    };
    let cgroup = cgroup_root().map(|root| root.join(format!("sluice-{bed}")));
    if let Ok(cgroup) = &cgroup {
        note(end_processes(cgroup));
    }
    note(unmount_below(&folder));
    for path in named(NAMESPACES, &prefix) {
        // Not mounted means that its maker was interrupted between the file and the mount.
        let _unmounted = umount2(&path, MntFlags::MNT_DETACH);
        note(gone(std::fs::remove_file(&path)).map_err(Error::file("remove", &path)));
    }
    for path in named(NAMESPACE_FILES, &prefix) {
        note(gone(std::fs::remove_dir_all(&path)).map_err(Error::file("remove", &path)));
    }
    if let Ok(cgroup) = &cgroup {
        note(remove_cgroup(cgroup));
    }
    note(gone(std::fs::remove_dir_all(&folder)).map_err(Error::file("remove", &folder)));
    outcome
}

/// The cgroup v2 mount.
pub(crate) fn cgroup_root() -> Result<PathBuf> {
    let found = mounts()?.into_iter().find(|(_, kind)| kind == "cgroup2");
    found.map(|(path, _)| path).ok_or_else(|| Error::Missing("cgroup v2 mount".to_owned()))
}

/// The mounts of this process: where, and of what kind.
fn mounts() -> Result<Vec<(PathBuf, String)>> {
    let text = std::fs::read_to_string("/proc/mounts").map_err(Error::file("read", "/proc/mounts"))?;
    let parse = |line: &str| {
        let mut words = line.split(' ').skip(1);
        Some((PathBuf::from(words.next()?), words.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn end_processes(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let kill = cgroup.join("cgroup.kill");
    std::fs::write(&kill, "1").map_err(Error::file("write", kill))?;
    let events = cgroup.join("cgroup.events");
    wait_for("the end of the bed's processes", Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&events).map_err(Error::file("read", &events))?;
        Ok(text.contains("populated 0").then_some(()))
    })
}

fn unmount_below(folder: &Path) -> Result<()> {
    // Later mounts first: they may lie on earlier ones.
    for (path, _) in mounts()?.into_iter().rev().filter(|(path, _)| path.starts_with(folder)) {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(Error::file("unmount", path)(errno)),
        }
    }
    Ok(())
}

fn remove_cgroup(cgroup: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(cgroup) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&entry.path())?;
    }
    // A process that was just killed may still be on its way out.
    wait_for("an empty cgroup", Duration::from_secs(5), || {
        gone(std::fs::remove_dir(cgroup)).map(Some).map_err(Error::file("remove", cgroup))
    })
}

/// The entries of a folder whose names begin with `prefix`.
fn named(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|entry| entry.path()).collect()
}

fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
