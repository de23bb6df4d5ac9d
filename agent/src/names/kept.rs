//! The zone in the state folder: written now and then, read at the start.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use sluice_dns::{Publisher, Saved};
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::{error, warn};

use crate::folder::write_atomically;

/// The file in the state folder.
pub(super) const FILE: &str = "dns-zone.json";
/// How often it is written at most.
const PERIOD: Duration = Duration::from_secs(30);

/// The file of the zone.
#[derive(Debug)]
pub(super) struct KeptZone {
    path: PathBuf,
    /// When which zone, by its serial, was written last.
    last: Option<(Instant, u32)>,
    writing: Option<JoinHandle<()>>,
}

impl KeptZone {
    pub(super) fn new(state_dir: &std::path::Path) -> Self {
        Self { path: state_dir.join(FILE), last: None, writing: None }
    }

    /// What an earlier agent has written, if it is of any use.
    pub(super) fn read(&self) -> Option<Saved> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(file = %self.path.display(), %error, "cannot read the zone of before; starting without");
                return None;
            }
        };
        let read = Saved::read(&bytes);
        read.inspect_err(|error| {
            let error = crate::failure::Chain(error);
            warn!(file = %self.path.display(), %error, "the zone of before is of no use; starting without");
        })
        .ok()
    }

    /// Writes what is published, if it is time and there is news. `clients`: who is answered.
    pub(super) fn keep(&mut self, runtime: &Handle, publisher: &Publisher, clients: &[IpNet]) {
        let Some(serial) = publisher.serial() else { return };
        let is_due = self.last.is_none_or(|(at, written)| written != serial && at.elapsed() >= PERIOD);
        if !is_due || self.writing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.last = Some((Instant::now(), serial));
        let (path, publisher, clients) = (self.path.clone(), publisher.clone(), clients.to_vec());
        self.writing = Some(runtime.spawn_blocking(move || write(&path, &publisher, &clients)));
    }

    /// Writes what is published if there is news, and returns when it is written.
    pub(super) fn finish(&mut self, runtime: &Handle, publisher: &Publisher, clients: &[IpNet]) {
        if let Some(writing) = self.writing.take() {
            // Its failure was told.
            let _ = runtime.block_on(writing);
        }
        let serial = publisher.serial();
        if serial.is_some() && self.last.map(|(_, written)| written) != serial {
            write(&self.path, publisher, clients);
        }
    }
}

fn write(path: &std::path::Path, publisher: &Publisher, clients: &[IpNet]) {
    let Some(saved) = publisher.save(clients) else { return };
    if let Err(error) = write_atomically(path, &saved.write()) {
        error!(file = %path.display(), %error, "the zone is not kept for a later start");
    }
}
