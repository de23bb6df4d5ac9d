//! The checkout: where things are, and the locks that keep two runs apart.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::toolchain::TARGET;

/// The checkout that this program was built from.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace around this crate.
    pub(crate) fn find() -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = own.parent().unwrap_or(own);
        let root = root.canonicalize().map_err(Error::file("find", root))?;
        Ok(Self { root })
    }

    /// The top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder for user space.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }

    /// The target folder of the eBPF programs: apart, as another toolchain builds it.
    pub(crate) fn ebpf_target(&self) -> PathBuf {
        self.target().join("ebpf")
    }

    /// The built eBPF object.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.ebpf_target().join(TARGET).join("bpf/sluice-ebpf")
    }

    /// Whether the target folder is where `proxy`'s build script looks of its own accord.
    pub(crate) fn has_usual_target(&self) -> bool {
        self.target() == self.root.join("target")
    }
}

/// Held while the machine's tools are looked at and installed: two runs, even of two checkouts, take turns.
pub(crate) struct MachineLock {
    _file: File,
}

impl MachineLock {
    /// Waits for the lock, and says so when it has to.
    pub(crate) fn take() -> Result<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let folder = cache.unwrap_or_else(std::env::temp_dir).join("sluice");
        std::fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
        let path = folder.join("setup.lock");
        let file = File::create(&path).map_err(Error::file("open", &path))?;
        if file.try_lock().is_err() {
            eprintln!("    another run is setting this machine up; waiting for it ({})", path.display());
            file.lock().map_err(Error::file("lock", &path))?;
        }
        Ok(Self { _file: file })
    }
}
