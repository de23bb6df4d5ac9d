//! The life of a server: takes its addresses, answers, ends what is under way.

use std::{
    convert::Infallible,
    net::{Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sluice_model::Snapshot;
use socket2::Socket;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use crate::{
    ConfigError, DnsConfig, DnsError, Publisher,
    desired::RecordOptions,
    handler::{Handler, HandlerSlot, ZoneSlot},
    metrics::Metrics,
    name::WireName,
    records::AddressSet,
    routes::Routes,
    rules::RuleSet,
    socket::Sockets,
    tcp::Acceptor,
    udp::Worker,
    zone::Origin,
};

/// Held by every query under way; the server waits until all are dropped.
pub(crate) type Busy = mpsc::Sender<Infallible>;

/// Threads for each address where the configuration does not say.
const MAX_THREADS: usize = 4;
/// How long a query under way is waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// A DNS server whose addresses are taken and which answers once it runs.
#[derive(Debug)]
pub struct Server {
    configurator: Configurator,
    sockets: Vec<Sockets>,
}

impl Server {
    /// Checks the configuration and takes the listen addresses, in the caller's network namespace. Addresses
    /// that no device has yet are taken all the same.
    pub fn bind(config: DnsConfig) -> Result<Self, DnsError> {
        check(&config)?;
        let threads = match config.udp_threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS)),
            n => n,
        };
        let sockets: Vec<_> =
            config.listen.iter().map(|address| Sockets::bind(*address, threads)).collect::<Result<_, _>>()?;
        let addresses: Vec<_> = sockets.iter().map(|sockets| sockets.address).collect();
        let metrics = Metrics::new().map_err(DnsError::Metrics)?;
        let slot = Arc::default();
        let (origin, handler) = assemble(&config, &addresses, &metrics, &slot, None)?;
        let publisher = Publisher::new(origin, slot.clone(), metrics.clone());
        let configurator = Configurator {
            listen: config.listen,
            udp_threads: config.udp_threads,
            addresses,
            metrics,
            publisher,
            zone: slot,
            handler: Arc::new(ArcSwap::from_pointee(handler)),
            changed: watch::Sender::new(()),
        };
        Ok(Self { configurator, sockets })
    }

    /// The handle through which the configuration is changed.
    pub fn configurator(&self) -> Configurator {
        self.configurator.clone()
    }

    /// The addresses that were taken, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.configurator.addresses
    }

    /// The handle through which this server learns of the cluster.
    pub fn publisher(&self) -> Publisher {
        self.configurator.publisher.clone()
    }

    /// Registers the server's metrics, named as CoreDNS names them.
    pub fn register_metrics(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        self.configurator.metrics.register(registry)
    }

    /// Answers until `shutdown` resolves; then answers what has arrived and returns. Needs a tokio runtime
    /// with time and I/O, whose threads are in the network namespace from which upstreams are reached.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), DnsError> {
        let Configurator { handler, metrics, changed, .. } = self.configurator;
        let (busy, mut all_done) = mpsc::channel(1);
        let mut stop = Stop { flag: Arc::default(), sockets: Vec::new() };
        let mut threads = Vec::new();
        let mut tasks = JoinSet::new();
        for Sockets { address, udp, tcp } in self.sockets {
            for socket in udp {
                let socket = Arc::new(socket);
                stop.sockets.push(socket.clone());
                let worker = Worker {
                    socket,
                    handler: handler.clone(),
                    listener: metrics.listener(address, "udp"),
                    runtime: tokio::runtime::Handle::current(),
                    stop: stop.flag.clone(),
                    busy: busy.clone(),
                };
                let thread = std::thread::Builder::new()
                    .name("dns-udp".to_owned())
                    .spawn(|| worker.run())
                    .map_err(|source| DnsError::Thread { address, source })?;
                threads.push(thread);
            }
            let listener = TcpListener::from_std(tcp.into()).map_err(|source| DnsError::Socket {
                call: "epoll_ctl",
                address,
                protocol: "tcp",
                source,
            })?;
            let counters = metrics.listener(address, "tcp");
            tasks.spawn(Acceptor::new(handler.clone(), counters, busy.clone()).run(listener));
        }
        tasks.spawn(async move {
            let mut changes = changed.subscribe();
            loop {
                let handler = handler.load_full();
                let files = async { tokio::join!(handler.routes.watch(), handler.rules.watch()) };
                tokio::select! {
                    _ = files => {}
                    _ = changes.changed() => {}
                }
            }
        });

        shutdown.await;
        drop(stop);
        tasks.shutdown().await;
        // The threads return once they have answered what was in their sockets.
        let _ = spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        drop(busy);
        let _ = timeout(GRACE, all_done.recv()).await;
        Ok(())
    }
}

