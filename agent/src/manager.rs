//! What the service manager (systemd) is told, where there is one: that the node serves, what the agent is at, and that its
//! loop still turns.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::debug;

/// Tells the service manager.
fn tell(state: &[NotifyState<'_>]) {
    // One that is not there need not be told.
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "no service manager was told");
    }
}

/// The agent has started, and waits for the cluster.
pub fn waiting() {
    tell(&[NotifyState::Status("waiting until the whole cluster is known")]);
}

/// The node serves.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("the node serves")]);
}

/// The agent is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending; the datapath goes on")]);
}

/// The signs of life that the service manager asks for (`WatchdogSec`).
#[derive(Debug)]
pub struct Watchdog {
    /// How often; `None` if nobody asks.
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// What this process is asked for.
    pub fn new(now: Instant) -> Self {
        // Twice as often as must be.
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), next: now }
    }

    /// A sign of life if it is time for one; gives when it is time for the next.
    pub fn alive(&mut self, now: Instant) -> Option<Instant> {
        let every = self.every?;
        if self.next <= now {
            tell(&[NotifyState::Watchdog]);
            self.next = now + every;
        }
        Some(self.next)
    }
}
