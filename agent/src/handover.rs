//! One agent hands the node over to the next, so that DNS is never without a server.
//!
//! ```text
//!  the one that was told to end                     the one that begins
//!  /ready says 503, all else goes on
//!  waits at <stateDir>/handover.sock  ◀── connects ── finds the lock held
//!  ends its loop, frees ports and lock ─────────────▶ takes the lock, and what is pinned
//!  answers on, with what it knows                     binds the DNS addresses beside
//!  ends once it has answered what came ◀── a byte ─── serves
//! ```
//!
//! An agent that was not told to end waits for nobody: a second one is a mistake, and is told so; unless it was started to
//! be there when the first is told to end, as in a rolling update, and waits for that (`handoverWait`).

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{fs::PermissionsExt, net::UnixStream as StdStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::lock::{self, AgentLock, LockError};

/// The socket in the state folder.
const SOCKET: &str = "handover.sock";
/// How long an agent that was not told to end is waited for, where nothing else is set: it may be at its end.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How long one that hands over is waited for.
const HANDOVER: Duration = Duration::from_secs(30);
/// How often the lock is tried.
const STEP: Duration = Duration::from_millis(10);
/// The same, of an agent that may have to wait for long.
const LONG_STEP: Duration = Duration::from_millis(100);

/// Where an agent that was told to end waits for its successor.
#[derive(Debug)]
pub struct Waiting {
    listener: UnixListener,
    path: PathBuf,
}

/// The successor, from the other's point of view.
#[derive(Debug)]
pub struct Successor(UnixStream);

impl Waiting {
    /// Takes the place. Needs a tokio runtime.
    pub fn new(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SOCKET);
        // What lies there is a dead one's: the lock is ours.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Waits until a successor is there.
    pub async fn successor(&self) -> io::Result<Successor> {
        self.listener.accept().await.map(|(stream, _)| Successor(stream))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // The next one removes it if we cannot.
        let _ = fs::remove_file(&self.path);
    }
}

impl Successor {
    /// Waits until it serves; false where it has gone, or takes too long.
    pub async fn serves(self) -> bool {
        let said = tokio::time::timeout(HANDOVER, async {
            let mut byte = [0];
            loop {
                self.0.readable().await?;
                match self.0.try_read(&mut byte) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            }
        });
        matches!(said.await, Ok(Ok(1)))
    }
}

/// The one before, which answers DNS until it is told that this agent does.
#[derive(Debug)]
pub struct Predecessor(StdStream);

impl Predecessor {
    /// Tells it that this agent serves.
    pub fn relieve(mut self) {
        match self.0.write_all(&[1]) {
            Ok(()) => info!("the agent before may end"),
            // It may have ended: its time is limited.
            Err(error) => warn!(%error, "the agent before was not told that this one serves"),
        }
    }
}

/// Takes the lock, from an agent that hands over if there is one. One that was not told to end is waited for so long.
pub fn take_lock(
    state_dir: &Path,
    patience: Duration,
) -> Result<(AgentLock, Option<Predecessor>), LockError> {
    let mut start = Instant::now();
    let mut predecessor: Option<Predecessor> = None;
    let mut told = false;
    loop {
        match lock::lock(state_dir) {
            Ok(lock) => return Ok((lock, predecessor)),
            Err(LockError::Held(path)) => {
                if predecessor.is_none()
                    && let Ok(stream) = StdStream::connect(state_dir.join(SOCKET))
                {
                    info!("taking over from the agent before");
                    predecessor = Some(Predecessor(stream));
                    start = Instant::now();
                }
                let limit = if predecessor.is_some() { HANDOVER } else { patience };
                if start.elapsed() > limit {
                    return Err(LockError::Held(path));
                }
                if predecessor.is_none() && start.elapsed() > PATIENCE {
                    if !std::mem::replace(&mut told, true) {
                        info!("waiting for the agent that runs on this node to be told to end");
                    }
                    thread::sleep(LONG_STEP);
                } else {
                    thread::sleep(STEP);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_goes_from_one_agent_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().to_owned();
        let (held, nobody) = take_lock(&state, PATIENCE).unwrap();
        assert!(nobody.is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let path = state.clone();
        let next = thread::spawn(move || {
            let (lock, predecessor) = take_lock(&path, Duration::from_secs(60)).unwrap();
            predecessor.unwrap().relieve();
            lock
        });
        // It is there before the first is told to end, and waits.
        thread::sleep(PATIENCE + STEP);
        let waiting = Waiting::new(&state).unwrap();
        let successor = runtime.block_on(waiting.successor()).unwrap();
        drop(held);
        assert!(runtime.block_on(successor.serves()));
        drop(waiting);
        drop(next.join().unwrap());
        assert!(fs::read_dir(&state).unwrap().all(|entry| entry.unwrap().file_name() != SOCKET));
    }

    #[test]
    fn a_successor_that_dies_is_noticed_and_an_agent_that_stays_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let _held = take_lock(folder.path(), PATIENCE).unwrap();
        assert!(matches!(take_lock(folder.path(), PATIENCE), Err(LockError::Held(_))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        fs::write(folder.path().join(SOCKET), "left by one that was killed").unwrap();
        let waiting = Waiting::new(folder.path()).unwrap();
        drop(StdStream::connect(folder.path().join(SOCKET)).unwrap());
        let successor = runtime.block_on(waiting.successor()).unwrap();
        assert!(!runtime.block_on(successor.serves()));
    }
}
