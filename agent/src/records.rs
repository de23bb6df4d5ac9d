//! Watches the plugin's records: which pods are attached to this node.

use std::{
    io,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, CreateKind},
};
use sluice_cni::store::{self, Attachment, State, StoreError};
use sluice_model::ObjectName;
use tracing::{error, warn};

use crate::folder::PodAddresses;

/// How long to wait for more of the same burst.
const DEBOUNCE: Duration = Duration::from_millis(1);
/// How long a burst may hold up its first change.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(10);
/// How often the records are read without a notice.
const RESCAN: Duration = Duration::from_secs(2);
/// When they are read again after a folder has been made, whose first files may have gone unnoticed.
const AFTER_NEW_FOLDER: Duration = Duration::from_millis(20);

/// Records that cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The plugin's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The notices.
    #[error("cannot watch {folder}: {source}")]
    Watch {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// The thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// Sends the attachments of this node now, and whenever they change, until `send` says that nobody listens.
pub fn watch(
    state_dir: PathBuf,
    send: impl Fn(Vec<Attachment>) -> bool + Send + 'static,
) -> Result<(), RecordsError> {
    let folder = store::directory(&state_dir)?;
    let (sender, notices) = mpsc::channel();
    let handler = move |result: notify::Result<Event>| {
        let relevant = match result {
            Ok(event) if matches!(event.kind, EventKind::Access(AccessKind::Open(_) | AccessKind::Read)) => {
                return;
            }
            Ok(event) => matches!(event.kind, EventKind::Create(CreateKind::Folder)),
            Err(_) => true,
        };
        // The thread has ended: there is nobody to tell.
        let _ = sender.send(relevant);
    };
    let failed = |source| RecordsError::Watch { folder: folder.clone(), source };
    let mut watcher = notify::recommended_watcher(handler).map_err(failed)?;
    watcher.watch(&folder, RecursiveMode::Recursive).map_err(failed)?;
    thread::Builder::new().name("records".into()).spawn(move || {
        let _watcher = watcher;
        let mut held: Option<Vec<Attachment>> = None;
        let mut damaged = Vec::new();
        loop {
            match read(&state_dir, &mut damaged) {
                Ok(attachments) if held.as_ref() != Some(&attachments) => {
                    if !send(attachments.clone()) {
                        return;
                    }
                    held = Some(attachments);
                }
                Ok(_) => {}
                Err(error) => error!(%error, "cannot read the plugin's records; what is known of pods stays"),
            }
            if !wait(&notices) {
                return;
            }
        }
    })?;
    Ok(())
}

/// Waits for a change; false if there can be none any more.
fn wait(notices: &mpsc::Receiver<bool>) -> bool {
    let mut new_folder = match notices.recv_timeout(RESCAN) {
        Ok(new_folder) => new_folder,
        Err(mpsc::RecvTimeoutError::Timeout) => return true,
        Err(mpsc::RecvTimeoutError::Disconnected) => return false,
    };
    let limit = Instant::now() + LONGEST_DEBOUNCE;
    while let Ok(more) = notices.recv_timeout(DEBOUNCE.min(limit.saturating_duration_since(Instant::now()))) {
        new_folder |= more;
    }
    if new_folder {
        thread::sleep(AFTER_NEW_FOLDER);
    }
    true
}

fn read(state_dir: &std::path::Path, damaged: &mut Vec<String>) -> Result<Vec<Attachment>, StoreError> {
    let mut listing = store::list(state_dir)?;
    let said: Vec<String> = listing.damaged.iter().map(ToString::to_string).collect();
    for error in said.iter().filter(|error| !damaged.contains(error)) {
        warn!("{error}");
    }
    *damaged = said;
    listing.attachments.sort_by(|a, b| (&a.container_id, &a.ifname).cmp(&(&b.container_id, &b.ifname)));
    Ok(listing.attachments)
}

/// The addresses of the pods that are attached, by the names that the runtime gave. Of two attachments of a pod
/// (a second interface, or one that is being taken apart beside its successor) the first complete one that
/// is called as a pod's main interface is counts.
pub fn pod_addresses(attachments: &[Attachment]) -> PodAddresses {
    let mut pods = PodAddresses::new();
    let ready = attachments.iter().filter(|attachment| attachment.state == State::Ready);
    let (main, others): (Vec<_>, Vec<_>) = ready.partition(|attachment| attachment.ifname == "eth0");
    for attachment in main.into_iter().chain(others) {
        let Some(pod) = &attachment.pod else { continue };
        let name = ObjectName::new(pod.namespace.as_str(), pod.name.as_str());
        pods.entry(name).or_insert_with(|| attachment.addresses.iter().map(ipnet::IpNet::addr).collect());
    }
    pods
}
