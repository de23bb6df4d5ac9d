//! Notices of changes in the folders of manifests, sifted: which of inotify's events mean that a file is
//! complete and worth reading.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tracing::warn;

use super::{source::FolderError, status};

/// Something happened that is worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This file came, changed or went.
    Changed(PathBuf),
    /// Anything may have changed.
    Rescan,
}

/// Watches the folder of manifests and the folder below it in which nodes tell of their pods.
#[derive(Debug)]
pub(super) struct Watcher {
    watcher: RecommendedWatcher,
    folders: [(PathBuf, Option<Identity>); 2],
}

/// Which folder is behind a path.
type Identity = (u64, u64);

impl Watcher {
    pub(super) fn new(folder: &Path, notice: impl Fn(Notice) + Send + 'static) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Watch { folder: folder.to_owned(), source };
        let handler = move |result: notify::Result<Event>| match result {
            Ok(event) => sift(&event).into_iter().for_each(&notice),
            Err(error) => {
                warn!(%error, "a notice of changed manifests was lost; looking at all of them");
                notice(Notice::Rescan);
            }
        };
        let mut watcher = notify::recommended_watcher(handler).map_err(failed)?;
        watcher.watch(folder, RecursiveMode::NonRecursive).map_err(failed)?;
        let nodes = folder.join(status::FOLDER);
        let mut this = Self { watcher, folders: [(folder.to_owned(), identity(folder)), (nodes, None)] };
        this.renew();
        Ok(this)
    }

    /// Watches folders that came, and those that were put in the place of a watched one.
    pub(super) fn renew(&mut self) {
        for (folder, watched) in &mut self.folders {
            let there = identity(folder);
            if there == *watched {
                continue;
            }
            // Gone with the folder that was watched, as a rule.
            let _ = self.watcher.unwatch(folder);
            *watched = None;
            if there.is_some() {
                match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                    Ok(()) => *watched = there,
                    Err(error) => {
                        warn!(folder = %folder.display(), %error, "cannot watch a folder; looking at it every few seconds");
                    }
                }
            }
        }
    }
}

fn identity(folder: &Path) -> Option<Identity> {
    fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Which files an event makes worth reading. A file that is being written is left alone until its writer
/// closes it: half a manifest may well parse.
fn sift(event: &Event) -> Vec<Notice> {
    if event.need_rescan() {
        return vec![Notice::Rescan];
    }
    let complete = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
        | EventKind::Remove(_) => true,
        EventKind::Create(CreateKind::Folder) => return vec![Notice::Rescan],
        // A file that comes by link(2) or symlink(2) is complete, and nobody will close it.
        EventKind::Create(_) => event.paths.iter().any(|path| {
            fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink() || m.nlink() > 1)
        }),
        _ => false,
    };
    if !complete {
        return Vec::new();
    }
    event
        .paths
        .iter()
        .filter_map(|path| match path.file_name().and_then(OsStr::to_str) {
            // How a kubelet swaps the contents of a mounted ConfigMap, and the folder of the nodes.
            Some(name) if name.starts_with("..") || name == status::FOLDER => Some(Notice::Rescan),
            Some(name) if is_manifest(name) => Some(Notice::Changed(path.clone())),
            _ => None,
        })
        .collect()
}

/// Whether a file of this name is a manifest, and not an editor's or a writer's temporary file.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !name.starts_with(['.', '#']) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// By which a changed file is known without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }

    /// The file's text and its stamp; the stamp is taken first, so that a later change is seen as one.
    pub(super) fn read(path: &Path) -> io::Result<(String, Self)> {
        let stamp = Self::of(path)?;
        Ok((fs::read_to_string(path)?, stamp))
    }

    fn from(metadata: &fs::Metadata) -> Self {
        Self { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_are_no_manifests() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
            assert!(is_manifest(name), "{name}");
        }
        for name in [".a.yaml.swp", ".a.yaml", "#a.yaml#", "a.yaml~", "a.yaml.tmp", "4913", "a.txt", "yaml"] {
            assert!(!is_manifest(name), "{name}");
        }
    }
}
