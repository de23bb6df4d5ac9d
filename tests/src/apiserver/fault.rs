//! What is wrong with the server at present: set by tests, looked at by lists and watches.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::Resource;
use super::answer::Refusal;

/// What a server does and does not do. Changes take effect on streams that are running, too.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Watches may begin with all objects (`sendInitialEvents`), as servers since 1.32 can.
    pub streaming_lists: bool,
    /// Whether the storage can say how far a watch is. The real server's cannot if it is an etcd before 3.4.25; a watch
    /// that is to begin with all objects then begins with an error.
    pub watch_progress: bool,
    /// How often a watch that wants bookmarks gets one.
    pub bookmarks: Option<Duration>,
    /// How long a stream takes over each event.
    pub slowness: Duration,
    /// Kinds, by plural, whose streams stay open and say nothing, not even bookmarks. `*` stands for all.
    pub silent: BTreeSet<String>,
    /// Kinds, by plural, that this server does not know.
    pub unknown: BTreeSet<String>,
    /// Every request waits this long for its answer.
    pub delay: Duration,
    /// So many times, the next page of a list is gone when it is asked for.
    pub pages_expire: usize,
    /// The bearer tokens that are accepted.
    pub tokens: BTreeSet<String>,
    /// Bearer tokens of those who may write anything, as a cluster's administrator.
    pub administrators: BTreeSet<String>,
    /// Whether a client certificate of this server's authority is accepted.
    pub client_certificates: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            streaming_lists: true,
            watch_progress: true,
            bookmarks: Some(Duration::from_secs(1)),
            slowness: Duration::ZERO,
            silent: BTreeSet::new(),
            unknown: BTreeSet::new(),
            delay: Duration::ZERO,
            pages_expire: 0,
            tokens: BTreeSet::from([TOKEN.to_owned()]),
            administrators: BTreeSet::new(),
            client_certificates: true,
        }
    }
}

/// The token that a new server accepts.
pub const TOKEN: &str = "first-token";

impl Behaviour {
    pub(super) fn is_silent(&self, resource: &Resource) -> bool {
        self.silent.contains("*") || self.silent.contains(resource.plural)
    }
}

/// What running streams are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Break off within an object.
    Cut,
    /// End as a server does after some minutes.
    End,
    /// Say that the version is gone.
    Gone,
    /// Stay open and say nothing any more; streams that begin later are as usual.
    Silence,
}

/// Requests that are refused, whatever they want.
#[derive(Debug, Clone)]
struct Refused {
    kind: String,
    refusal: Refusal,
    left: usize,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Faults {
    behaviour: watch::Sender<Behaviour>,
    refused: Mutex<Vec<Refused>>,
    blows: broadcast::Sender<(String, Blow)>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            behaviour: watch::channel(Behaviour::default()).0,
            refused: Mutex::default(),
            blows: broadcast::channel(64).0,
        }
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        self.behaviour.borrow().clone()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    pub(super) fn follow(&self) -> watch::Receiver<Behaviour> {
        self.behaviour.subscribe()
    }

    pub(super) fn blows(&self) -> broadcast::Receiver<(String, Blow)> {
        self.blows.subscribe()
    }

    /// Whether a page of a list is to be gone, once more.
    pub(super) fn page_expires(&self) -> bool {
        let left = |behaviour: &mut Behaviour| {
            let any = behaviour.pages_expire > 0;
            behaviour.pages_expire -= usize::from(any);
            any
        };
        self.behaviour.send_if_modified(left)
    }

    /// Hits the streams that are running; `kind` is a plural, or `*`.
    pub(super) fn hit(&self, kind: &str, blow: Blow) {
        // Nobody may be watching.
        let _unheard = self.blows.send((kind.to_owned(), blow));
    }

    fn refused(&self) -> MutexGuard<'_, Vec<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` requests for a kind (`*`: for anything) are refused.
    pub(super) fn refuse(&self, kind: &str, code: u16, retry_after: Option<u32>, count: usize) {
        let refusal = Refusal::of(code, retry_after);
        self.refused().push(Refused { kind: kind.to_owned(), refusal, left: count });
    }

    /// Whether a request is to be refused.
    pub(super) fn refusal(&self, plural: &str) -> Option<Refusal> {
        let mut refused = self.refused();
        let at = refused.iter().position(|one| one.left > 0 && (one.kind == "*" || one.kind == plural))?;
        refused[at].left -= 1;
        Some(refused[at].refusal.clone())
    }
}
