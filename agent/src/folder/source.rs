//! The folder source's thread: reads what changed, feeds the view, sends the loop what came of it.
//!
//! A change is read a few milliseconds after the file's writer has closed or renamed it. Besides, the folder
//! is compared with what was read every few seconds, for file systems and writers that give no notice. A
//! folder that cannot be listed takes nothing away.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tracing::{debug, error, info, warn};

use super::{
    files::Note,
    status::{self, PodStatus, write_atomically},
    view::{PodAddresses, View},
    watch::{Notice, Stamp, Watcher, is_manifest},
};
use crate::source::Update;

/// How long the source waits for more of the same burst of changes.
const DEBOUNCE: Duration = Duration::from_millis(2);
/// How long a burst may hold up its first change.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(10);
/// How often the folder is compared with what was read.
const RESCAN: Duration = Duration::from_secs(5);

/// What the source is told from outside.
#[derive(Debug)]
pub enum Input {
    /// Something happened in one of the folders.
    Notice(Notice),
    /// The addresses of this node's pods, as the plugin recorded them.
    Records(PodAddresses),
}

/// The source, not yet running.
#[derive(Debug)]
pub struct FolderSource {
    folder: PathBuf,
    node: Arc<str>,
    publish: bool,
    view: View,
    inbox: mpsc::Receiver<Input>,
    watcher: Watcher,
    stamps: BTreeMap<Arc<str>, Stamp>,
    status_stamps: BTreeMap<Arc<str>, Stamp>,
    /// Manifests that cannot be read, which was told.
    unreadable: BTreeSet<Arc<str>>,
    records: Option<PodAddresses>,
    published: Option<String>,
}

