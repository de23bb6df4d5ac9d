//! One upstream server: asking it, and knowing whether it answers.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use hickory_resolver::net::NetError;
use prometheus::{HistogramVec, IntCounter, IntCounterVec};
use tokio::time::{Instant, timeout_at};

use crate::{
    ForwardOptions,
    connection::Pool,
    exchange::{Connector, Setup, request},
    looping::LoopCheck,
    message::{Answer, Question, Reading},
    metrics::{Metrics, rcode_name},
    name::WireName,
    query::QueryName,
    tls::Encryption,
    wire::u16_at,
};

/// What we tell upstreams that we take over UDP (the size that passes unfragmented everywhere).
const UDP_PAYLOAD: u16 = 1232;
/// The least time between two health checks.
const MIN_CHECK: Duration = Duration::from_millis(50);

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Nothing came in time.
    #[error("no answer from {0}")]
    Silent(SocketAddr),
    /// It cannot be reached.
    #[error("asking {upstream}")]
    Unreachable {
        /// The server.
        upstream: SocketAddr,
        /// What the kernel, or TLS, said.
        source: NetError,
    },
}

/// One upstream server.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it is.
    pub(crate) address: SocketAddr,
    options: Arc<ForwardOptions>,
    is_encrypted: bool,
    connector: Connector,
    pool: Arc<Pool>,
    /// Each question has one.
    udp_sockets: IntCounter,
    fails: AtomicU32,
    is_checked: AtomicBool,
    loops: LoopCheck,
    check_failures: IntCounter,
    durations: HistogramVec,
}

impl Upstream {
    /// A server, thought to be well.
    pub(crate) fn new(
        address: SocketAddr,
        options: Arc<ForwardOptions>,
        encryption: Option<Encryption>,
        setup: Setup,
        metrics: &Metrics,
    ) -> Self {
        let to = address.to_string();
        let is_encrypted = encryption.is_some();
        let connector = Connector::new(address, encryption, setup);
        let connections =
            |counter: &IntCounterVec, protocol| counter.with_label_values(&["forward", &to, protocol]);
        let counters = [&metrics.connections_found, &metrics.connections_opened];
        let counters = counters.map(|counter| connections(counter, connector.protocol()));
        let pool = Pool::new(&options, connector.shared(), counters);
        Self {
            address,
            options,
            is_encrypted,
            udp_sockets: connections(&metrics.connections_opened, "udp"),
            connector,
            pool,
            fails: AtomicU32::new(0),
            is_checked: AtomicBool::new(false),
            loops: LoopCheck::new(metrics.loops.with_label_values(&[&to])),
            check_failures: metrics.check_failures.with_label_values(&["forward", &to]),
            durations: metrics.upstream.clone(),
        }
    }

    /// Whether it stopped answering, or what it is asked comes back.
    pub(crate) fn is_down(&self) -> bool {
        let max = self.options.max_fails;
        self.is_looping() || max > 0 && self.fails.load(Ordering::Relaxed) >= max
    }

    fn is_tcp_only(&self) -> bool {
        self.options.force_tcp || self.is_encrypted
    }

