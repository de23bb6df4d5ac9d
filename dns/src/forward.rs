//! Asks others about names that are not ours.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    ConfigError, ForwardOptions, Policy, Upstreams,
    exchange::Setup,
    message::{Answer, Question},
    metrics::Metrics,
    name::WireName,
    resolv,
    tls::Encryption,
    upstream::{Upstream, UpstreamError},
};

/// How often the resolv.conf is looked at.
const REREAD: Duration = Duration::from_secs(2);
/// As many as CoreDNS takes.
const MAX_UPSTREAMS: usize = 15;

/// Why a question found no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// The configuration says to ask nobody.
    #[error("no upstream server is configured")]
    Refused,
    /// There is nobody to ask at the moment.
    #[error("the resolv.conf names no upstream server")]
    NoUpstream,
    /// Too many questions are under way.
    #[error("too many questions are under way")]
    Overload,
    /// Nobody answered.
    #[error("no upstream server answered")]
    Failed(#[source] UpstreamError),
}

/// The upstream servers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// The host's search domains, where there is a file that says them.
    pub(crate) search: ArcSwap<Vec<WireName>>,
    file: Option<PathBuf>,
    /// What the file said, or that it could not be read; nothing before the first look.
    last: Mutex<Option<Option<String>>>,
    enabled: bool,
    permits: Semaphore,
    options: Arc<ForwardOptions>,
    encryption: Option<Encryption>,
    setup: Setup,
    /// Where the next round starts.
    turn: AtomicUsize,
    /// Our own addresses: to ask them would be to ask ourselves.
    own: Vec<SocketAddr>,
    metrics: Metrics,
}

impl Forwarder {
    /// Reads the configuration.
    pub(crate) fn new(
        upstreams: &Upstreams,
        max_concurrent: usize,
        options: ForwardOptions,
        own: Vec<SocketAddr>,
        metrics: Metrics,
    ) -> Result<Self, ConfigError> {
        if let (Upstreams::Addresses(servers), Some(_)) = (upstreams, &options.https)
            && let Some(server) = servers.iter().find(|server| server.is_ipv6())
            && options.tls.as_ref().is_none_or(|tls| tls.name_of(server).is_none())
        {
            return Err(ConfigError::HttpsName(*server));
        }
        let (addresses, file) = match upstreams {
            Upstreams::None => (Vec::new(), None),
            Upstreams::Addresses(addresses) if addresses.len() > MAX_UPSTREAMS => {
                return Err(ConfigError::TooManyUpstreams(addresses.len()));
            }
            Upstreams::Addresses(addresses) => (addresses.clone(), None),
            Upstreams::ResolvConf(path) => (Vec::new(), Some(path.clone())),
        };
        let forwarder = Self {
            upstreams: ArcSwap::default(),
            search: ArcSwap::default(),
            file,
            last: Mutex::new(None),
            enabled: *upstreams != Upstreams::None,
            permits: Semaphore::new(match max_concurrent {
                0 => Semaphore::MAX_PERMITS,
                most => most.min(Semaphore::MAX_PERMITS),
            }),
            encryption: Encryption::of(&options)?,
            setup: Setup::new(options.attempt, options.source).map_err(ConfigError::Resolver)?,
            options: Arc::new(options),
            turn: AtomicUsize::new(0),
            own,
            metrics,
        };
        forwarder.set(addresses);
        if let Some(path) = &forwarder.file {
            forwarder.read_file(path);
        }
        Ok(forwarder)
    }

    /// Whether anything is ever forwarded.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Puts new servers in the place of the old ones; one that stays keeps what is known of it.
    fn set(&self, mut addresses: Vec<SocketAddr>) {
        addresses.retain(|address| {
            let is_ours = self.own.contains(address);
            if is_ours {
                tracing::warn!(upstream = %address, "this server's own address is no upstream");
            }
            !is_ours
        });
        addresses.truncate(MAX_UPSTREAMS);
        let old = self.upstreams.load();
        let kept = |address: &SocketAddr| old.iter().find(|held| held.address == *address).cloned();
        let new = addresses
            .iter()
            .map(|a| {
                kept(a).unwrap_or_else(|| {
                    let (options, encryption) = (self.options.clone(), self.encryption.clone());
                    Arc::new(Upstream::new(*a, options, encryption, self.setup.clone(), &self.metrics))
                })
            })
            .collect();
        self.upstreams.store(Arc::new(new));
    }

