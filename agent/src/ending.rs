//! What tells the agent to end.

use std::{fs, path::PathBuf, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often a file that is followed is read.
const FOLLOWED_EVERY: Duration = Duration::from_secs(2);

/// Waits until something else stands in a file. For a moment it may not be there: it is being replaced.
pub async fn another_text(followed: Option<(PathBuf, String)>) -> PathBuf {
    let Some((path, text)) = followed else { return std::future::pending().await };
    loop {
        tokio::time::sleep(FOLLOWED_EVERY).await;
        if fs::read_to_string(&path).is_ok_and(|now| now != text) {
            return path;
        }
    }
}

/// The signals to end.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
