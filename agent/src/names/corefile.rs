//! The Corefile: read at the start with what it imports, followed while the agent runs, and kept as it was when it was
//! good. Corefile and imported files are one text from here on.
//!
//! The copy of the last good one is what an agent starts with when the file is bad: a mistake that a running
//! agent has refused must not end the next one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use sluice_dns::{Corefile, CorefileError, DnsError};
use tracing::{error, warn};

use crate::folder::write_atomically;

/// The last good Corefile, in the state folder.
pub(super) const KEPT: &str = "Corefile.good";
/// How often the file is read whatever the watch says: folders are moved and mounted.
const REREAD: Duration = Duration::from_secs(5);
/// A writer that does not rename is given this long to finish.
const SETTLE: Duration = Duration::from_millis(50);

/// A Corefile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCorefile {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something that we do not have.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: CorefileError,
    },
    /// It says something that cannot be.
    #[error("{path}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What.
        source: DnsError,
    },
}

/// Corefiles that were taken and refused, as CoreDNS's `reload` counts them.
#[derive(Clone)]
pub(super) struct Reloads {
    refused: IntCounter,
    version: IntGaugeVec,
}

impl Default for Reloads {
    fn default() -> Self {
        let refused = IntCounter::new("coredns_reload_failed_total", "Corefiles that were refused.");
        let version = Opts::new("coredns_reload_version_info", "The Corefile in force, by a hash of it.");
        let version = IntGaugeVec::new(version, &["hash", "value"]);
        // The names are good ones.
        Self {
            refused: refused.unwrap_or_else(|_| unreachable!()),
            version: version.unwrap_or_else(|_| unreachable!()),
        }
    }
}

impl Reloads {
    /// This one is in force.
    pub(super) fn taken(&self, text: &str) {
        // FNV-1a, which is the same on every node and in every version.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        self.version.reset();
        self.version.with_label_values(&["fnv1a", &format!("{hash:016x}")]).set(1);
    }

    /// One was not taken.
    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.version.clone()))
    }
}

/// Reads the file, and those that it imports.
pub(super) fn read(path: &Path) -> Result<String, BadCorefile> {
    let text =
        fs::read_to_string(path).map_err(|source| BadCorefile::Read { path: path.to_owned(), source })?;
    with_imports(path, &text).map_err(|source| BadCorefile::Parse { path: path.to_owned(), source })
}

fn with_imports(path: &Path, text: &str) -> Result<String, CorefileError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    Corefile::bundle(text, |pattern| imported(&folder.join(pattern)))
}

/// The files of a pattern, whose last part may have `*` and `?` in it; their names and texts, in order.
fn imported(pattern: &Path) -> io::Result<Vec<(String, String)>> {
    let last = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let paths = if last.contains(['*', '?']) {
        let folder = match fs::read_dir(pattern.parent().unwrap_or(Path::new("."))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let mut found = Vec::new();
        for entry in folder {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if matches(last.as_bytes(), name.as_bytes()) && path.is_file() {
                found.push(path);
            }
        }
        found.sort();
        found
    } else {
        vec![pattern.to_owned()]
    };
    let read = |path: PathBuf| match fs::read_to_string(&path) {
        Ok(text) => Some(Ok((path.display().to_string(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error)),
    };
    paths.into_iter().filter_map(read).collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([byte, rest @ ..], [first, name @ ..]) => byte == first && matches(rest, name),
        ([], name) => name.is_empty(),
        (_, []) => false,
    }
}

/// The last good one.
pub(super) fn kept(state_dir: &Path) -> Option<String> {
    fs::read_to_string(state_dir.join(KEPT)).ok()
}

/// Keeps a good one for a later start.
pub(super) fn keep(state_dir: &Path, text: &str) {
    if kept(state_dir).as_deref() == Some(text) {
        return;
    }
    if let Err(error) = write_atomically(&state_dir.join(KEPT), text) {
        error!(%error, "the Corefile is not kept for a later start");
    }
}

/// Calls `changed` with the file's text whenever that is another than the last, until it says no.
pub fn watch(
    path: PathBuf,
    mut last: Option<String>,
    changed: impl Fn(String) -> bool + Send + 'static,
) -> io::Result<()> {
    let (notices, inbox) = channel();
    let handler = move |_: notify::Result<notify::Event>| {
        // The thread has ended with the loop.
        let _ = notices.send(());
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = notify::recommended_watcher(handler).and_then(|mut watcher: RecommendedWatcher| {
        // The folder and not the file: a ConfigMap's content is swapped by renaming a link beside it.
        watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher)
    });
    if let Err(error) = &watcher {
        warn!(folder = %folder.display(), %error, "cannot watch the Corefile's folder; looking at it every few seconds");
    }
    std::thread::Builder::new().name("corefile".into()).spawn(move || {
        let _watcher = watcher;
        loop {
            wait(&inbox);
            // A file that is being replaced is missing for a moment, one that is removed changes nothing.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            // Without what it imports it is refused, which is told where all that is refused is.
            let text = with_imports(&path, &text).unwrap_or(text);
            if last.as_ref() != Some(&text) {
                last = Some(text.clone());
                if !changed(text) {
                    return;
                }
            }
        }
    })?;
    Ok(())
}

/// Waits for a notice and then for quiet, or for the next look.
fn wait(inbox: &Receiver<()>) {
    match inbox.recv_timeout(REREAD) {
        Ok(()) => while inbox.recv_timeout(SETTLE).is_ok() {},
        Err(RecvTimeoutError::Timeout) => {}
        // Without a watch.
        Err(RecvTimeoutError::Disconnected) => std::thread::sleep(REREAD),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_match_patterns() {
        for (pattern, name, wanted) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", true),
            ("*.conf", "a.config", false),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("*a*b*", "xaxbx", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn every_way_of_writing_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Corefile");
        let (sender, texts) = channel();
        fs::write(&path, "zero").unwrap();
        watch(path.clone(), Some("zero".to_owned()), move |text| sender.send(text).is_ok()).unwrap();
        let next = || texts.recv_timeout(Duration::from_secs(20)).unwrap();
        fs::write(&path, "one").unwrap();
        assert_eq!(next(), "one");
        write_atomically(&path, "two").unwrap();
        assert_eq!(next(), "two");
        // As the kubelet mounts a ConfigMap: Corefile -> ..data/Corefile, ..data -> ..<time>.
        for text in ["three", "four"] {
            let data = folder.path().join(format!("..{text}"));
            fs::create_dir(&data).unwrap();
            fs::write(data.join("Corefile"), text).unwrap();
            symlink(format!("..{text}"), folder.path().join("..data_tmp")).unwrap();
            fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
            if text == "three" {
                fs::remove_file(&path).unwrap();
                symlink("..data/Corefile", &path).unwrap();
            }
            assert_eq!(next(), text);
        }
        // What it imports is part of it.
        fs::write(&path, ". {\n import custom/*.conf\n}\n").unwrap();
        assert!(next().ends_with("(custom/*.conf) {\n}\n"));
        fs::create_dir(folder.path().join("custom")).unwrap();
        for (name, text) in [("b.conf", "log"), ("a.conf", "errors"), ("c.off", "loop")] {
            fs::write(folder.path().join("custom").join(name), text).unwrap();
        }
        let both = next();
        assert!(both.contains("errors\n#file") && both.contains("log") && !both.contains("loop"), "{both}");
        fs::write(folder.path().join("other"), "x").unwrap();
        assert!(texts.recv_timeout(Duration::from_millis(200)).is_err(), "the same text is no news");
    }
}