/// Changes a server's configuration while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Configurator {
    listen: Vec<SocketAddr>,
    udp_threads: usize,
    addresses: Vec<SocketAddr>,
    metrics: Metrics,
    publisher: Publisher,
    zone: ZoneSlot,
    handler: HandlerSlot,
    changed: watch::Sender<()>,
}

impl Configurator {
    /// Puts a configuration in force, or says why not: then the old one stays. No query is lost, and caches
    /// whose options are the same keep what they have. `snapshot` is the one published last. What the server
    /// listens on cannot change.
    pub fn apply(&self, config: &DnsConfig, snapshot: &Snapshot) -> Result<(), DnsError> {
        check(config)?;
        for (same, what) in [
            (config.listen == self.listen, "listen"),
            (config.udp_threads == self.udp_threads, "udp_threads"),
        ] {
            if !same {
                return Err(ConfigError::Fixed(what).into());
            }
        }
        let old = self.handler.load();
        let (origin, handler) =
            assemble(config, &self.addresses, &self.metrics, &self.zone, Some(&old.routes))?;
        self.publisher.change(origin, snapshot);
        self.handler.store(Arc::new(handler));
        self.changed.send_replace(());
        Ok(())
    }
}

/// Makes what a configuration says. `old`: the routes in force.
fn assemble(
    config: &DnsConfig,
    addresses: &[SocketAddr],
    metrics: &Metrics,
    zone: &ZoneSlot,
    old: Option<&Routes>,
) -> Result<(Arc<Origin>, Handler), ConfigError> {
    let (v4, v6) = addresses.iter().map(SocketAddr::ip).partition(std::net::IpAddr::is_ipv4);
    let origin = Arc::new(Origin {
        name: check(config)?,
        options: RecordOptions { ttl: config.ttl, endpoint_pod_names: config.endpoint_pod_names },
        pods: config.pods,
        autopath: config.autopath,
        node: config.node.clone(),
        server_v4: AddressSet::new(v4, config.ttl),
        server_v6: AddressSet::new(v6, config.ttl),
        networks: config.networks.clone(),
        reverse_fallthrough: config.reverse_fallthrough,
    });
    let routes = Routes::new(config, addresses, metrics, old)?;
    let rules = RuleSet::new(&config.rules)?;
    Ok((origin.clone(), Handler::new(origin, zone.clone(), routes, rules, config)))
}

/// Stops the threads, also when the server's future is dropped.
struct Stop {
    flag: Arc<AtomicBool>,
    sockets: Vec<Arc<Socket>>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
        for socket in &self.sockets {
            // Wakes the thread. That the socket is not connected, which the kernel complains of, is no matter.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

/// The zone's name, if the configuration can be served.
fn check(config: &DnsConfig) -> Result<WireName, ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let name = WireName::parse(&config.zone)
        .filter(|name| name.as_bytes().len() > 1 && config.zone.bytes().all(is_plain))
        .ok_or_else(|| ConfigError::Zone(config.zone.clone()))?;
    if config.ttl > 3600 {
        return Err(ConfigError::Ttl(config.ttl));
    }
    if !(512..=4096).contains(&config.max_udp_payload) {
        return Err(ConfigError::UdpPayload(config.max_udp_payload));
    }
    Ok(name)
}
