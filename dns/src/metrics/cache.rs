//! The cache's counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{
    IntCounter, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::cache::Cache;

/// Counters of what was found and what was not. Their labels `server`, `zones` and `view` are CoreDNS's; one
/// cache serves all addresses here, so they say nothing.
#[derive(Clone, Debug)]
pub(crate) struct CacheMetrics {
    hits: IntCounterVec,
    entries: IntGaugeVec,
    evictions: IntCounterVec,
    all_requests: IntCounterVec,
    all_misses: IntCounterVec,
    all_served_stale: IntCounterVec,
    all_prefetches: IntCounterVec,
    /// Stays at zero: what is no answer to the question never gets as far.
    drops: IntCounterVec,
    evicted: [Arc<AtomicUsize>; 2],
    /// Answers found.
    pub(crate) success_hits: IntCounter,
    /// Denials found.
    pub(crate) denial_hits: IntCounter,
    /// Asked for.
    pub(crate) requests: IntCounter,
    /// Nothing found.
    pub(crate) misses: IntCounter,
    /// Told past their time.
    pub(crate) served_stale: IntCounter,
    /// Asked for again while good.
    pub(crate) prefetches: IntCounter,
}

const COMMON: [&str; 3] = ["server", "zones", "view"];
const TYPED: [&str; 4] = ["server", "type", "zones", "view"];
const VALUES: [&str; 3] = ["dns://", ".", ""];
const SUCCESS: [&str; 4] = ["dns://", "success", ".", ""];
const DENIAL: [&str; 4] = ["dns://", "denial", ".", ""];

impl CacheMetrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("coredns").subsystem("cache");
        let hits = IntCounterVec::new(opts("hits_total", "Queries answered from the cache."), &TYPED)?;
        let requests =
            IntCounterVec::new(opts("requests_total", "Queries the cache was asked for."), &COMMON)?;
        let misses = IntCounterVec::new(opts("misses_total", "Queries the cache had nothing for."), &COMMON)?;
        let stale = IntCounterVec::new(opts("served_stale_total", "Answers told past their time."), &COMMON)?;
        let prefetch =
            IntCounterVec::new(opts("prefetch_total", "Answers asked for again while good."), &COMMON)?;
        let drops = IntCounterVec::new(opts("drops_total", "Answers to other questions."), &COMMON)?;
        drops.with_label_values(&VALUES);
        Ok(Self {
            drops,
            success_hits: hits.with_label_values(&SUCCESS),
            denial_hits: hits.with_label_values(&DENIAL),
            requests: requests.with_label_values(&VALUES),
            misses: misses.with_label_values(&VALUES),
            served_stale: stale.with_label_values(&VALUES),
            prefetches: prefetch.with_label_values(&VALUES),
            hits,
            entries: IntGaugeVec::new(opts("entries", "Entries of the cache."), &TYPED)?,
            evictions: IntCounterVec::new(opts("evictions_total", "Entries given up for room."), &TYPED)?,
            all_requests: requests,
            all_misses: misses,
            all_served_stale: stale,
            all_prefetches: prefetch,
            evicted: Default::default(),
        })
    }

    /// Shows how full the cache is.
    pub(crate) fn show(&self, cache: &Cache) {
        for ((store, labels), shown) in
            [(&cache.success, &SUCCESS), (&cache.denial, &DENIAL)].into_iter().zip(&self.evicted)
        {
            self.entries.with_label_values(labels).set(store.len() as i64);
            let now = store.evictions();
            let before = shown.fetch_max(now, Ordering::Relaxed);
            self.evictions.with_label_values(labels).inc_by(now.saturating_sub(before) as u64);
        }
    }

    fn each(&self) -> [&dyn Collector; 8] {
        [
            &self.hits,
            &self.entries,
            &self.evictions,
            &self.all_requests,
            &self.all_misses,
            &self.all_served_stale,
            &self.all_prefetches,
            &self.drops,
        ]
    }
}

impl Collector for CacheMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.each().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.each().into_iter().flat_map(Collector::collect).collect()
    }
}
