//! One domain's file, followed as it changes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;

use super::FileZone;
use crate::{ConfigError, ZoneFile, master, name::WireName};

/// The domain of a file, as it was last read.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    origin: WireName,
    reload: Option<Duration>,
    /// None where there was no file yet.
    pub(super) zone: ArcSwapOption<FileZone>,
    /// What the files were like when they were last looked into, with those that it includes.
    looks: Mutex<Vec<(PathBuf, Look)>>,
}

/// What a file is like from outside; none where it is not there.
type Look = Option<(SystemTime, u64, u64)>;

fn look(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Why a file was not read.
#[derive(Debug)]
enum Failure {
    /// It is not there, or cannot be opened.
    Io(io::Error),
    /// It says what cannot be.
    Wrong(master::MasterError),
}

impl Kept {
    /// Reads the file; one that is not there may come later.
    pub(super) fn new(config: &ZoneFile, origin: &WireName) -> Result<Self, ConfigError> {
        let kept = Self {
            file: config.file.clone(),
            origin: origin.clone(),
            reload: config.reload.filter(|time| !time.is_zero()),
            zone: ArcSwapOption::empty(),
            looks: Mutex::default(),
        };
        let unread = |source| ConfigError::File { file: config.file.clone(), source };
        match kept.read() {
            Ok(zone) => kept.zone.store(Some(Arc::new(zone))),
            Err(Failure::Wrong(error)) => return Err(ConfigError::Master(Box::new(error))),
            Err(Failure::Io(error)) if kept.reload.is_none() => return Err(unread(error)),
            Err(Failure::Io(error)) => {
                tracing::warn!(file = %kept.file.display(), zone = %kept.origin, %error, "no file of the zone yet");
            }
        }
        Ok(kept)
    }

    fn read(&self) -> Result<FileZone, Failure> {
        let mut looks = vec![(self.file.clone(), look(&self.file))];
        let mut load = |path: &Path| {
            looks.push((path.to_owned(), look(path)));
            std::fs::read(path)
        };
        let text = std::fs::read(&self.file).map_err(Failure::Io);
        let read = text.and_then(|text| {
            let records = master::read(&text, &self.file, &self.origin, &mut load).map_err(Failure::Wrong)?;
            FileZone::new(&self.origin, &self.file, records).map_err(Failure::Wrong)
        });
        *self.looks.lock().unwrap_or_else(PoisonError::into_inner) = looks;
        read
    }

    /// Reads the file again where it has changed.
    fn refresh(&self) {
        let has_changed = {
            let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.iter().any(|(path, seen)| look(path) != *seen)
        };
        if !has_changed {
            return;
        }
        match self.read() {
            Ok(zone) => {
                let old = self.zone.load();
                let is_same = old.as_ref().is_some_and(|old| old.serial == zone.serial);
                tracing::info!(
                    file = %self.file.display(), zone = %self.origin, serial = zone.serial, is_same,
                    "the zone's file was read"
                );
                self.zone.store(Some(Arc::new(zone)));
            }
            Err(Failure::Wrong(error)) => {
                tracing::error!(zone = %self.origin, %error, "the zone's file is not used, what was there stays");
            }
            Err(Failure::Io(error)) => {
                let file = self.file.display();
                tracing::error!(%file, zone = %self.origin, %error, "the zone's file cannot be read, what was there stays");
            }
        }
    }

    /// Keeps up with the file, for ever.
    pub(super) async fn watch(&self) {
        let Some(every) = self.reload else { return std::future::pending().await };
        let mut tick = tokio::time::interval(every);
        loop {
            tick.tick().await;
            self.refresh();
        }
    }
}
