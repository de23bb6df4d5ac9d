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

use std::{future::pending, net::IpAddr, sync::Arc};

use axum::http::Request;
use kube::core::{
    Request as Path,
    params::{ListParams, WatchParams},
};
use sluice_model::Object;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    backoff::Backoff,
    contact::Contacts,
    error::FeedError,
    hub::{Hub, Report},
    kind::Kind,
    known::{Happened, Known},
    servers::{Server, Servers},
    stream::{Body, ReadError},
    timing::Timing,
    wire::{Event, Page},
};
use crate::{failure::Chain, source::Delta};

/// How many objects are in a page of a list: enough that the pages of 50,000 services are a hundred requests, few
/// enough that a page of Nodes, the largest objects, is some megabytes.
const PAGE: u32 = 500;

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

/// Which objects of a kind are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// None: nobody asks for any.
    None,
    /// Those that a selector selects.
    Of(Selector),
}

/// A selector; nothing selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    /// By labels.
    pub(super) labels: Option<String>,
    /// By fields.
    pub(super) fields: Option<String>,
}

impl Selector {
    fn list(&self, limit: Option<u32>) -> ListParams {
        let Self { labels, fields } = self.clone();
        ListParams { limit, label_selector: labels, field_selector: fields, ..ListParams::default() }
    }

    fn watch(&self) -> WatchParams {
        let Self { labels, fields } = self.clone();
        WatchParams { label_selector: labels, field_selector: fields, ..WatchParams::default() }
    }
}

