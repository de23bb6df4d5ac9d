//! One upstream server: asking it, and knowing whether it answers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use prometheus::{HistogramVec, IntCounter};
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use crate::{
    ForwardOptions,
    connection::{Connection, Pool},
    message::{Answer, Question, Reading},
    metrics::{Metrics, rcode_name},
    name::WireName,
    tls::Encryption,
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
    #[error("{call} to {upstream}")]
    Io {
        /// The call.
        call: &'static str,
        /// The server.
        upstream: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One upstream server.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it is.
    pub(crate) address: SocketAddr,
    options: Arc<ForwardOptions>,
    encryption: Option<Encryption>,
    pool: Pool,
    fails: AtomicU32,
    is_checked: AtomicBool,
    check_failures: IntCounter,
    durations: HistogramVec,
}

impl Upstream {
    /// A server, thought to be well.
    pub(crate) fn new(
        address: SocketAddr,
        options: Arc<ForwardOptions>,
        encryption: Option<Encryption>,
        metrics: &Metrics,
    ) -> Self {
        let to = address.to_string();
        let pool = Pool::new(options.max_idle, options.idle_for);
        Self {
            address,
            options,
            encryption,
            pool,
            fails: AtomicU32::new(0),
            is_checked: AtomicBool::new(false),
            check_failures: metrics.check_failures.with_label_values(&["forward", &to]),
            durations: metrics.upstream.clone(),
        }
    }

    /// Whether it stopped answering.
    pub(crate) fn is_down(&self) -> bool {
        let max = self.options.max_fails;
        max > 0 && self.fails.load(Ordering::Relaxed) >= max
    }

    fn is_tcp_only(&self) -> bool {
        self.options.force_tcp || self.encryption.is_some()
    }

    /// Asks a question: over UDP, and over TCP where the answer is too large for that.
    pub(crate) async fn ask(&self, question: &Question, deadline: Instant) -> Result<Answer, UpstreamError> {
        let start = Instant::now();
        let mut edns = Some(UDP_PAYLOAD);
        let mut tcp = self.is_tcp_only();
        loop {
            let asked = async {
                // In a box what is seldom and large.
                if tcp {
                    Box::pin(self.ask_tcp(question, edns)).await
                } else {
                    self.ask_udp(question, edns).await
                }
            };
            match timeout_at(deadline, asked).await.map_err(|_| UpstreamError::Silent(self.address))?? {
                Reading::Answer(answer) => {
                    let labels = ["forward", &self.address.to_string(), rcode_name(answer.rcode())];
                    self.durations.with_label_values(&labels).observe(start.elapsed().as_secs_f64());
                    return Ok(answer);
                }
                Reading::NoEdns if edns.is_some() => edns = None,
                Reading::Truncated if !tcp => tcp = true,
                _ => return Err(UpstreamError::Silent(self.address)),
            }
        }
    }

    fn failed<'e>(&self, call: &'static str) -> impl FnOnce(io::Error) -> UpstreamError + 'e {
        let upstream = self.address;
        move |source| UpstreamError::Io { call, upstream, source }
    }

    /// Each question has a socket, and so a source port, of its own.
    async fn ask_udp(&self, question: &Question, edns: Option<u16>) -> Result<Reading, UpstreamError> {
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.map_err(self.failed("bind"))?;
        socket.connect(self.address).await.map_err(self.failed("connect"))?;
        let id = rand::random();
        socket.send(&question.message(id, edns)).await.map_err(self.failed("send"))?;
        loop {
            socket.readable().await.map_err(self.failed("recv"))?;
            let message = match receive(&socket) {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(self.failed("recv")(error)),
            };
            // What answers something else was not sent to us by the server we asked: wait on.
            match Answer::read(message, id, question, edns.is_some()) {
                Reading::Foreign => {}
                reading => return Ok(reading),
            }
        }
    }

    /// Over a connection that is there already, or else a new one.
    async fn ask_tcp(&self, question: &Question, edns: Option<u16>) -> Result<Reading, UpstreamError> {
        let id = rand::random();
        let message = question.message(id, edns);
        // One that the server has closed meanwhile is no failure of the server.
        let mut answered = None;
        if let Some(mut connection) = self.pool.take() {
            answered = connection.exchange(&message).await.ok().map(|answer| (answer, connection));
        }
        let (answer, connection) = match answered {
            Some(answered) => answered,
            None => {
                let mut connection = self.connect().await?;
                (connection.exchange(&message).await.map_err(self.failed("exchange"))?, connection)
            }
        };
        let reading = Answer::read(answer, id, question, edns.is_some());
        if !matches!(reading, Reading::Foreign) {
            self.pool.put(connection);
        }
        Ok(reading)
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        let stream = TcpStream::connect(self.address).await.map_err(self.failed("connect"))?;
        stream.set_nodelay(true).map_err(self.failed("setsockopt"))?;
        match &self.encryption {
            Some(encryption) => {
                encryption.connect(stream, self.address).await.map_err(self.failed("TLS handshake"))
            }
            None => Ok(Connection::new(stream)),
        }
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
                let asked = async {
                    if upstream.is_tcp_only() {
                        upstream.ask_tcp(&question, None).await
                    } else {
                        upstream.ask_udp(&question, None).await
                    }
                };
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

/// A message that has arrived. It is taken into the stack: thousands of questions may wait at a time, and a message is seldom
/// large.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let length = socket.try_recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}
