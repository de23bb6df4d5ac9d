//! Questions to one upstream and its answers, byte for byte as they come: hickory-resolver's connections, and what they are
//! told.
//!
//! Taken at the level of its connections, not of its name servers and pools: those turn denials into errors and choose
//! servers, repeat questions and count failures by rules of their own, where ours are CoreDNS's.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hickory_proto::{
    ProtoError,
    op::{DnsRequest, DnsRequestOptions, Message},
};
use hickory_resolver::{
    ConnectionProvider, PoolContext, TlsConfig,
    config::{ConnectionConfig, ResolverOpts},
    net::{
        NetError,
        h2::HttpsClientStream,
        runtime::{DnsUdpSocket, RuntimeProvider, Spawn, TokioRuntimeProvider, TokioTime},
        tls::tls_client_connect,
        xfer::{DnsExchange, DnsHandle, DnsMultiplexer, FirstAnswer},
    },
};
use tokio::{io::ReadBuf, net::UdpSocket};

use crate::{message::Question, tls::Encryption};

/// The most questions that are under way on one connection. The library looks at each of them whenever something comes.
pub(crate) const MAX_SHARED: usize = 256;
/// A question over UDP is sent once: what is lost is ours to ask again, of another server where there is one.
const NEVER: Duration = Duration::from_secs(3600);

/// What the library is told about all upstreams.
#[derive(Clone)]
pub(crate) struct Setup {
    context: Arc<PoolContext>,
    /// The address that they are asked from, where it is of their family.
    source: Option<IpAddr>,
}

impl Setup {
    /// `timeout`: the most that an answer is waited for. `source`: the address that questions leave from.
    pub(crate) fn new(timeout: Duration, source: Option<IpAddr>) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        // Of its own it would take any port from 1024 on: node ports, and those that the node's configuration keeps from such
        // use, among them. The kernel takes a random one of those that are meant for it.
        options.os_port_selection = true;
        // A question that was given up may count for a moment longer.
        options.max_active_requests = 2 * MAX_SHARED;
        Ok(Self { context: Arc::new(PoolContext::new(options, TlsConfig::new()?)), source })
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Setup").field(&self.context.options).finish()
    }
}

/// What the library needs to connect to one upstream.
pub(crate) struct Connector {
    upstream: SocketAddr,
    encryption: Option<Encryption>,
    udp: ConnectionConfig,
    tcp: ConnectionConfig,
    setup: Setup,
}

impl Connector {
    /// Connections over TLS, where there is an encryption.
    pub(crate) fn new(upstream: SocketAddr, encryption: Option<Encryption>, setup: Setup) -> Self {
        let [mut udp, mut tcp] = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        (udp.port, tcp.port) = (upstream.port(), upstream.port());
        Self { upstream, encryption, udp, tcp, setup }
    }

    /// Asks over UDP, from a socket of the question's own. Messages with another source, id or question are passed over.
    pub(crate) async fn ask_udp(&self, request: DnsRequest) -> Result<Vec<u8>, NetError> {
        let sockets = self.sockets();
        let exchange = sockets.new_connection(self.upstream.ip(), &self.udp, &self.setup.context)?.await?;
        Ok(exchange.send(request).first_answer().await?.into_buffer())
    }

    fn sockets(&self) -> Sockets {
        let source = self.setup.source.filter(|source| source.is_ipv4() == self.upstream.is_ipv4());
        let source = source.map(|source| SocketAddr::new(source, 0));
        Sockets { upstream: self.upstream, source, tasks: Tasks::default() }
    }