/// Where it stands.
struct State {
    known: Known,
    selector: Selector,
    /// The version to go on from; `None` if there must be a list first.
    version: Option<String>,
    /// Lists are taken as streams.
    streaming: bool,
    /// The connection was lost: who knows what the server is now.
    lost: bool,
    failing: bool,
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
            version: None,
            streaming: true,
            lost: false,
            failing: false,
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
            if self.kind.is_optional() && error.is_absence() {
                if !self.go_without(&error, state) {
                    return;
                }
                sleep(self.timing.absence.mul_f64(0.5 + dice() / 2.0)).await;
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

    /// The API has no such kind, or keeps it from us: what is known stays, and the rest need not wait for it.
    fn go_without(&self, error: &FeedError, state: &mut State) -> bool {
        if !state.failing {
            info!(kind = %self.kind, %error, "going without: the configuration must say what these objects would");
            state.failing = true;
        }
        self.contacts.absent(self.kind);
        self.hub
            .report(self.kind, Report { complete: true, faults: state.known.faults(), ..Report::default() })
    }

    /// Tells a failure when it begins.
    fn tell(&self, error: &FeedError, server: Option<&Server>, state: &mut State) {
        self.contacts.failed(self.kind, error.reason());
        let server = server.map_or("none", |server| &*server.address);
        let text = Chain(error).to_string();
        if error.needs_list() {
            info!(kind = %self.kind, server, error = text, "listing anew");
        } else if !std::mem::replace(&mut state.failing, true) {
            warn!(kind = %self.kind, server, error = text, "cannot watch; what is known stays in force");
        } else {
            debug!(kind = %self.kind, server, error = text, "still cannot watch");
        }
    }

    /// One server, for as long as it goes well.
    async fn turn(&self, server: &Server, state: &mut State) -> Result<End, FeedError> {
        if state.version.is_some() && state.heard.elapsed() > self.timing.memory {
            debug!(kind = %self.kind, "out of touch for long: listing anew");
            state.version = None;
        }
        if let Some(version) = state.version.clone().filter(|_| state.lost) {
            self.compare_history(server, &state.selector, version).await?;
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

    /// A server that is behind what is known here has been set back (a backup was restored, say): a watch from a
    /// version that it has yet to reach would stay silent.
    async fn compare_history(
        &self,
        server: &Server,
        selector: &Selector,
        before: String,
    ) -> Result<(), FeedError> {
        let text = self.page(server, &selector.list(Some(1))).await?;
        let now = Page::parse(&text)?.version.unwrap_or_default();
        // Versions may be compared as numbers where they are numbers, which is wherever Kubernetes stores them.
        match (before.parse::<u64>(), now.parse::<u64>()) {
            (Ok(known), Ok(there)) if there < known => Err(FeedError::AnotherHistory { before, now }),
            _ => Ok(()),
        }
    }

    /// Sends a request.
    async fn open(&self, server: &Server, request: Request<Vec<u8>>) -> Result<Body, FeedError> {
        let patience = self.timing.answer;
        let answer = timeout(patience, server.client.request_stream(request)).await;
        Ok(Body::new(answer.map_err(|_| FeedError::NoAnswer(patience))??))
    }

    /// The text of one page of a list.
    async fn page(&self, server: &Server, params: &ListParams) -> Result<Vec<u8>, FeedError> {
        let request = Path::new(self.kind.path()).list(params).map_err(kube::Error::BuildRequest)?;
        Ok(self.open(server, request).await?.rest(self.timing.answer).await?)
    }

    /// Takes a list in pages. False if nobody listens any more.
    async fn list(&self, server: &Server, state: &mut State) -> Result<bool, FeedError> {
        state.known.begin_list();
        let mut params = state.selector.list(Some(PAGE));
        loop {
            let text = match self.page(server, &params).await {
                // The server has forgotten the state that the list was begun in: all at once, then.
                Err(error) if error.is_expired() && params.continue_token.is_some() => {
                    state.known.begin_list();
                    params = state.selector.list(None);
                    continue;
                }
                outcome => outcome?,
            };
            self.heard(state);
            let page = Page::parse(&text)?;
            for item in page.items {
                state.known.listed(Happened::Changed, item);
            }
            if page.next.is_none() {
                state.version = page.version;
                return Ok(self.end_list(server, state, "pages"));
            }
            params.continue_token = page.next;
        }
    }

    fn end_list(&self, server: &Server, state: &mut State, way: &str) -> bool {
        let deltas = state.known.end_list();
        debug!(kind = %self.kind, objects = state.known.len(), changed = deltas.len(), way, "listed");
        self.contacts.listed(self.kind, way);
        self.contacts.set_objects(self.kind, state.known.len());
        self.pass_on(server, state, deltas, true)
    }

    /// Watches, until the server ends it. `listing`: the watch begins with a list.
    async fn watch(&self, server: &Server, state: &mut State, mut listing: bool) -> Result<End, FeedError> {
        let seconds = self.timing.watch.mul_f64(1.0 + dice()).as_secs().max(1);
        let params = WatchParams {
            timeout: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: listing,
            ..state.selector.watch()
        };
        let from = state.version.clone().unwrap_or_default();
        let request = Path::new(self.kind.path()).watch(&params, &from).map_err(kube::Error::BuildRequest)?;
        let mut body = self.open(server, request).await?;
        if listing {
            state.known.begin_list();
        }
        self.heard(state);
        let begun = Instant::now();
        loop {
            let patience = if listing { self.timing.answer } else { self.timing.idle };
            let line = match body.line(patience).await {
                // Perhaps it took the watch for an ordinary one.
                Err(ReadError::Silent(_)) if listing => {
                    state.streaming = false;
                    return Err(ReadError::Silent(patience).into());
                }
                line => line?,
            };
            let steady = begun.elapsed() >= self.timing.steady;
            if steady {
                state.backoff.reset();
            }
            match line {
                None if listing => return Err(FeedError::Incomplete),
                None if !steady && begun.elapsed() < self.timing.shortest_watch => {
                    return Err(FeedError::AtOnce);
                }
                None => return Ok(End::Closed),
                Some(line) => {
                    self.heard(state);
                    if !self.event(server, state, line, &mut listing)? {
                        return Ok(End::Unheard);
                    }
                }
            }
        }
    }

    /// One line of a watch. False if nobody listens any more.
    fn event(
        &self,
        server: &Server,
        state: &mut State,
        line: &[u8],
        listing: &mut bool,
    ) -> Result<bool, FeedError> {
        let (happened, object) = match Event::parse(line)? {
            Event::Changed(object) => (Happened::Changed, object),
            Event::Deleted(object) => (Happened::Deleted, object),
            Event::Bookmark { version, ends_list } => {
                if !*listing || ends_list {
                    state.version = version.or(state.version.take());
                }
                if *listing && ends_list {
                    *listing = false;
                    return Ok(self.end_list(server, state, "stream"));
                }
                return Ok(true);
            }
            Event::Error(status) => return Err(FeedError::Status(status)),
            Event::Unknown(event) => {
                debug!(kind = %self.kind, event, "an event of an unknown type");
                return Ok(true);
            }
        };
        if *listing {
            state.known.listed(happened, object);
            return Ok(true);
        }
        let (version, delta) = state.known.event(happened, object);
        state.version = version.or(state.version.take());
        self.contacts.set_objects(self.kind, state.known.len());
        Ok(self.pass_on(server, state, delta.into_iter().collect(), false))
    }

    /// The server said something.
    fn heard(&self, state: &mut State) {
        state.heard = Instant::now();
        self.contacts.heard(self.kind);
        if std::mem::take(&mut state.failing) {
            info!(kind = %self.kind, "watching again");
        }
    }

    fn pass_on(&self, server: &Server, state: &mut State, deltas: Vec<Delta>, complete: bool) -> bool {
        for fault in state.known.take_untold() {
            error!("{fault}; the object is left out, or stays as it was");
        }
        if !state.told_own_service && self.kind == Kind::Service && leads_through(server, &deltas) {
            state.told_own_service = true;
            warn!(
                server = %server.address,
                "the API server is reached at a service's address, which this agent itself serves: set apiServers"
            );
        }
        self.hub.report(self.kind, Report { deltas, faults: state.known.faults(), complete })
    }
}

/// Whether the server's address is one of a service.
fn leads_through(server: &Server, deltas: &[Delta]) -> bool {
    let rest = server.address.split_once("://").map_or(&*server.address, |(_, rest)| rest);
    let host = match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => rest.split([':', '/']).next(),
    };
    let Some(host) = host.and_then(|host| host.parse::<IpAddr>().ok()) else { return false };
    deltas.iter().any(|delta| match delta {
        Delta::Put(Object::Service(service)) => service.cluster_ips.contains(&host),
        _ => false,
    })
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
