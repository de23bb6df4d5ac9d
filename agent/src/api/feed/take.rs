//! Taking lists and watches from a server.

use axum::http::Request;
use kube::core::{
    Request as Path,
    params::{ListParams, WatchParams},
};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{End, Feed, State, dice};
use crate::api::{
    error::FeedError,
    known::Happened,
    selection::Selector,
    servers::Server,
    stream::{Body, ReadError},
    wire::{Event, Page},
};

/// How many objects are in a page of a list: enough that the pages of 50,000 services are a hundred requests, few
/// enough that a page of Nodes, the largest objects, is some megabytes.
const PAGE: u32 = 500;

impl Feed {
    /// A server that is behind what is known here has been set back (a backup was restored, say): a watch from a
    /// version that it has yet to reach would stay silent.
    pub(super) async fn compare_history(
        &self,
        server: &Server,
        path: usize,
        selector: &Selector,
        before: String,
    ) -> Result<(), FeedError> {
        let text = self.page(server, path, &selector.list(Some(1))).await?;
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
    async fn page(&self, server: &Server, path: usize, params: &ListParams) -> Result<Vec<u8>, FeedError> {
        let request = Path::new(self.kind.paths()[path]).list(params).map_err(kube::Error::BuildRequest)?;
        Ok(self.open(server, request).await?.rest(self.timing.answer).await?)
    }

    /// Takes a list in pages. False if nobody listens any more.
    pub(super) async fn list(&self, server: &Server, state: &mut State) -> Result<bool, FeedError> {
        state.known.begin_list();
        let mut params = state.selector.list(Some(PAGE));
        loop {
            let text = match self.page(server, state.path, &params).await {
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
    pub(super) async fn watch(
        &self,
        server: &Server,
        state: &mut State,
        mut listing: bool,
    ) -> Result<End, FeedError> {
        let seconds = self.timing.watch.mul_f64(1.0 + dice()).as_secs().max(1);
        let params = WatchParams {
            timeout: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: listing,
            ..state.selector.watch()
        };
        let from = state.version.clone().unwrap_or_default();
        let request = Path::new(self.kind.paths()[state.path])
            .watch(&params, &from)
            .map_err(kube::Error::BuildRequest)?;
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
}