    /// How connections go, as CoreDNS's metrics name it.
    pub(crate) fn protocol(&self) -> &'static str {
        match &self.encryption {
            None => "tcp",
            Some(Encryption { https: None, .. }) => "tcp-tls",
            Some(_) => "https",
        }
    }

    /// Whether connections speak HTTP.
    pub(crate) fn is_https(&self) -> bool {
        self.encryption.as_ref().is_some_and(|encryption| encryption.https.is_some())
    }

    /// So many questions may wait on a connection before another one is better. Over HTTP/2 they do not wait for each other.
    pub(crate) fn shared(&self) -> usize {
        if self.is_https() { 64 } else { 8 }
    }

    /// Opens a connection, over TLS or HTTPS where that is wanted.
    pub(crate) async fn connect(&self) -> Result<Connected, NetError> {
        let sockets = self.sockets();
        let tasks = sockets.create_handle();
        let exchange = match &self.encryption {
            None => sockets.new_connection(self.upstream.ip(), &self.tcp, &self.setup.context)?.await?,
            Some(encryption) if let Some(path) = &encryption.https => {
                let mut builder = HttpsClientStream::builder(encryption.config.clone(), sockets);
                builder.request_timeout(self.setup.context.options.timeout);
                let authority = encryption.authority_of(self.upstream);
                builder.exchange(self.upstream, authority, path.clone()).await?
            }
            // As the library does it, but for the server's name, which it would not say in the handshake: there are servers
            // that have several certificates, and such as know by it whose question this is.
            Some(encryption) => {
                let options = &self.setup.context.options;
                let name = encryption.name_of(self.upstream);
                let (stream, sender) =
                    tls_client_connect(self.upstream, name, encryption.config.clone(), sockets);
                let multiplexer = DnsMultiplexer::new(stream.await?, sender)
                    .with_timeout(options.timeout)
                    .with_max_active_requests(options.max_active_requests);
                let (exchange, background) = DnsExchange::from_stream(multiplexer);
                tasks.clone().spawn_bg(background);
                exchange
            }
        };
        Ok(Connected { exchange, ended: tasks.ended })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// An open connection, on which many questions may be under way.
#[derive(Clone)]
pub(crate) struct Connected {
    exchange: DnsExchange<Sockets>,
    ended: Arc<AtomicBool>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Connected {
    /// Asks over it. The answer has an id of the library's choice, and need not be to this question.
    pub(crate) async fn ask(&self, request: DnsRequest) -> Result<Vec<u8>, NetError> {
        Ok(self.exchange.send(request).first_answer().await?.into_buffer())
    }

    /// Whether it was closed, by whichever side.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A question as the library takes it.
pub(crate) fn request(question: &Question, id: u16, edns: Option<u16>) -> Result<DnsRequest, ProtoError> {
    let mut options = DnsRequestOptions::default();
    options.retry_interval = NEVER;
    Ok(DnsRequest::new(Message::from_vec(&question.message(id, edns))?, options))
}

/// Where the library gets sockets to one upstream from, and leaves what it does in the background.
#[derive(Clone)]
struct Sockets {
    upstream: SocketAddr,
    source: Option<SocketAddr>,
    tasks: Tasks,
}

impl RuntimeProvider for Sockets {
    type Handle = Tasks;
    type Timer = TokioTime;
    type Udp = Datagrams;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Tasks {
        self.tasks.clone()
    }

    // The upstream's address is ours, not the library's: that has lost the interface of a link-local one.
    fn connect_tcp(
        &self,
        _: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Future<Output = io::Result<Self::Tcp>> + Send>> {
        TokioRuntimeProvider::default().connect_tcp(self.upstream, self.source.or(local), timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Datagrams>> + Send>> {
        let (upstream, local) = (self.upstream, self.source.unwrap_or(local));
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(upstream).await?;
            Ok(Datagrams { socket, upstream })
        })
    }
}

/// A connected socket: that nobody listens there is known at once, and what comes from elsewhere never.
struct Datagrams {
    socket: UdpSocket,
    upstream: SocketAddr,
}

impl DnsUdpSocket for Datagrams {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(context, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), self.upstream)))
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        buffer: &[u8],
        _: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, buffer)
    }
}

/// Runs what reads and writes a connection, and knows when that has ended.
#[derive(Clone, Default)]
struct Tasks {
    ended: Arc<AtomicBool>,
}

impl Spawn for Tasks {
    fn spawn_bg(&mut self, background: impl Future<Output = ()> + Send + 'static) {
        let ended = Ended(self.ended.clone());
        tokio::spawn(async move {
            let _ended = ended;
            background.await;
        });
    }
}

/// Tells of the end, of a crash too.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_library_asks_what_it_is_told(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6),
            fixed in any::<[u8; 4]>(),
            bits in any::<[bool; 4]>(),
            option in 0_usize..5,
        ) {
            let mut wire: Vec<u8> =
                labels.iter().flat_map(|label| [&[label.len() as u8][..], label].concat()).collect();
            wire.push(0);
            wire.extend(fixed);
            let [dnssec_ok, checking_disabled, recursion, has_edns] = bits;
            let options: [&[u8]; 5] = [
                b"",
                b"\0\x03\0\0",
                b"\xfd\xe9\0\x03abc",
                b"\0\x08\0\x07\0\x01\x18\0\x0a\x01\x02",
                b"\0\x08\0\x0b\0\x02\x38\0\xfd\0\0\x01\0\0\x02\xfd\xe9\0\0",
            ];
            let options = options[option].into();
            let question = Question { wire: wire.into(), dnssec_ok, checking_disabled, recursion, options };
            let edns = has_edns.then_some(1232);
            let sent = request(&question, 4711, edns).unwrap().to_vec().unwrap();
            prop_assert_eq!(sent, question.message(4711, edns));
        }
    }
}
