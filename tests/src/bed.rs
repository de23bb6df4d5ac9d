//! A bed: the name under which everything of one test lies, its folder, its cgroup and its reaper.

mod host;
mod server;
mod switch;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use host::Host;
pub use server::Servers;
pub use switch::Switch;

use nix::mount::{MsFlags, mount};

use crate::reaper::{self, BEDS, KEPT, NAMESPACE_FILES, NAMESPACES, cgroup_root};
use crate::{Error, Result, programs, wait_for};

/// How long the name of a bed that is at work is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bed. Cloning gives another handle on the same one; with the last handle it is removed.
#[derive(Debug, Clone)]
pub struct Testbed(Arc<Bed>);

#[derive(Debug)]
struct Bed {
    name: String,
    folder: PathBuf,
    cgroup: PathBuf,
    reaper: Mutex<Option<Child>>,
}

impl Testbed {
    /// A new bed under a name that nobody else has. Beds that lost their owners are removed first.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        reaper::sweep()?;
        Self::make(format!("{}-{count}", std::process::id()))
    }

    /// The bed of this name; one that is already there, kept or crashed, is removed first. One that is at work is
    /// left alone, and is an error.
    pub fn named(name: &str) -> Result<Self> {
        reaper::sweep()?;
        Self::make(name.to_owned())
    }

    fn make(name: String) -> Result<Self> {
        let folder = Path::new(BEDS).join(&name);
        let cgroup = cgroup_root()?.join(format!("sluice-{name}"));
        std::fs::create_dir_all(BEDS).map_err(Error::file("make", BEDS))?;
        let lock = take_lock(&name)?;
        reaper::empty(&name)?;
        // From here on the reaper cleans up after whatever goes wrong.
        let mut reaper = Command::new(programs::built("sluice-testbed")?);
        reaper.args(["reap", &name]).stdin(Stdio::piped()).stdout(lock).stderr(Stdio::piped());
        // Its own group: what is sent to the test's group, from a terminal or a test runner, is not for it.
        std::os::unix::process::CommandExt::process_group(&mut reaper, 0);
        let reaper = reaper
            .spawn()
            .map_err(|source| Error::Start { command: "sluice-testbed reap".into(), source })?;
        let bed = Bed { name, folder, cgroup, reaper: Mutex::new(Some(reaper)) };
        for path in [&bed.folder, &bed.cgroup] {
            std::fs::create_dir_all(path).map_err(Error::file("make", path))?;
        }
        Ok(Self(Arc::new(bed)))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its folder, for state, manifests and logs.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// A folder below the bed's, made if it is not there.
    pub fn subfolder(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.0.folder.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
        Ok(path)
    }

    /// A new namespace, as a host with nothing but a loopback device.
    pub fn host(&self, name: &str) -> Result<Host> {
        Host::make(self, name, self.0.cgroup.join(name))
    }

    /// A new namespace whose processes count as those of the host `on`: a pod.
    pub fn host_on(&self, on: &Host, name: &str) -> Result<Host> {
        Host::make(self, name, on.cgroup().join(name))
    }

    /// A new switch, for wires between hosts.
    pub fn switch(&self, name: &str) -> Result<Switch> {
        Switch::make(self, name)
    }

    /// Mounts a BPF file system of its own in a folder below the bed's.
    pub fn mount_bpffs(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.subfolder(name)?;
        let mounted = mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>);
        mounted.map_err(Error::file("mount a bpffs on", &path))?;
        Ok(path)
    }

    /// Leaves the bed in place when this process ends.
    pub fn keep(&self) -> Result<()> {
        let path = self.0.folder.join(KEPT);
        std::fs::write(&path, "").map_err(Error::file("write", path))
    }

    /// What exists on this machine under the bed's name, as a person would find it. For tests of the testbed.
    pub fn traces(name: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let prefix = format!("sluice-{name}-");
        for folder in [NAMESPACES, NAMESPACE_FILES] {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
            found.extend(ours.map(|entry| entry.path().display().to_string()));
        }
        let folder = Path::new(BEDS).join(name);
        for path in [cgroup_root()?.join(format!("sluice-{name}")), folder.clone()] {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        let mounts = std::fs::read_to_string("/proc/mounts").map_err(Error::file("read", "/proc/mounts"))?;
        let below = folder.display().to_string();
        found.extend(mounts.lines().filter(|line| line.contains(&below)).map(|line| format!("mount {line}")));
        Ok(found)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let reaper = self.reaper.get_mut().map(Option::take).unwrap_or_default();
        let Some(mut reaper) = reaper else { return };
        drop(reaper.stdin.take()); // the signal
        match reaper.wait_with_output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("bed {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim_end());
            }
            Err(error) => eprintln!("bed {}: its reaper: {error}", self.name),
        }
    }
}

/// Takes the bed's lock. A sweep may take and remove the file between our opening and our locking it; then the
/// file we hold is not the one in the folder, and we try again.
fn take_lock(name: &str) -> Result<File> {
    let path = Path::new(BEDS).join(format!("{name}.lock"));
    loop {
        let file = File::create(&path).map_err(Error::file("make", &path))?;
        // Its reaper, should its owner just have gone, needs a moment.
        wait_for(&format!("the end of the bed {name}, which is in use"), PATIENCE, || {
            Ok(file.try_lock().is_ok().then_some(()))
        })?;
        let held = file.metadata().map_err(Error::file("look at", &path))?;
        if path.metadata().is_ok_and(|there| there.ino() == held.ino()) {
            return Ok(file);
        }
    }
}
