//! The way into a namespace: what the helper `sluice-testbed enter` does before it becomes the program asked for.
//!
//! It joins the cgroup, then the network namespace, and makes a mount namespace of its own in which the
//! files of `/etc/netns/<name>` lie over those of `/etc`, as `ip netns exec` does: each pod has its own
//! `/etc/resolv.conf`, and the machine's stays untouched.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result, programs};

/// Where to, and what there.
#[derive(Debug, Clone, clap::Args)]
pub struct Entry {
    /// Name of the network namespace.
    #[arg(long)]
    pub netns: String,
    /// Folder of the cgroup.
    #[arg(long)]
    pub cgroup: PathBuf,
    /// The host name that the program sees.
    #[arg(long)]
    pub hostname: String,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub program: Vec<OsString>,
}

/// A command that runs `program` inside; arguments may be added as to any command.
pub fn command(netns: &str, cgroup: &Path, hostname: &str, program: impl Into<OsString>) -> Result<Command> {
    let mut command = Command::new(programs::built("sluice-testbed")?);
    command.args(["enter", "--netns", netns, "--hostname", hostname, "--cgroup"]).arg(cgroup);
    command.arg("--").arg(program.into());
    Ok(command)
}

/// Does something on a thread that has entered a network namespace. A socket belongs to the namespace that its thread is
/// in when it is made.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = File::open(netns).map_err(Error::file("open", netns))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(Error::file("enter", netns))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(Error::answer("a thread in a namespace", "it panicked")))
    })
}

impl Entry {
    /// Goes there and becomes the program; returns only if that fails.
    pub fn enter(self) -> Result<std::convert::Infallible> {
        let procs = self.cgroup.join("cgroup.procs");
        std::fs::write(&procs, "0").map_err(Error::file("join", procs))?;

        let path = Path::new("/run/netns").join(&self.netns);
        let namespace = File::open(&path).map_err(Error::file("open", &path))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(Error::file("enter", &path))?;

        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).map_err(Error::file("leave", "/"))?;
        nix::unistd::sethostname(&self.hostname).map_err(Error::file("name the host", &self.hostname))?;
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).map_err(Error::file("unshare", "/"))?;
        lay_over(&Path::new("/etc/netns").join(&self.netns))?;

        let mut words = self.program.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        let source = command.args(words).exec();
        Err(Error::Start { command: command.get_program().to_string_lossy().into_owned(), source })
    }
}

/// Binds every file of the folder over the file of the same name in `/etc`.
fn lay_over(folder: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) }; // this namespace has no files of its own
    for entry in entries {
        let source = entry.map_err(Error::file("read", folder))?.path();
        let Some(name) = source.file_name() else { continue };
        let target = Path::new("/etc").join(name);
        let bind = mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        bind.map_err(Error::file("bind", target))?;
    }
    Ok(())
}
