//! Whether questions to an upstream come back to this server, as those to a resolver of the node do that was told to use the
//! cluster's DNS: CoreDNS's `loop`.
//!
//! An upstream is asked for a name that nobody knows. Where that question comes to us, so do all others, each of which waits for
//! itself until its time is up. CoreDNS ends then; we go on, for the cluster's names do not need the upstream, and ask others
//! before it, if there are any.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::{
    message::Question,
    name::{WireName, push_label},
    query::QueryName,
    wire::{CLASS_IN, rtype},
};

/// When an upstream is looked at again that did not answer, or led to a loop.
const AGAIN: Duration = Duration::from_secs(30);

/// What is known of an upstream.
#[derive(Debug)]
pub(crate) struct LoopCheck {
    state: Mutex<State>,
    is_looping: AtomicBool,
    shown: IntGauge,
}

#[derive(Debug)]
struct State {
    /// What it was asked for last.
    name: Vec<u8>,
    /// That has come to us.
    came_back: bool,
    /// When it is asked, if it is.
    due: Option<Instant>,
}

impl LoopCheck {
    /// Nothing is known yet. `shown`: 1 while there is a loop.
    pub(crate) fn new(shown: IntGauge) -> Self {
        let state = State { name: Vec::new(), came_back: false, due: Some(Instant::now()) };
        Self { state: Mutex::new(state), is_looping: AtomicBool::new(false), shown }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what it is asked comes back to us.
    pub(crate) fn is_looping(&self) -> bool {
        self.is_looping.load(Ordering::Relaxed)
    }

    /// What to ask now, a name within this domain, if it is time.
    pub(crate) fn question(&self, zone: &WireName) -> Option<Question> {
        let mut state = self.state();
        state.due = match state.due {
            Some(due) if due <= Instant::now() => Some(Instant::now() + AGAIN),
            _ => return None,
        };
        state.came_back = false;
        state.name.clear();
        for number in rand::random::<[u64; 2]>() {
            push_label(&mut state.name, number.to_string().as_bytes());
        }
        state.name.extend(zone.as_bytes());
        let fixed = [rtype::HINFO, CLASS_IN].map(u16::to_be_bytes);
        Some(Question {
            wire: [&state.name[..], fixed.as_flattened()].concat().into(),
            dnssec_ok: false,
            checking_disabled: false,
            recursion: true,
            options: Box::default(),
        })
    }

    /// Takes note of a question that came to us; whether it is the one.
    pub(crate) fn came(&self, name: &QueryName) -> bool {
        let mut state = self.state();
        let is_it = state.name == name.as_bytes();
        state.came_back |= is_it;
        is_it
    }

    /// The question was answered, or was not; tells what follows from it.
    pub(crate) fn done(&self, upstream: SocketAddr, is_answered: bool) {
        let is_looping = {
            let mut state = self.state();
            if is_answered && !state.came_back {
                state.due = None;
            }
            state.came_back
        };
        let before = self.is_looping.swap(is_looping, Ordering::Relaxed);
        self.shown.set(is_looping.into());
        if is_looping && !before {
            tracing::error!(
                %upstream,
                "questions to this upstream DNS server come back to this server: a loop. Name others, or the file that the \
                 upstream has them from: for systemd-resolved /run/systemd/resolve/resolv.conf"
            );
        } else if before && !is_looping {
            tracing::info!(%upstream, "questions to this upstream DNS server no longer come back");
        }
    }
}
