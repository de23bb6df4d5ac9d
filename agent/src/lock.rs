//! One agent for each node: two would undo each other's work.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The file in the state folder that the running agent holds.
const FILE: &str = "agent.lock";

/// Held while the agent runs; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

/// The lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another agent of this node is running: it holds {0}")]
    Held(PathBuf),
    /// The file.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Takes the lock.
pub fn lock(state_dir: &Path) -> Result<AgentLock, LockError> {
    let path = state_dir.join(FILE);
    let opened = fs::create_dir_all(state_dir).and_then(|()| File::create(&path));
    let file = opened.map_err(|source| LockError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(AgentLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LockError::Held(path)),
        Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_agent_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let held = lock(&state).unwrap();
        let said = lock(&state).unwrap_err().to_string();
        assert!(said.contains("another agent") && said.contains("agent.lock"), "{said}");
        drop(held);
        assert!(lock(&state).is_ok());
    }
}
