//! Watches: a task for each writes events into a channel that is the answer's body, until somebody ends it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::Refusal;
use super::fault::{Behaviour, Blow};
use super::object::{Object, Selection};
use super::request::Options;
use super::store::Change;
use super::{Open, Resource, Shared};

/// The annotation of the bookmark that ends the objects which were there at the start.
const INITIAL_EVENTS_END: &str = r#","annotations":{"k8s.io/initial-events-end":"true"}"#;
/// A time that does not come.
const NEVER: Duration = Duration::from_secs(86_400);

type Piece = Result<String, io::Error>;

/// What ended a stream.
enum End {
    /// The client went, or the server wants it so.
    Over,
    /// With an error of the protocol below.
    Broken,
}

struct Stream {
    shared: Arc<Shared>,
    resource: &'static Resource,
    selection: Selection,
    pieces: mpsc::Sender<Piece>,
    /// The version that the client knows.
    known: u64,
    /// Events of the start that are not sent yet.
    initial: VecDeque<Arc<Object>>,
    /// Whether the bookmark that ends them is to be sent.
    announce: bool,
    bookmarks: bool,
    /// Nothing will be said any more.
    silenced: bool,
}

/// The body of a watch's answer. A version that is gone is told in the stream, as the real server does.
pub(super) fn body(shared: &Arc<Shared>, resource: &'static Resource, options: Options, open: Open) -> Body {
    let (pieces, mut receiver) = mpsc::channel(1);
    let (objects, now) = shared.store.objects(resource);
    let gone = options.version.filter(|&version| version != 0 && !options.initial_events);
    let gone = gone.and_then(|version| Some((version, shared.store.knows(version).err()?)));
    let from_now = options.initial_events || options.version.is_none_or(|version| version == 0);
    let initial = if from_now {
        objects.values().filter(|object| object.is_selected(&options.selection)).cloned().collect()
    } else {
        VecDeque::new()
    };
    let stream = Stream {
        shared: shared.clone(),
        resource,
        selection: options.selection,
        pieces,
        known: if from_now { now } else { options.version.unwrap_or(now) },
        initial,
        announce: options.initial_events && options.bookmarks,
        bookmarks: options.bookmarks,
        silenced: false,
    };
    let refusal = match gone {
        Some((version, forgotten)) => Some(Refusal::expired(version, forgotten.oldest)),
        None if stream.announce && !shared.faults.behaviour().watch_progress => Some(Refusal::new(
            500,
            "InternalError",
            "a watch stream was requested by the client but the required storage feature RequestWatchProgress is \
             disabled",
        )),
        None => None,
    };
    if let Some(refusal) = refusal {
        return Body::from(format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", refusal.status()));
    }
    let timeout = options.timeout.unwrap_or(NEVER);
    tokio::spawn(async move {
        let pieces = stream.pieces.clone();
        if let Ok(Err(End::Broken)) = tokio::time::timeout(timeout, stream.run()).await {
            let cut = io::Error::new(io::ErrorKind::ConnectionReset, "as the test asked for");
            // The client may have gone by itself.
            let _gone = pieces.send(Err(cut)).await;
        }
        drop(open);
    });
    Body::from_stream(poll_fn(move |context| receiver.poll_recv(context)))
}

impl Stream {
    async fn run(mut self) -> Result<Infallible, End> {
        let mut changes = self.shared.store.subscribe();
        let mut behaviours = self.shared.faults.follow();
        let mut blows = self.shared.faults.blows();
        let closed = self.pieces.clone();
        let mut bookmarked = Instant::now();
        loop {
            let behaviour = behaviours.borrow_and_update().clone();
            let silent = self.silenced || behaviour.is_silent(self.resource);
            changes.mark_unchanged();
            if !silent && self.next(&behaviour).await? {
                // One event at a time: a fault that is set meanwhile strikes between two.
                if let Ok((kind, blow)) = blows.try_recv() {
                    self.strike(&kind, blow).await?;
                }
                continue;
            }
            let pause = behaviour.bookmarks.filter(|_| self.bookmarks && !silent).unwrap_or(NEVER);
            tokio::select! {
                _ = changes.changed() => {}
                _ = behaviours.changed() => {}
                blow = blows.recv() => if let Ok((kind, blow)) = blow {
                    self.strike(&kind, blow).await?;
                },
                () = closed.closed() => return Err(End::Over),
                () = sleep_until(bookmarked + pause) => {
                    self.bookmark("").await?;
                    bookmarked = Instant::now();
                }
            }
        }
    }

    /// Sends what is next; false if there is nothing.
    async fn next(&mut self, behaviour: &Behaviour) -> Result<bool, End> {
        if let Some(object) = self.initial.pop_front() {
            pace(behaviour.slowness).await;
            self.event("ADDED", &object).await?;
            return Ok(true);
        }
        if std::mem::take(&mut self.announce) {
            self.bookmark(INITIAL_EVENTS_END).await?;
            return Ok(true);
        }
        match self.shared.store.since(self.resource, self.known) {
            Ok((changes, now)) => {
                let any = !changes.is_empty();
                for change in changes {
                    self.change(&change, behaviour.slowness).await?;
                }
                self.known = now;
                Ok(any)
            }
            Err(forgotten) => {
                self.error(&Refusal::expired(self.known, forgotten.oldest)).await?;
                Err(End::Over)
            }
        }
    }

    /// What a change is to someone who sees only the selected objects.
    async fn change(&self, change: &Change, slowness: Duration) -> Result<(), End> {
        let before = change.before.as_ref().filter(|object| object.is_selected(&self.selection));
        let after = change.after.as_ref().filter(|object| object.is_selected(&self.selection));
        if before.is_some() || after.is_some() {
            pace(slowness).await;
        }
        match (before, after) {
            (None, None) => Ok(()),
            (None, Some(object)) => self.event("ADDED", object).await,
            (Some(_), Some(object)) => self.event("MODIFIED", object).await,
            (Some(object), None) => self.event("DELETED", &object.at(self.resource, change.version)).await,
        }
    }

    async fn strike(&mut self, kind: &str, blow: Blow) -> Result<(), End> {
        if kind != "*" && kind != self.resource.plural {
            return Ok(());
        }
        match blow {
            Blow::End => Err(End::Over),
            Blow::Silence => {
                self.silenced = true;
                Ok(())
            }
            Blow::Gone => {
                self.error(&Refusal::expired(self.known, self.known + 1)).await?;
                Err(End::Over)
            }
            Blow::Cut => {
                let half =
                    format!(r#"{{"type":"MODIFIED","object":{{"kind":"{}","metada"#, self.resource.kind);
                self.send(half).await?;
                // What was handed over is on the wire before the connection breaks.
                sleep(Duration::from_millis(20)).await;
                Err(End::Broken)
            }
        }
    }

    async fn event(&self, kind: &str, object: &Object) -> Result<(), End> {
        let object = object.whole(self.resource);
        self.send(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")).await
    }

    async fn error(&self, refusal: &Refusal) -> Result<(), End> {
        self.send(format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", refusal.status())).await
    }

    async fn bookmark(&self, annotations: &str) -> Result<(), End> {
        let Resource { kind, .. } = self.resource;
        let (api_version, version) = (self.resource.api_version(), self.known);
        self.send(format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\
             \"metadata\":{{\"resourceVersion\":\"{version}\",\"creationTimestamp\":null{annotations}}},\
             \"spec\":{{}}}}}}\n"
        ))
        .await
    }

    async fn send(&self, piece: String) -> Result<(), End> {
        self.pieces.send(Ok(piece)).await.map_err(|_| End::Over)
    }
}

/// Waits between two events. Not at all is not a wait for nothing, which lasts until the timer's next tick: a
/// millisecond for each of a hundred thousand objects.
async fn pace(slowness: Duration) {
    if !slowness.is_zero() {
        sleep(slowness).await;
    }
}
