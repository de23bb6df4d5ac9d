//! Where the datapath is pinned, and the rules for taking over what is there.
//!
//! ```text
//! <bpffs>/v1/maps/<map>
//! <bpffs>/v1/programs/<program>
//! <bpffs>/v1/links/<program>-<device>       a link; where programs are attached by filters, the program
//! <bpffs>/v1/clsact/                        there if programs are attached by filters
//! ```
//!
//! The version is the layout of the maps. An agent with another layout does not touch what is here; one with
//! the same layout takes the maps as they are, and puts its own programs behind the links.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{FsType, statfs};
use sluice_ebpf_common::LAYOUT;

use crate::{AttachKind, DatapathError};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// A folder (a BPF file system has no files of its own) that is there if programs are attached by filters.
const ATTACHED_BY_FILTERS: &str = "clsact";

/// The pins of one node.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins below a bpffs directory; nothing is touched.
    pub fn new(bpffs: &Path) -> Self {
        Self { root: bpffs.join(LAYOUT) }
    }

    /// Makes the directories, after checking that they are where pins can be.
    pub fn create(&self) -> Result<(), DatapathError> {
        // Asked of what is there: nothing is left behind where no pin can be.
        let there = self.root.ancestors().find(|path| path.is_dir()).unwrap_or(&self.root);
        let stat = statfs(there).map_err(|errno| DatapathError::io("statfs", there)(errno.into()))?;
        if stat.filesystem_type() != BPF_FS_MAGIC {
            let path = self.root.parent().unwrap_or(&self.root);
            return Err(DatapathError::NotBpffs { path: path.to_owned(), there: there.to_owned() });
        }
        for dir in [self.root.join("maps"), self.root.join("programs"), self.root.join("links")] {
            fs::create_dir_all(&dir).map_err(DatapathError::io("mkdir", &dir))?;
        }
        Ok(())
    }

    /// The directory of this layout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the maps' pins.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// A map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// A program's pin.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    /// The pin of the link between a program and what it is attached to. The BPF file system refuses names with a dot,
    /// which devices may have (`eth0.100`); in its place stands a colon, which they may not.
    pub fn link(&self, program: &str, target: &str) -> PathBuf {
        self.root.join("links").join(format!("{program}-{}", target.replace('.', ":")))
    }

    /// Tells the plugin how programs are attached to the devices of pods.
    pub(crate) fn set_kind(&self, kind: AttachKind) -> Result<(), DatapathError> {
        let sign = self.root.join(ATTACHED_BY_FILTERS);
        let done = match kind {
            AttachKind::Clsact => fs::create_dir_all(&sign),
            AttachKind::Tcx => fs::remove_dir(&sign),
        };
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DatapathError::io("set", &sign)(error))
            }
            _ => Ok(()),
        }
    }

    /// The pinned links, as (program, target).
    pub fn links(&self) -> Result<Vec<(String, String)>, DatapathError> {
        let dir = self.root.join("links");
        let mut links = Vec::new();
        for entry in fs::read_dir(&dir).map_err(DatapathError::io("readdir", &dir))? {
            let entry = entry.map_err(DatapathError::io("readdir", &dir))?;
            if let Some((program, target)) = entry.file_name().to_str().and_then(|name| name.split_once('-'))
            {
                links.push((program.to_owned(), target.replace(':', ".")));
            }
        }
        links.sort();
        Ok(links)
    }
}

/// Pins an object in the place of another: made beside it, then renamed over it, so that at every moment one
/// of the two is there.
pub(crate) fn replace<E>(path: &Path, pin: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), DatapathError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    // The BPF file system refuses names with a dot.
    let mut beside = path.as_os_str().to_owned();
    beside.push("_new");
    let beside = PathBuf::from(beside);
    remove(&beside)?;
    pin(&beside).map_err(DatapathError::link("pin", beside.display().to_string()))?;
    fs::rename(&beside, path).map_err(DatapathError::io("rename", path))
}

/// Removes a pin; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::io("unlink", path)(error))
        }
        _ => Ok(()),
    }
}
