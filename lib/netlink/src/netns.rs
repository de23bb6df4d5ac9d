//! Network namespaces. Everything that enters, makes or pins one is here.
//!
//! A thread's namespace is a property of the thread, and forgetting to go back is a bug that shows far away.
//! So a closure that is to run elsewhere gets a thread of its own; only [`Namespace::visit`], for a program that is
//! over before a thread would have paid for itself, changes the caller's namespace, and goes back whatever happens.

#![expect(unsafe_code, reason = "which namespace a socket is in, only an ioctl tells")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::FsType,
};

use crate::{Error, Netlink, Result};

/// Where named namespaces are pinned, for `ip netns` to see.
pub const NAMED_DIRECTORY: &str = "/run/netns";

const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
}

/// What tells namespaces apart: two paths are one namespace if these are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    /// The device of the namespace file system.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl Namespace {
    /// Opens the namespace that is pinned at, or described by, `path`: `/run/netns/x`, `/proc/42/ns/net`.
    ///
    /// A file that is no network namespace is refused with `EINVAL`, as entering it would be.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let error = |source| failed("open", path, source);
        let file = File::open(path).map_err(error)?;
        let namespace = Self { file, path: path.to_owned() };
        let kind = nix::sys::statfs::fstatfs(&namespace.file)
            .map_err(|errno| error(errno.into()))?
            .filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(error(io::Error::from_raw_os_error(nix::libc::EINVAL)));
        }
        Ok(namespace)
    }

    /// The namespace pinned as `/run/netns/<name>`.
    pub fn open_named(name: &str) -> Result<Self> {
        Self::open(Path::new(NAMED_DIRECTORY).join(name))
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open(OWN)
    }

    /// The namespace of a connection, which is that of the thread that opened it. Asking the socket takes a tenth of
    /// what it takes to look a new process up in `/proc`.
    pub fn of(netlink: &Netlink) -> Result<Self> {
        // SAFETY: the descriptor is open, as it is borrowed, and the request takes no argument.
        let descriptor = unsafe { nix::libc::ioctl(netlink.as_fd().as_raw_fd(), SIOCGSKNS) };
        let path = PathBuf::from(OWN);
        if descriptor < 0 {
            return Err(failed("open", &path, io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        Ok(Self { file, path })
    }

    /// Makes a new namespace, without a name: it goes when the last reference to it goes.
    pub fn create() -> Result<Self> {
        own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| failed("make", Path::new("(new)"), errno.into()))?;
            let mut namespace = Self::current()?;
            namespace.path = PathBuf::from("(anonymous)");
            Ok(namespace)
        })?
    }

    /// Runs `work` in this namespace, on a thread of its own, and returns what it returned. A panic in it goes on
    /// in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        own_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| failed("enter", &self.path, errno.into()))?;
            Ok(work())
        })?
    }

    /// Runs `work` in this namespace, on the calling thread, which is in `home` and is there again afterwards, whether
    /// `work` returns or panics. A thread that cannot go back ends its process: whatever it did next would happen to
    /// the wrong network.
    pub fn visit<T>(&self, home: &Self, work: impl FnOnce() -> T) -> Result<T> {
        struct Return<'a>(&'a Namespace);
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                if setns(&self.0.file, CloneFlags::CLONE_NEWNET).is_err() {
                    std::process::abort();
                }
            }
        }
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| failed("enter", &self.path, errno.into()))?;
        let _return = Return(home);
        Ok(work())
    }

    /// Opens a netlink connection in this namespace. It stays there, whichever thread uses it.
    pub fn netlink(&self) -> Result<Netlink> {
        self.run(Netlink::open)?
    }

    /// Pins it at `path`, so that it lives on without us: a bind mount on an empty file, as `ip netns add` makes.
    pub fn pin(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let error = |source| failed("pin", path, source);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(error)?;
        }
        OpenOptions::new().write(true).create_new(true).open(path).map_err(error)?;
        let source = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        mount(Some(&source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| {
            let _ = fs::remove_file(path);
            error(errno.into())
        })
    }

    /// Pins it as `/run/netns/<name>`.
    pub fn pin_named(&self, name: &str) -> Result<()> {
        self.pin(Path::new(NAMED_DIRECTORY).join(name))
    }

    /// What tells it from others.
    pub fn id(&self) -> Result<NamespaceId> {
        let metadata = self.file.metadata().map_err(|source| failed("look at", &self.path, source))?;
        Ok(NamespaceId { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Removes a pin. The namespace goes unless something else holds it. That there is none is no error.
pub fn unpin(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not mounted: a pin that was only half made.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(errno) => return Err(failed("unpin", path, errno.into())),
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("unpin", path, error)),
    }
}

/// Removes the pin `/run/netns/<name>`.
pub fn unpin_named(name: &str) -> Result<()> {
    unpin(Path::new(NAMED_DIRECTORY).join(name))
}

/// `SIOCGSKNS` of `linux/sockios.h` (Linux 4.9): a socket's network namespace, as a descriptor.
const SIOCGSKNS: nix::libc::Ioctl = 0x894c;

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

fn failed(verb: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace { verb, path: path.to_owned(), source }
}

fn own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| failed("start a thread for", Path::new("work"), source))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
