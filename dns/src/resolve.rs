//! What others say of a name: from the cache, from a question already under way, or by asking.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use crate::{
    CacheConfig, ConfigError,
    cache::{Cache, Entry, Key},
    chain::{Chain, TOTAL},
    forward::ForwardError,
    message::Question,
    metrics::Metrics,
    name::WireName,
    query::{Query, QueryName},
};

/// What comes of asking others.
pub(crate) type Resolved = Result<Arc<Entry>, Arc<ForwardError>>;

/// Questions under way by their keys; equal ones wait for the same answer.
type Flights = Mutex<HashMap<Box<[u8]>, watch::Receiver<Option<Resolved>>>>;

/// Asks others, and remembers what they said.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// The upstreams.
    pub(crate) chain: Chain,
    cache: Option<Cache>,
    config: CacheConfig,
    scope: Scope,
    flights: Flights,
    metrics: Metrics,
    this: Weak<Self>,
}

/// Whose answers are kept.
#[derive(Debug)]
struct Scope {
    zones: Vec<WireName>,
    no_success: Vec<WireName>,
    no_denial: Vec<WireName>,
}

impl Scope {
    fn new(config: &CacheConfig) -> Result<Self, ConfigError> {
        let names = |zones: &[String]| {
            let name = |zone: &String| WireName::parse(zone).ok_or_else(|| ConfigError::Zone(zone.clone()));
            zones.iter().map(name).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            zones: names(&config.zones)?,
            no_success: names(&config.no_success)?,
            no_denial: names(&config.no_denial)?,
        })
    }

    fn keeps(&self, question: &Question, is_denial: bool) -> bool {
        let Some((name, _)) = QueryName::read(&question.wire, 0) else { return false };
        let is_among =
            |zones: &[WireName]| zones.iter().any(|zone| name.labels_before(zone.as_bytes()).is_some());
        let not_kept = if is_denial { &self.no_denial } else { &self.no_success };
        (self.zones.is_empty() || is_among(&self.zones)) && !is_among(not_kept)
    }
}

/// An answer that is told at once.
pub(crate) struct Hit {
    /// The entry.
    pub(crate) entry: Arc<Entry>,
    /// The time to live to tell.
    pub(crate) ttl: u32,
    /// It should be asked for again, so that it stays good.
    pub(crate) refresh: bool,
}

impl Resolver {
    /// A resolver that knows nothing yet.
    pub(crate) fn new(chain: Chain, config: CacheConfig, metrics: Metrics) -> Result<Arc<Self>, ConfigError> {
        let scope = Scope::new(&config)?;
        Ok(Arc::new_cyclic(|this| Self {
            chain,
            cache: config.enabled.then(|| Cache::new(&config)),
            config,
            scope,
            flights: Mutex::default(),
            metrics,
            this: this.clone(),
        }))
    }

    /// What the cache has for a client's query.
    pub(crate) fn cached(&self, query: &Query<'_>, now: Instant) -> Option<Hit> {
        self.cached_key(&Key::of(query), now)
    }

    /// Whether a client's question that the cache has no answer for is refused at once: so many others are asked already, and
    /// this is none of them.
    pub(crate) fn refuses(&self, query: &Query<'_>) -> bool {
        // What is past its time may be better than nothing.
        if !self.chain.is_full() || self.config.serve_stale.is_some() {
            return false;
        }
        let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asked = flights.contains_key(Key::of(query).as_bytes());
        if !is_asked {
            self.metrics.rejects.inc();
        }
        !is_asked
    }

    /// The answer to a question of ours, from the cache or by asking.
    pub(crate) async fn get(&self, question: &Question) -> Resolved {
        match self.cached_key(&Key::of_question(question), Instant::now()) {
            Some(hit) => {
                if hit.refresh {
                    self.refresh(question);
                }
                Ok(hit.entry)
            }
            None => self.ask(question).await,
        }
    }

    fn cached_key(&self, key: &Key, now: Instant) -> Option<Hit> {
        let entry = self.cache.as_ref()?.get(key, now);
        let hit = entry.and_then(|entry| self.hit(entry, now));
        // A miss is counted when others are asked: it may be looked for twice.
        self.metrics.cache.requests.inc_by(u64::from(hit.is_some()));
        match &hit {
            None => {}
            Some(hit) if hit.entry.answer.is_denial() => self.metrics.cache.denial_hits.inc(),
            Some(_) => self.metrics.cache.success_hits.inc(),
        }
        hit
    }

    fn hit(&self, entry: Arc<Entry>, now: Instant) -> Option<Hit> {
        let Some(ttl) = entry.remaining(now) else {
            // Past its time: told at once only where that is wanted, or others were asked just now; and never a failure.
            let stale = self.config.serve_stale.as_ref()?;
            let (is_kept, is_paused) = (entry.is_kept(now, stale.duration), entry.is_paused(now));
            let is_told = is_kept && entry.rcode() != 2 && (is_paused || !stale.verify);
            return is_told.then(|| {
                self.metrics.cache.served_stale.inc();
                Hit { entry, ttl: stale.ttl, refresh: !is_paused }
            });
        };
        let refresh = self.config.prefetch.as_ref().is_some_and(|prefetch| {
            let is_late =
                u64::from(ttl) <= (entry.ttl().as_secs() * u64::from(prefetch.percent)).div_ceil(100);
            entry.asked(now, prefetch.within) >= prefetch.hits && is_late
        });
        if refresh {
            // Once is enough: the new answer starts to count from nothing.
            entry.forget_asked();
            self.metrics.cache.prefetches.inc();
        }
        let ttl = if self.config.keep_ttl { entry.ttl().as_secs() as u32 } else { ttl };
        Some(Hit { entry, ttl, refresh })
    }

