//! Settings below `/proc/sys`, of the calling thread's network namespace.
//!
//! Names are paths below `/proc/sys`, with slashes (an interface name may hold a dot).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::Mode,
};

use crate::{Error, Result};

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Makes this folder stand for `/proc/sys` in the whole process: in a container that may change settings, `/proc/sys`
/// is read-only and the host's lies elsewhere. Only the first call counts.
pub fn look_below(folder: &Path) {
    // A second call asks for what cannot be any more; nobody makes one.
    let _first = FOLDER.set(folder.to_owned());
}

fn path(name: &str) -> PathBuf {
    FOLDER.get().map_or(Path::new("/proc/sys"), PathBuf::as_path).join(name)
}

/// The value, without the newline at its end.
pub fn read(name: &str) -> Result<String> {
    match fs::read_to_string(path(name)) {
        Ok(mut value) => {
            value.truncate(value.trim_end().len());
            Ok(value)
        }
        Err(source) => Err(Error::Sysctl { verb: "read", name: name.to_owned(), source }),
    }
}

/// Sets the value.
pub fn set(name: &str, value: &str) -> Result<()> {
    // Opened without O_CREAT and O_TRUNC: a missing setting is an error, and there is nothing to cut.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path(name))
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| Error::Sysctl { verb: "set", name: name.to_owned(), source })
}

/// Sets several values in one folder, up to the first that cannot be set. One that this kernel does not have is passed
/// over, and so is all of the folder. The way to it is gone once: where it is one device's, in one of many namespaces,
/// that is most of the work.
pub fn set_those_present(folder: &str, settings: &[(&str, &str)]) -> Result<()> {
    let failed = |name: &str, errno: Errno| Error::Sysctl {
        verb: "set",
        name: format!("{folder}/{name}"),
        source: errno.into(),
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = match fcntl::open(&path(folder), flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(failed("", errno)),
    };
    for (name, value) in settings {
        let file = match fcntl::openat(&directory, *name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(failed(name, errno)),
        };
        nix::unistd::write(&file, value.as_bytes()).map_err(|errno| failed(name, errno))?;
    }
    Ok(())
}

/// Whether nobody may set it here: some settings are those of the first network namespace for all.
pub fn is_read_only(name: &str) -> bool {
    fs::metadata(path(name)).is_ok_and(|metadata| metadata.permissions().readonly())
}

/// Sets the value unless it is that already: some settings take the kernel's lock for all links to write, and
/// none to read. Says whether it was changed.
pub fn ensure(name: &str, value: &str) -> Result<bool> {
    if read(name)? == value {
        return Ok(false);
    }
    set(name, value).map(|()| true)
}
