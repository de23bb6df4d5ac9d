//! One kind of objects, listed and watched for as long as the agent runs.
//!
//! ```text
//!            ┌────────────── 410, or the server was away for long ─────────────┐
//!            ▼                                                                 │
//!        list as a stream ──(server does not know how)──▶ list in pages ──▶ watch ⟲ ended, lost, silent
//! ```
//!
//! kube's own `runtime::watcher` was weighed and left: one object that cannot be read costs it the whole page or
//! watch, it falls back from a streamed list to pages only if it is told to, and it neither tries several servers nor
//! says when the server was last heard of. What it has beyond that is this loop.

mod take;
mod tell;

use std::{future::pending, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::debug;

use super::{
    backoff::Backoff,
    contact::Contacts,
    error::FeedError,
    hub::{Hub, Report},
    kind::Kind,
    known::Known,
    selection::{Selection, Selector},
    servers::{Server, Servers},
    timing::Timing,
};

/// One kind of objects.
pub(super) struct Feed {
    /// The kind.
    pub(super) kind: Kind,
    /// Which of its objects; may change.
    pub(super) selection: watch::Receiver<Selection>,
    /// The servers.
    pub(super) servers: Arc<Servers>,
    /// Where everything goes.
    pub(super) hub: Arc<Hub>,
    /// What is told of it.
    pub(super) contacts: Arc<Contacts>,
    /// How long things may take.
    pub(super) timing: Timing,
}

/// Where it stands.
struct State {
    known: Known,
    selector: Selector,
    /// Which of the kind's paths is asked.
    path: usize,
    /// The version to go on from; `None` if there must be a list first.
    version: Option<String>,
    /// Lists are taken as streams.
    streaming: bool,
    /// The connection was lost: who knows what the server is now.
    lost: bool,
    failing: bool,
    /// The node does without these objects.
    without: bool,
    /// Since when the server has refused to show these objects.
    refused: Option<Instant>,
    backoff: Backoff,
    heard: Instant,
    told_own_service: bool,
}

/// How a turn ended that did not fail.
enum End {
    /// The server ended the watch, as it does now and then.
    Closed,
    /// Nobody listens any more.
    Unheard,
}

impl Feed {
    /// Runs until nobody listens any more.
    pub(super) async fn run(self) {
        let mut state = State {
            known: Known::new(self.kind),
            selector: Selector::default(),
            path: 0,
            version: None,
            streaming: true,
            lost: false,
            failing: false,
            without: false,
            refused: None,
            backoff: Backoff::new(self.timing.first_wait, self.timing.longest_wait),
            heard: Instant::now(),
            told_own_service: false,
        };
        sleep(self.timing.start_jitter.mul_f64(dice())).await;
        let mut selection = self.selection.clone();
        loop {
            let selected = selection.borrow_and_update().clone();
            tokio::select! {
                () = self.follow(selected, &mut state) => return,
                () = changed(&mut selection) => {}
            }
            // Whatever was under way counts for nothing; the new selection begins with a list.
            state.version = None;
            state.backoff.reset();
        }
    }

    /// Lists and watches what is selected, until nobody listens any more.
    async fn follow(&self, selection: Selection, state: &mut State) {
        state.selector = match selection {
            Selection::Of(selector) => selector,
            Selection::None => {
                state.known.begin_list();
                self.contacts.absent(self.kind);
                let deltas = state.known.end_list();
                self.hub.report(self.kind, Report { deltas, faults: 0, complete: true });
                return pending().await;
            }
        };
        state.known.keep_whole(state.selector.whole);
        loop {
            let (outcome, server) = match self.servers.get().await {
                Ok(server) => (self.turn(&server, state).await, Some(server)),
                Err(error) => (Err(error.into()), None),
            };
            let error = match outcome {
                Ok(End::Closed) => continue,
                Ok(End::Unheard) => return,
                Err(error) => error,
            };
            // Perhaps nothing has ever happened to objects of this kind, and the server has no version to tell; or it
            // is gone. The next connection shows which.
            if error.is_silence() && state.version.is_some() && !std::mem::replace(&mut state.lost, true) {
                debug!(kind = %self.kind, %error, "asking another connection");
                self.contacts.failed(self.kind, error.reason());
                if let Some(server) = server {
                    self.servers.failed(&server).await;
                }
                continue;
            }
            let paths = self.kind.paths().len();
            if error.is_absence() && paths > 1 {
                // An older version, before the kind is given up.
                state.version = None;
                state.path = (state.path + 1) % paths;
                if state.path != 0 {
                    continue;
                }
            }
            if let Some(without) = self.kind.without()
                && self.is_lasting(&error, state)
            {
                if !self.go_without(&error, without, state) {
                    return;
                }
                // A right may be given at any time, and so may a custom kind; others come with another server.
                let is_near = error.is_refusal() || self.kind.is_custom();
                let wait = if is_near { self.timing.longest_wait } else { self.timing.absence };
                sleep(wait.mul_f64(0.5 + dice() / 2.0)).await;
                continue;
            }
            self.tell(&error, server.as_ref(), state);
            if let Some(server) = server.filter(|_| error.is_servers_fault()) {
                self.servers.failed(&server).await;
                state.lost = true;
            }
            if error.needs_list() {
                state.version = None;
                // A server may have learned it since.
                state.streaming = true;
            }
            let wait = state.backoff.failed(dice(), self.servers.count().await);
            sleep(wait.max(error.retry_after().unwrap_or_default())).await;
        }
    }

    /// Whether there is no point in waiting for the objects: the API has no such kind, or has kept it from us for a
    /// while. A server that has just begun refuses what it will allow in a moment.
    fn is_lasting(&self, error: &FeedError, state: &mut State) -> bool {
        if !error.is_refusal() {
            return error.is_absence();
        }
        let since = *state.refused.get_or_insert_with(Instant::now);
        since.elapsed() >= self.timing.refusal
    }

    /// One server, for as long as it goes well.
    async fn turn(&self, server: &Server, state: &mut State) -> Result<End, FeedError> {
        if state.version.is_some() && state.heard.elapsed() > self.timing.memory {
            debug!(kind = %self.kind, "out of touch for long: listing anew");
            state.version = None;
        }
        if let Some(version) = state.version.clone().filter(|_| state.lost) {
            self.compare_history(server, state.path, &state.selector, version).await?;
        }
        state.lost = false;
        if state.version.is_none() {
            if state.streaming {
                match self.watch(server, state, true).await {
                    Err(error) if error.refuses_streaming() => {
                        debug!(kind = %self.kind, %error, "the server does not stream lists");
                        state.streaming = false;
                    }
                    outcome => return outcome,
                }
            }
            if !self.list(server, state).await? {
                return Ok(End::Unheard);
            }
        }
        self.watch(server, state, false).await
    }
}

/// Ends when the selection has changed.
async fn changed(selection: &mut watch::Receiver<Selection>) {
    if selection.changed().await.is_err() {
        // Nobody is left who could change it.
        pending::<()>().await;
    }
}

/// A number between 0 and 1, another one each time.
fn dice() -> f64 {
    rand::random::<f64>()
}