    /// Asks a question: over UDP, and over TCP where the answer is too large for that.
    pub(crate) async fn ask(&self, question: &Question, deadline: Instant) -> Result<Answer, UpstreamError> {
        let start = Instant::now();
        let mut edns = Some(UDP_PAYLOAD);
        let mut tcp = self.is_tcp_only();
        let mut part = None;
        let silent = || UpstreamError::Silent(self.address);
        let result = loop {
            let asked = self.exchange(question, edns, tcp);
            match timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(silent())) {
                Ok(Reading::Answer(answer)) => break Ok(answer),
                Ok(Reading::NoEdns) if edns.is_some() => edns = None,
                Ok(Reading::Truncated(whole_records)) if !tcp => {
                    part = whole_records;
                    tcp = true;
                }
                // More than a message holds, or an upstream that passes on what was cut before.
                Ok(Reading::Truncated(Some(part))) => break Ok(part),
                Ok(_) => break Err(silent()),
                Err(error) => break Err(error),
            }
        };
        // Where TCP is held up on the way, a part is better than nothing: the client sees that it is one.
        let answer = result.or_else(|error| part.ok_or(error))?;
        let labels = ["forward", &self.address.to_string(), rcode_name(answer.rcode())];
        self.durations.with_label_values(&labels).observe(start.elapsed().as_secs_f64());
        Ok(answer)
    }

    /// Asks once.
    async fn exchange(
        &self,
        question: &Question,
        edns: Option<u16>,
        tcp: bool,
    ) -> Result<Reading, UpstreamError> {
        // In boxes: thousands of questions may wait at a time.
        let asked = match request(question, rand::random(), edns) {
            Ok(request) if tcp => Box::pin(self.pool.ask(&self.connector, request)).await,
            Ok(request) => {
                self.udp_sockets.inc();
                Box::pin(self.connector.ask_udp(request)).await
            }
            Err(error) => Err(error.into()),
        };
        match asked {
            Ok(message) => {
                // The library has seen to it that it is the id of the question it sent.
                let id = u16_at(&message, 0).unwrap_or_default();
                Ok(Answer::read(message, id, question, edns.is_some()))
            }
            // It may have been cut in the middle of a record.
            Err(NetError::Proto(_)) if !tcp => Ok(Reading::Truncated(None)),
            Err(NetError::Timeout) => Err(UpstreamError::Silent(self.address)),
            Err(NetError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(UpstreamError::Silent(self.address))
            }
            Err(source) => Err(UpstreamError::Unreachable { upstream: self.address, source }),
        }
    }

    /// Whether what it is asked comes back to this server.
    pub(crate) fn is_looping(&self) -> bool {
        self.loops.is_looping()
    }

    /// Whether this is what it was asked to see that; takes note of it.
    pub(crate) fn came_back(&self, name: &QueryName) -> bool {
        self.loops.came(name)
    }

    /// Sees whether what it is asked comes back, if it is time for that. Needs a runtime.
    pub(crate) fn look_for_loop(self: &Arc<Self>, zone: &WireName) {
        let Some(question) = self.loops.question(zone) else { return };
        let upstream = self.clone();
        tokio::spawn(async move {
            let asked = upstream.exchange(&question, None, upstream.is_tcp_only());
            let asked = timeout_at(Instant::now() + upstream.options.attempt, asked).await;
            upstream.loops.done(upstream.address, matches!(asked, Ok(Ok(_))));
        });
    }

    /// What it is asked to see whether it is back.
    fn probe(&self) -> Question {
        let root = || WireName::join(&[], b"\0");
        let name = WireName::parse(&self.options.probe.domain).or_else(root);
        let name = name.as_ref().map_or(&b"\0"[..], WireName::as_bytes);
        Question {
            // For the name servers.
            wire: [name, &[0, 2, 0, 1]].concat().into(),
            dnssec_ok: false,
            checking_disabled: false,
            recursion: self.options.probe.recursion,
            options: Box::default(),
        }
    }

    /// Notes that a question went unanswered: from now on the server is asked whether it is back, until it is.
    pub(crate) fn suspect(self: &Arc<Self>) {
        if self.is_checked.swap(true, Ordering::Relaxed) {
            return;
        }
        let upstream = Arc::downgrade(self);
        tokio::spawn(async move {
            // A server that is no longer in the configuration is forgotten.
            while let Some(upstream) = upstream.upgrade() {
                let question = upstream.probe();
                let deadline = Instant::now() + upstream.options.health_check.max(MIN_CHECK);
                let asked = upstream.exchange(&question, None, upstream.is_tcp_only());
                match timeout_at(deadline, asked).await {
                    Ok(Ok(_)) => {
                        upstream.fails.store(0, Ordering::Relaxed);
                        upstream.is_checked.store(false, Ordering::Relaxed);
                        return;
                    }
                    Ok(Err(_)) | Err(_) => {
                        upstream.check_failures.inc();
                        let fails = upstream.fails.load(Ordering::Relaxed).saturating_add(1);
                        upstream.fails.store(fails, Ordering::Relaxed);
                        if fails == upstream.options.max_fails {
                            tracing::warn!(upstream = %upstream.address, "upstream DNS server is down");
                        }
                    }
                }
                drop(upstream);
                tokio::time::sleep_until(deadline).await;
            }
        });
    }
}
