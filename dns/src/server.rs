//! The life of a server: takes its addresses, answers, ends what is under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use sluice_model::Snapshot;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use crate::{
    ConfigError, DnsConfig, DnsError, Publisher,
    external::ExternalOrigin,
    handler::{Handler, HandlerSlot, ZoneSlot},
    listening::Listening,
    metrics::Metrics,
    name::WireName,
    routes::Routes,
    rules::RuleSet,
    socket::{Inherited, Keeping, Sockets},
    transfer::Transfers,
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
    orders: mpsc::UnboundedReceiver<Order>,
}

/// What a running server is told of its addresses.
#[derive(Debug)]
enum Order {
    /// Answer here as well.
    Open(Sockets),
    /// Answer here no longer.
    Close(SocketAddr),
}

/// An address of the configuration, and the one that was taken for it.
#[derive(Clone, Debug)]
struct Taken {
    wanted: SocketAddr,
    address: SocketAddr,
    /// Its sockets once more, where somebody may keep them.
    copies: Arc<Vec<OwnedFd>>,
}

impl Server {
    /// Checks the configuration and takes the listen addresses, in the caller's network namespace. Addresses
    /// that no device has yet are taken all the same.
    pub fn bind(config: DnsConfig) -> Result<Self, DnsError> {
        Self::bind_with(config, Inherited::default(), Keeping::default())
    }

    /// As [`Self::bind`], with sockets that an earlier server has left; this one may leave its own.
    pub fn inherit(config: DnsConfig, inherited: Inherited) -> Result<Self, DnsError> {
        Self::bind_with(config, inherited, Keeping::possible())
    }

    fn bind_with(config: DnsConfig, mut inherited: Inherited, keeping: Keeping) -> Result<Self, DnsError> {
        check(&config)?;
        let metrics = Metrics::new().map_err(DnsError::Metrics)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let sockets = bind_all(&config.listen, thread_count(&config), &mut inherited, &keeping)?;
        let taken: Vec<_> = sockets.iter().map(|(taken, _)| taken.clone()).collect();
        let slot = Arc::default();
        let (origin, handler) = assemble(&config, &addresses(&taken), &metrics, &slot, None)?;
        metrics.show_plugins(&config);
        for (_, sockets) in sockets {
            // The receiver is at hand.
            let _ = orders.send(Order::Open(sockets));
        }
        let configurator = Configurator {
            udp_threads: config.udp_threads,
            keeping,
            taken: Arc::new(Mutex::new(taken)),
            orders,
            publisher: Publisher::new(origin, slot.clone(), metrics.clone()),
            metrics,
            zone: slot,
            handler: Arc::new(ArcSwap::from_pointee(handler)),
            changed: watch::Sender::new(()),
        };
        Ok(Self { configurator, orders: inbox })
    }

    /// The handle through which the configuration is changed.
    pub fn configurator(&self) -> Configurator {
        self.configurator.clone()
    }

    /// The addresses that were taken, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.configurator.addresses()
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
        let Self { configurator, mut orders } = self;
        let Configurator { handler, metrics, changed, keeping, .. } = configurator;
        let (busy, mut all_done) = mpsc::channel(1);
        let mut listening = BTreeMap::new();
        let mut files = JoinSet::new();
        files.spawn(watch_files(handler.clone(), changed.subscribe()));
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                order = orders.recv() => match order {
                    None => {}
                    Some(Order::Open(sockets)) => {
                        let address = sockets.address;
                        let started = Listening::start(sockets, &handler, &metrics, &busy, &keeping)?;
                        listening.insert(address, started);
                    }
                    Some(Order::Close(address)) => drop(listening.remove(&address)),
                },
            }
        }
        files.shutdown().await;
        let threads: Vec<_> = listening.into_values().flat_map(Listening::stop).collect();
        // The threads return once they have answered what was in their sockets.
        let _ = spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        drop(busy);
        let _ = timeout(GRACE, all_done.recv()).await;
        Ok(())
    }
}

/// Keeps up with the files that the configuration in force names.
async fn watch_files(handler: HandlerSlot, mut changes: watch::Receiver<()>) {
    loop {
        let handler = handler.load_full();
        let files = async { tokio::join!(handler.routes.watch(), handler.rules.watch()) };
        tokio::select! {
            _ = files => {}
            _ = changes.changed() => {}
        }
    }
}

/// Changes a server's configuration while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Configurator {
    udp_threads: usize,
    keeping: Keeping,
    taken: Arc<Mutex<Vec<Taken>>>,
    orders: mpsc::UnboundedSender<Order>,
    metrics: Metrics,
    publisher: Publisher,
    zone: ZoneSlot,
    handler: HandlerSlot,
    changed: watch::Sender<()>,
}

