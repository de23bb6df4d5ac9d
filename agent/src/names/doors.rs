//! What is told of the DNS server over HTTP, where CoreDNS tells it: `/health`, `/ready`, `/metrics`.
//!
//! An address that cannot be had is an error that keeps nothing else from its work, and is tried again.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::TextEncoder;
use sluice_dns::Publisher;
use tokio::{runtime::Handle, task::JoinHandle};

use super::desired::DoorAddresses;
use crate::http::DnsMetrics;

/// How the server is, as far as others ask.
#[derive(Clone, Debug, Default)]
pub struct NamesState(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    publisher: RwLock<Option<Publisher>>,
    leaving: AtomicBool,
    /// Milliseconds.
    lameduck: AtomicU64,
}

impl NamesState {
    /// Whether the cluster's names are answered, and will be for a while.
    pub fn is_ready(&self) -> bool {
        let publisher = self.0.publisher.read().unwrap_or_else(PoisonError::into_inner);
        publisher.as_ref().is_some_and(Publisher::is_ready) && !self.is_leaving()
    }

    /// The agent was told to end.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
    }

    fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Relaxed)
    }

    /// How long the server goes on after that; no time where there is no server.
    pub fn lameduck(&self) -> Duration {
        let serves = self.0.publisher.read().unwrap_or_else(PoisonError::into_inner).is_some();
        Duration::from_millis(if serves { self.0.lameduck.load(Ordering::Relaxed) } else { 0 })
    }

    pub(super) fn set_lameduck(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0.lameduck.store(millis, Ordering::Relaxed);
    }

    pub(super) fn set_publisher(&self, publisher: Option<Publisher>) {
        *self.0.publisher.write().unwrap_or_else(PoisonError::into_inner) = publisher;
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what} of DNS: {source}")]
pub struct DoorError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// The HTTP servers.
#[derive(Debug)]
pub(super) struct Doors {
    runtime: Handle,
    open: [Option<(SocketAddr, JoinHandle<()>)>; 3],
}

impl Doors {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, open: [None, None, None] }
    }

    /// Serves there and nowhere else, as far as that can be had.
    pub(super) fn set(
        &mut self,
        wanted: DoorAddresses,
        state: &NamesState,
        metrics: &DnsMetrics,
    ) -> Vec<DoorError> {
        let routes: [(_, _, &dyn Fn() -> Router); 3] = [
            ("/health", wanted.health, &|| Router::new().route("/health", get(|| async { "OK" }))),
            ("/ready", wanted.ready, &|| Router::new().route("/ready", get(ready)).with_state(state.clone())),
            ("/metrics", wanted.metrics, &|| {
                let metrics = Router::new().route("/metrics", get(tell)).with_state(metrics.clone());
                metrics.merge(self::routes(state.clone()))
            }),
        ];
        let mut errors = Vec::new();
        for (open, (what, address, routes)) in self.open.iter_mut().zip(routes) {
            if open.as_ref().map(|(at, _)| *at) == address {
                continue;
            }
            close(&self.runtime, open);
            let Some(address) = address else { continue };
            match listen(&self.runtime, address) {
                Ok(listener) => {
                    let task = self.runtime.spawn(crate::http::serve(listener, routes()));
                    *open = Some((address, task));
                }
                Err(source) => errors.push(DoorError { what, address, source }),
            }
        }
        errors
    }

    /// Serves nowhere.
    pub(super) fn close(&mut self) {
        self.open.iter_mut().for_each(|open| close(&self.runtime, open));
    }
}

fn close(runtime: &Handle, open: &mut Option<(SocketAddr, JoinHandle<()>)>) {
    if let Some((_, task)) = open.take() {
        task.abort();
        // The address is free once the task is gone, which is at once: it was told to.
        let _ = runtime.block_on(task);
    }
}

fn listen(runtime: &Handle, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::bind(address).or_else(|error| match address {
        // "Everywhere" on a node without IPv6.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        _ => Err(error),
    })?;
    listener.set_nonblocking(true)?;
    let _inside = runtime.enter();
    tokio::net::TcpListener::from_std(listener)
}

/// `/health` and `/ready`, for an address where health is asked for anyway.
pub fn routes(state: NamesState) -> Router {
    Router::new().route("/health", get(|| async { "OK" })).route("/ready", get(ready)).with_state(state)
}

/// As CoreDNS: OK, or what is not ready.
async fn ready(State(state): State<NamesState>) -> Response {
    if state.is_ready() {
        return "OK".into_response();
    }
    let why = if state.is_leaving() { "Shutting down" } else { "kubernetes" };
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn tell(State(metrics): State<DnsMetrics>) -> Response {
    let registry = metrics.read().unwrap_or_else(PoisonError::into_inner).clone();
    let families = registry.map(|registry| registry.gather()).unwrap_or_default();
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
