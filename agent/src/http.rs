//! `/healthz`, `/livez`, `/metrics` and what else kube-proxy serves on these ports (rows 38 to 40 of the
//! behaviour table).
//!
//! On axum: the smallest stack that brings routing, HTTP/1 with all its corners, and the ecosystem's
//! maintenance; it comes on top of hyper, which a Kubernetes client needs anyway.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use prometheus::{Registry, TextEncoder, proto::MetricFamily};
use tokio::net::TcpListener;

use crate::{
    config::Settings,
    health::Health,
    metrics::Metrics,
    names::{NamesState, door_routes},
    pages,
};

/// How long `/metrics` waits for the loop to read the datapath's counters; then it shows what it has.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the handlers know.
#[derive(Clone)]
pub struct Site {
    /// Health.
    pub health: Arc<Health>,
    /// The agent's metrics.
    pub metrics: Arc<Metrics>,
    /// The DNS server's metrics, while there is one.
    pub dns: DnsMetrics,
    /// How DNS is, where it is served.
    pub names: Option<NamesState>,
    /// What is set.
    pub settings: Arc<Settings>,
    /// Since when the agent runs.
    pub started: Timestamp,
    /// Asks the loop to read the datapath's counters, and to send when it has.
    pub refresh: Arc<dyn Fn() -> tokio::sync::oneshot::Receiver<()> + Send + Sync>,
}

/// The registry of the DNS server that runs at present.
pub type DnsMetrics = Arc<RwLock<Option<Registry>>>;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {source}")]
pub struct ListenError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Takes an address.
pub async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { what, address, source })
}

/// What is served where the cluster asks for health.
pub fn health_routes(site: Site) -> Router {
    let names = site.names.clone().map(door_routes).unwrap_or_default();
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(site).merge(names)
}

/// What is served where metrics are read.
pub fn metrics_routes(site: Site) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/slis", get(slis))
        // As every component of Kubernetes has it; what kube-proxy knows of health is on the other port.
        .route("/healthz", get(|| async { plain("ok") }))
        .route("/livez", get(livez))
        .route("/configz", get(configz))
        .route("/flagz", get(flagz))
        .route("/statusz", get(statusz))
        // Whoever asks compares with iptables, ipvs and nftables: it is none of these.
        .route("/proxyMode", get(|| async { plain("ebpf") }))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
        .with_state(site)
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, routes: Router) {
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "an HTTP server has stopped");
    }
}

async fn healthz(State(site): State<Site>) -> Response {
    let answer = site.health.healthz(Instant::now(), Timestamp::now());
    site.metrics.healthz(answer.healthy);
    json(answer.healthy, answer.body)
}

async fn livez(State(site): State<Site>) -> Response {
    let answer = site.health.livez(Instant::now(), Timestamp::now());
    site.metrics.livez(answer.healthy);
    json(answer.healthy, answer.body)
}

fn json(healthy: bool, body: String) -> Response {
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body).into_response()
}

fn plain(text: &'static str) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, text).into_response()
}

async fn metrics(State(site): State<Site>) -> Response {
    // A loop that is busy or gone must not keep its metrics from being read.
    let _ = tokio::time::timeout(PATIENCE, (site.refresh)()).await;
    let mut families = site.metrics.registry.gather();
    let dns = site.dns.read().unwrap_or_else(PoisonError::into_inner).clone();
    families.extend(dns.map(|registry| registry.gather()).unwrap_or_default());
    exposition(&families)
}

async fn slis(State(site): State<Site>) -> Response {
    let now = (Instant::now(), Timestamp::now());
    site.metrics.checked("services", site.health.livez(now.0, now.1).healthy);
    exposition(&site.metrics.slis.gather())
}

async fn configz(State(site): State<Site>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], pages::configz(&site.settings)).into_response()
}

async fn flagz(State(site): State<Site>) -> String {
    pages::flagz(&site.settings)
}

async fn statusz(State(site): State<Site>) -> String {
    pages::statusz(site.started, Timestamp::now(), &site.health.troubles())
}

fn exposition(families: &[MetricFamily]) -> Response {
    match TextEncoder::new().encode_to_string(families) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