    /// Reads the file, if it is not as it was read last; tells of a failure once.
    fn read_file(&self, path: &Path) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match std::fs::read_to_string(path) {
            Ok(text) if last.as_ref().and_then(Option::as_ref) == Some(&text) => {}
            Ok(text) => {
                let (servers, bad) = resolv::nameservers(&text);
                for line in bad {
                    tracing::warn!(file = %path.display(), line, "not a server's address");
                }
                tracing::info!(file = %path.display(), ?servers, "upstream DNS servers");
                self.set(servers);
                self.search.store(Arc::new(resolv::search(&text)));
                *last = Some(Some(text));
            }
            // The servers read last stay: a file that is being replaced is missing for a moment.
            Err(error) => {
                if !matches!(*last, Some(None)) {
                    tracing::warn!(file = %path.display(), %error, "cannot read the upstream DNS servers");
                }
                *last = Some(None);
            }
        }
    }

    /// The upstreams in force.
    pub(crate) fn upstreams(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.upstreams.load_full()
    }

    /// Keeps up with the resolv.conf, and sees whether questions about names of `loops_of` come back, for ever.
    pub(crate) async fn watch(&self, loops_of: Option<&WireName>) {
        if self.file.is_none() && loops_of.is_none() {
            return std::future::pending().await;
        }
        let mut tick = tokio::time::interval(REREAD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Some(path) = &self.file {
                self.read_file(path);
            }
            if let Some(zone) = loops_of {
                self.upstreams.load().iter().for_each(|upstream| upstream.look_for_loop(zone));
            }
        }
    }

    /// Whether a question more would be one too many.
    pub(crate) fn is_full(&self) -> bool {
        self.enabled && self.permits.available_permits() == 0
    }

    /// Whether others are to be asked in the place of this answer, where there are any.
    pub(crate) fn passes_on(&self, answer: &Answer) -> bool {
        let is_nodata = answer.rcode() == 0 && answer.is_empty();
        self.options.next.contains(&answer.rcode()) || (self.options.next_on_nodata && is_nodata)
    }

    /// Asks until a server answers or the time is up.
    pub(crate) async fn ask(&self, question: &Question, end: Instant) -> Result<Answer, ForwardError> {
        if !self.enabled {
            return Err(ForwardError::Refused);
        }
        let _permit = self.permits.try_acquire().map_err(|_| {
            self.metrics.rejects.inc();
            ForwardError::Overload
        })?;
        let order = self.order();
        if order.iter().all(|upstream| upstream.is_down()) {
            self.metrics.all_down.inc_by(u64::from(!order.is_empty()));
            if self.options.fail_fast {
                return Err(ForwardError::NoUpstream);
            }
        }
        let mut last = None;
        let mut refused = None;
        for (n, upstream) in order.iter().cycle().enumerate() {
            let now = Instant::now();
            let is_tried = self.options.max_attempts > 0 && n >= self.options.max_attempts as usize;
            if now >= end || is_tried {
                break;
            }
            let round_over = (n + 1) % order.len() == 0;
            match upstream.ask(question, end.min(now + self.options.attempt)).await {
                Ok(answer) if self.options.failover.contains(&answer.rcode()) && !round_over => {
                    refused = Some(answer);
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    upstream.suspect();
                    // Servers that cannot be reached are not asked again at once.
                    let is_unreachable = matches!(error, UpstreamError::Unreachable { .. });
                    last = Some(error);
                    if round_over && (is_unreachable || refused.is_some()) {
                        break;
                    }
                }
            }
        }
        match (refused, last) {
            (Some(answer), _) => Ok(answer),
            (None, Some(error)) => Err(ForwardError::Failed(error)),
            (None, None) => Err(ForwardError::NoUpstream),
        }
    }

    /// The servers in the order in which they are tried: by the policy, those that are down last. Where all are, the health checks
    /// may be wrong: any of them is asked.
    fn order(&self) -> Vec<Arc<Upstream>> {
        let mut order = self.upstreams.load().as_ref().clone();
        let are_down = order.iter().all(|upstream| upstream.is_down());
        match self.options.policy {
            _ if are_down => shuffle(&mut order),
            Policy::Random => shuffle(&mut order),
            Policy::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
                order.rotate_left(turn);
            }
            Policy::Sequential => {}
        }
        order.sort_by_key(|upstream| upstream.is_down());
        order
    }
}

fn shuffle<T>(list: &mut [T]) {
    for n in (1..list.len()).rev() {
        list.swap(n, rand::random_range(0..=n));
    }
}