impl Configurator {
    /// Puts a configuration in force, or says why not: then the old one stays. No query is lost, addresses that
    /// stay keep their sockets, and caches whose options are the same keep what they have. `snapshot` is the one
    /// published last. The number of threads cannot change.
    pub fn apply(&self, config: &DnsConfig, snapshot: &Snapshot) -> Result<(), DnsError> {
        check(config)?;
        if config.udp_threads != self.udp_threads {
            return Err(ConfigError::Fixed("udp_threads").into());
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |wanted: &SocketAddr| taken.iter().all(|taken| taken.wanted != *wanted);
        let new: Vec<_> = config.listen.iter().copied().filter(is_new).collect();
        // Bound before anything changes: what cannot be had leaves all as it was.
        let sockets = bind_all(&new, thread_count(config), &mut Inherited::default(), &self.keeping)?;
        let all = config.listen.iter().filter_map(|wanted| {
            let bound = sockets.iter().map(|(taken, _)| taken);
            taken.iter().chain(bound).find(|taken| taken.wanted == *wanted).cloned()
        });
        let all: Vec<Taken> = all.collect();
        let old = self.handler.load();
        let (origin, handler) =
            assemble(config, &addresses(&all), &self.metrics, &self.zone, Some(&old.routes))?;
        self.metrics.show_plugins(config);
        self.publisher.change(origin, snapshot);
        self.handler.store(Arc::new(handler));
        self.changed.send_replace(());
        let opened = sockets.into_iter().map(|(_, sockets)| Order::Open(sockets));
        let stays = |old: &&Taken| all.iter().any(|new| new.address == old.address);
        let closed = taken.iter().filter(|old| !stays(old)).map(|old| Order::Close(old.address));
        for order in opened.chain(closed) {
            // A server that has ended listens nowhere.
            let _ = self.orders.send(order);
        }
        *taken = all;
        Ok(())
    }

    /// What answers at present.
    pub(crate) fn handler(&self) -> Arc<Handler> {
        self.handler.load_full()
    }

    /// The upstreams whose questions come back to this server.
    pub fn looping_upstreams(&self) -> BTreeSet<SocketAddr> {
        self.handler().routes.looping()
    }

    /// The sockets of each address, for somebody to keep until a later server inherits them; none where this one was
    /// not made to leave any.
    pub fn sockets(&self) -> Vec<(SocketAddr, Arc<Vec<OwnedFd>>)> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().map(|taken| (taken.address, taken.copies.clone())).collect()
    }

    /// Says whether somebody keeps the sockets. Where nobody does, they are of no use any more at the server's end:
    /// what comes goes to a successor that has bound beside it.
    pub fn set_kept(&self, kept: bool) {
        self.keeping.set(kept);
    }

    /// The addresses that are taken, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DnsConfig {
    /// Whether a server could be of this configuration, its addresses left aside.
    pub fn check(&self) -> Result<(), DnsError> {
        let metrics = Metrics::new().map_err(DnsError::Metrics)?;
        assemble(self, &self.listen, &metrics, &Arc::default(), None)?;
        Ok(())
    }
}

/// Takes addresses.
fn bind_all(
    listen: &[SocketAddr],
    threads: usize,
    inherited: &mut Inherited,
    keeping: &Keeping,
) -> Result<Vec<(Taken, Sockets)>, DnsError> {
    let bind = |wanted: &SocketAddr| {
        let sockets = Sockets::bind(*wanted, threads, inherited, keeping)?;
        let copies = if keeping.is_possible { sockets.copies()? } else { Vec::new() };
        Ok((Taken { wanted: *wanted, address: sockets.address, copies: Arc::new(copies) }, sockets))
    };
    listen.iter().map(bind).collect()
}

fn addresses(taken: &[Taken]) -> Vec<SocketAddr> {
    taken.iter().map(|taken| taken.address).collect()
}

fn thread_count(config: &DnsConfig) -> usize {
    match config.udp_threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS)),
        n => n,
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
    let ips: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
    let origin = Arc::new(Origin::new(check(config)?, config, &ips));
    let routes = Routes::new(config, addresses, metrics, old)?;
    let rules = RuleSet::new(&config.rules, &metrics.rules)?;
    let transfers = Transfers::new(config)?;
    Ok((origin.clone(), Handler::new(origin, zone.clone(), routes, rules, transfers, config, metrics)))
}

/// The zone's name, if the configuration can be served.
fn check(config: &DnsConfig) -> Result<WireName, ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let read = |zone: &String| {
        let name =
            WireName::parse(zone).filter(|name| name.as_bytes().len() > 1 && zone.bytes().all(is_plain));
        name.ok_or_else(|| ConfigError::Zone(zone.clone()))
    };
    let name = read(&config.zone)?;
    config.more_zones.iter().try_for_each(|zone| read(zone).map(drop))?;
    for zone in &config.multicluster_zones {
        if read(zone)? == name {
            return Err(ConfigError::Multicluster(zone.clone()));
        }
    }
    if config.zonal && !config.endpoints {
        return Err(ConfigError::Zonal);
    }
    if config.ttl > 3600 {
        return Err(ConfigError::Ttl(config.ttl));
    }
    config.external.as_ref().map(ExternalOrigin::new).transpose()?;
    if !(512..=4096).contains(&config.max_udp_payload) {
        return Err(ConfigError::UdpPayload(config.max_udp_payload));
    }
    Ok(name)
}