    /// Asks again what is in the cache, for the next client.
    pub(crate) fn refresh(&self, question: &Question) {
        drop(self.join(question));
    }

    /// Asks the upstreams, together with whoever asks the same.
    async fn ask(&self, question: &Question) -> Resolved {
        if self.cache.is_some() {
            self.metrics.cache.requests.inc();
            self.metrics.cache.misses.inc();
        }
        let mut flight = self.join(question);
        let landing = flight.wait_for(Option::is_some);
        // What is past its time is told where the upstreams take too long, or do not answer.
        let patience = self.config.serve_stale.as_ref().and_then(|stale| stale.patience);
        if let Some(patience) = patience.filter(|_| self.stale(question).is_some()) {
            match timeout(patience, landing).await {
                Ok(landed) => return self.landed(question, landed.ok().and_then(|landed| landed.clone())),
                Err(_) => return self.landed(question, None),
            }
        }
        let landed = landing.await.ok().and_then(|landed| landed.clone());
        self.landed(question, landed)
    }

    /// What came of asking: none where nothing has come yet, or the runtime is ending.
    fn landed(&self, question: &Question, landed: Option<Resolved>) -> Resolved {
        let result = landed.unwrap_or_else(|| Err(Arc::new(ForwardError::NoUpstream)));
        if result.as_ref().is_ok_and(|entry| self.refreshes(entry)) {
            return result;
        }
        self.stale(question).map_or(result, |entry| {
            self.metrics.cache.served_stale.inc();
            Ok(entry)
        })
    }

    /// Whether an answer takes the place of one that is past its time (RFC 8767, 4).
    fn refreshes(&self, entry: &Entry) -> bool {
        match &self.config.serve_stale {
            Some(stale) if stale.prefer_positive => entry.answer.is_positive(),
            _ => matches!(entry.rcode(), 0 | 3),
        }
    }

    /// What is kept past its time and may be told.
    fn stale(&self, question: &Question) -> Option<Arc<Entry>> {
        let now = Instant::now();
        let entry = self.past(&Key::of_question(question), now)?;
        let stale = self.config.serve_stale.as_ref()?;
        (entry.rcode() != 2 && entry.is_kept(now, stale.duration)).then_some(entry)
    }

    /// What is kept past its time.
    fn past(&self, key: &Key, now: Instant) -> Option<Arc<Entry>> {
        self.cache.as_ref()?.get(key, now).filter(|entry| entry.remaining(now).is_none())
    }

    /// Notes that others are asked, or were in vain: they are not asked again for a while, if so it is wanted.
    fn pause(&self, key: &Key, is_asked: bool) {
        let recheck = self.config.serve_stale.as_ref().map_or(Duration::ZERO, |stale| stale.recheck);
        if recheck.is_zero() {
            return;
        }
        let now = Instant::now();
        if let Some(entry) = self.past(key, now) {
            entry.pause(now, if is_asked { TOTAL } else { Duration::ZERO } + recheck);
        }
    }

    /// The flight of a question; starts it where there is none.
    fn join(&self, question: &Question) -> watch::Receiver<Option<Resolved>> {
        let key = Key::of_question(question);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key.as_bytes()) {
            return flight.clone();
        }
        let (land, flight) = watch::channel(None);
        let Some(this) = self.this.upgrade() else { return flight };
        flights.insert(key.as_bytes().into(), flight.clone());
        self.pause(&key, true);
        let question = question.clone();
        // A task of its own: a client that goes away does not end it for the others.
        tokio::spawn(async move {
            let ended = Landing { resolver: &this, key: &key };
            let result = this.chain.ask(&question).await;
            let result = result.map_err(Arc::new).map(|answer| {
                let entry = Arc::new(Entry::new(answer, &question, Instant::now(), &this.config));
                let is_kept = !entry.ttl().is_zero() && this.scope.keeps(&question, entry.answer.is_denial());
                if let Some(cache) = this.cache.as_ref().filter(|_| is_kept) {
                    cache.put(&key, &entry);
                    this.metrics.cache.show(cache);
                }
                entry
            });
            if !result.as_ref().is_ok_and(|entry| this.refreshes(entry)) {
                this.pause(&key, false);
            }
            // The entry is there before the flight is gone: nobody asks once more in between.
            drop(ended);
            let _ = land.send(Some(result));
        });
        flight
    }

    /// The time to live that a client is told of an entry that just came, or is past its time.
    pub(crate) fn ttl(&self, entry: &Entry) -> u32 {
        let stale = || self.config.serve_stale.as_ref().map_or(0, |stale| stale.ttl);
        entry.remaining(Instant::now()).unwrap_or_else(stale)
    }

    /// Whether answers are kept, and so counted down as a whole.
    pub(crate) fn is_caching(&self) -> bool {
        self.cache.is_some()
    }
}

/// Removes a flight when it has landed, or crashed.
struct Landing<'r> {
    resolver: &'r Resolver,
    key: &'r Key,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.resolver.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(self.key.as_bytes());
    }
}