/// A folder that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder cannot be listed.
    #[error("cannot list the folder of manifests {folder}: {source}")]
    List {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder cannot be watched.
    #[error("cannot watch {folder}: {source}")]
    Watch {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

impl FolderSource {
    /// Begins to watch; the sender given with it is where pod records go. Fails if the folder is not there.
    pub fn open(
        folder: &Path,
        node: Arc<str>,
        publish: bool,
    ) -> Result<(Self, mpsc::Sender<Input>), FolderError> {
        let (sender, inbox) = mpsc::channel();
        let to_self = sender.clone();
        // Watched before it is listed, so that no change falls between the two.
        let watcher = Watcher::new(folder, move |notice| {
            // The thread has ended: there is nobody to tell.
            let _ = to_self.send(Input::Notice(notice));
        })?;
        fs::read_dir(folder).map_err(|source| FolderError::List { folder: folder.to_owned(), source })?;
        let source = Self {
            folder: folder.to_owned(),
            view: View::new(node.clone()),
            node,
            publish,
            inbox,
            watcher,
            stamps: BTreeMap::new(),
            status_stamps: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            records: None,
            published: None,
        };
        Ok((source, sender))
    }

    /// Runs until `send` says that nobody listens any more. The first update is sent once the folder has been
    /// read and the pod records have come.
    pub fn run(
        mut self,
        send: impl Fn(Update) -> bool + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("folder".into()).spawn(move || {
            while self.records.is_none() {
                match self.inbox.recv() {
                    Ok(input) => self.take(input, &mut Batch::default()),
                    Err(mpsc::RecvError) => return,
                }
            }
            let mut batch = Batch { rescan: true, ..Batch::default() };
            let mut faults = None;
            loop {
                let seen = batch.since.unwrap_or_else(Instant::now);
                self.read(batch);
                let deltas = self.view.take_deltas(SystemTime::now());
                self.tell();
                let update = Update { deltas, seen, faults: self.faults() };
                let wanted = faults != Some(update.faults) || !update.deltas.is_empty();
                faults = Some(update.faults);
                if wanted && !send(update) {
                    return;
                }
                match self.wait() {
                    Some(next) => batch = next,
                    None => return,
                }
            }
        })
    }

    /// Waits for something to do, and for what comes with it.
    fn wait(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        match self.inbox.recv_timeout(RESCAN) {
            Ok(input) => {
                batch.since = Some(Instant::now());
                self.take(input, &mut batch);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => batch.rescan = true,
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
        }
        let limit = Instant::now() + LONGEST_DEBOUNCE;
        while let Ok(input) =
            self.inbox.recv_timeout(DEBOUNCE.min(limit.saturating_duration_since(Instant::now())))
        {
            self.take(input, &mut batch);
        }
        Some(batch)
    }

    fn take(&mut self, input: Input, batch: &mut Batch) {
        match input {
            Input::Notice(Notice::Changed(path)) => {
                batch.paths.insert(path);
            }
            Input::Notice(Notice::Rescan) => batch.rescan = true,
            Input::Records(records) => {
                self.view.put_records(records.clone());
                self.records = Some(records);
            }
        }
    }

    fn read(&mut self, batch: Batch) {
        let nodes = self.folder.join(status::FOLDER);
        for path in &batch.paths {
            let Some(name) = path.file_name().and_then(OsStr::to_str).map(Arc::from) else { continue };
            if path.parent() == Some(&nodes) {
                self.read_status(&name);
            } else {
                self.read_manifest(&name);
            }
        }
        if self.publish {
            self.publish(&nodes);
        }
        if batch.rescan {
            self.watcher.renew();
            self.rescan(&nodes);
        }
    }

    /// Reads a manifest file, if it is not what was read before.
    fn read_manifest(&mut self, name: &Arc<str>) {
        let path = self.folder.join(&**name);
        match Stamp::read(&path) {
            Ok((text, stamp)) => {
                self.stamps.insert(name.clone(), stamp);
                self.unreadable.remove(name);
                self.view.put_file(name, &text);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.stamps.remove(name);
                self.unreadable.remove(name);
                self.view.remove_file(name);
            }
            Err(error) => {
                if self.unreadable.insert(name.clone()) {
                    error!(file = %path.display(), %error, "cannot read a manifest; what it said stays in force");
                }
            }
        }
    }

    fn read_status(&mut self, name: &Arc<str>) {
        let Some(node) = name.strip_suffix(".yaml").filter(|node| *node != &*self.node) else { return };
        let path = self.folder.join(status::FOLDER).join(&**name);
        match Stamp::read(&path) {
            Ok((text, stamp)) => {
                self.status_stamps.insert(name.clone(), stamp);
                match PodStatus::parse(node.into(), &text) {
                    Ok(status) => self.view.put_other(name, Some(status)),
                    Err(complaint) => {
                        warn!(file = %path.display(), %complaint, "cannot use what a node says of its pods");
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.status_stamps.remove(name);
                self.view.put_other(name, None);
            }
            Err(error) => warn!(file = %path.display(), %error, "cannot read what a node says of its pods"),
        }
    }

    /// Reads what differs from what was read, in both folders.
    fn rescan(&mut self, nodes: &Path) {
        match changed_files(&self.folder, &self.stamps) {
            Ok(names) => names.iter().for_each(|name| self.read_manifest(name)),
            Err(error) => error!(
                folder = %self.folder.display(), %error,
                "cannot list the folder of manifests; what it said stays in force"
            ),
        }
        match changed_files(nodes, &self.status_stamps) {
            Ok(names) => names.iter().for_each(|name| self.read_status(name)),
            // No node has anything to say.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.status_stamps.is_empty() => {}
            Err(error) => {
                warn!(folder = %nodes.display(), %error, "cannot list what nodes say of their pods");
            }
        }
    }

    /// Tells the other nodes of this node's pods, if that has changed.
    fn publish(&mut self, nodes: &Path) {
        let Some(records) = &self.records else { return };
        let status = PodStatus { node: self.node.clone(), pods: records.clone() };
        let path = nodes.join(format!("{}.yaml", self.node));
        let text = match status.render() {
            Ok(text) => text,
            Err(error) => return error!(%error, "cannot write this node's pod status"),
        };
        if self.published.as_ref() == Some(&text) {
            return;
        }
        // Unchanged since an earlier run: the other nodes need not look again.
        let same = fs::read_to_string(&path).is_ok_and(|held| held == text);
        match if same { Ok(()) } else { write_atomically(&path, &text) } {
            Ok(()) => self.published = Some(text),
            Err(error) => error!(file = %path.display(), %error, "cannot write this node's pod status"),
        }
    }

    fn faults(&self) -> usize {
        self.view.bad_files() + self.unreadable.len()
    }

    fn tell(&mut self) {
        for note in self.view.take_notes() {
            match note {
                Note::Ignored { .. } => debug!("{note}"),
                Note::Bad { .. } | Note::Duplicate { .. } => error!("{note}"),
                Note::NoAddress { .. } => warn!("{note}"),
                Note::Kept { .. } => info!("{note}"),
            }
        }
    }
}

/// What to read.
#[derive(Debug, Default)]
struct Batch {
    /// When the first notice came.
    since: Option<Instant>,
    paths: BTreeSet<PathBuf>,
    rescan: bool,
}

/// The manifests in a folder that differ from what was read, and those that were read and are gone.
fn changed_files(folder: &Path, stamps: &BTreeMap<Arc<str>, Stamp>) -> io::Result<Vec<Arc<str>>> {
    let mut changed = Vec::new();
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| is_manifest(name)) else { continue };
        let name: Arc<str> = name.into();
        let stamp = Stamp::of(&folder.join(&*name)).ok();
        if stamp.is_none() || stamps.get(&name) != stamp.as_ref() {
            changed.push(name.clone());
        }
        there.insert(name);
    }
    changed.extend(stamps.keys().filter(|name| !there.contains(*name)).cloned());
    Ok(changed)
}
