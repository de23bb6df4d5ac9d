//! Locks on files, with an end to the waiting.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use super::{Result, StoreError, failed};

/// How long to wait for another process that holds a lock.
pub(super) const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// Locks a file, waiting for another process at most [`LOCK_LIMIT`]. Returns the file's inode.
pub(super) fn lock(file: &File, path: &Path) -> Result<u64> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        Err(TryLockError::WouldBlock) => wait_for_lock(file, path)?,
    }
    Ok(file.metadata().map_err(failed("look at", path))?.ino())
}

/// The kernel's wait for a lock has no limit, so a thread does the waiting. Should it come too late, the lock is
/// taken by a descriptor that goes with this process, which is about to end in an error.
fn wait_for_lock(file: &File, path: &Path) -> Result<()> {
    let waiter = file.try_clone().map_err(failed("lock", path))?;
    let (done, result) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("lock".to_owned())
        .spawn(move || done.send(waiter.lock()))
        .map_err(failed("lock", path))?;
    match result.recv_timeout(LOCK_LIMIT) {
        Ok(locked) => locked.map_err(failed("lock", path)),
        Err(_) => Err(StoreError::Busy { path: path.to_owned() }),
    }
}
