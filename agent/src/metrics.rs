//! What the agent counts. Names that kube-proxy has are kube-proxy's (rows 41 and 42 of the behaviour table), so
//! that dashboards and alerts go on working; ours begin with `sluice_`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector, exponential_buckets,
};

/// The label of kube-proxy's metrics. A pass serves both families at once, so both get the same values.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// The metrics, and the registry that holds them.
pub struct Metrics {
    /// Everything below.
    pub registry: Registry,
    sync_duration: HistogramVec,
    full_duration: HistogramVec,
    partial_duration: HistogramVec,
    last_sync: GaugeVec,
    last_queued: GaugeVec,
    programming: HistogramVec,
    endpoint_changes: IntCounterVec,
    service_changes: IntCounterVec,
    endpoint_pending: IntGaugeVec,
    service_pending: IntGaugeVec,
    healthz: IntCounterVec,
    livez: IntCounterVec,
    drops: IntCounterVec,
    map_entries: IntGaugeVec,
    map_capacity: IntGaugeVec,
    failures: IntCounterVec,
    faults: IntGauge,
    ready: IntGauge,
    started: Gauge,
    change_duration: Histogram,
}

/// A pass of the loop, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct PassRecord {
    /// How long the services took.
    pub duration: Duration,
    /// Whether everything was looked at.
    pub full: bool,
    /// When it ended.
    pub end: SystemTime,
}

fn seconds_since_epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Makes metrics and puts them into the registry.
struct Maker(Registry);

type Made<T> = Result<T, prometheus::Error>;

impl Maker {
    fn put<C: Collector + Clone + 'static>(&self, collector: C) -> Made<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Made<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.put(HistogramVec::new(options, &["ip_family"])?)
    }

    fn counter(&self, name: &str, help: &str, label: &str) -> Made<IntCounterVec> {
        self.put(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> Made<GaugeVec> {
        self.put(GaugeVec::new(Opts::new(name, help), &["ip_family"])?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Made<IntGaugeVec> {
        self.put(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Made<Self> {
        let make = Maker(Registry::new());
        let sync = exponential_buckets(0.001, 2.0, 15)?;
        let programming: Vec<f64> = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5]
            .into_iter()
            .chain((1..60).map(f64::from))
            .chain([60.0, 120.0, 300.0])
            .collect();
        let changes = "service changes seen by the proxy";
        let endpoints = "endpoint changes seen by the proxy";
        let metrics = Self {
            sync_duration: make.histogram(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "duration of a pass over services",
                &sync,
            )?,
            full_duration: make.histogram(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "duration of a pass over all services",
                &sync,
            )?,
            partial_duration: make.histogram(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "duration of a pass over changed services",
                &sync,
            )?,
            last_sync: make.gauge(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "when the last pass ended that left nothing undone",
            )?,
            last_queued: make.gauge(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "when a pass was last asked for",
            )?,
            programming: make.histogram(
                "kubeproxy_network_programming_duration_seconds",
                "time from a change of endpoints to its effect",
                &programming,
            )?,
            endpoint_changes: make.counter(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                endpoints,
                "ip_family",
            )?,
            service_changes: make.counter(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                changes,
                "ip_family",
            )?,
            endpoint_pending: make.gauges(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "endpoint changes not in effect yet",
                "ip_family",
            )?,
            service_pending: make.gauges(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "service changes not in effect yet",
                "ip_family",
            )?,
            healthz: make.counter(
                "kubeproxy_proxy_healthz_total",
                "answers of /healthz by status",
                "code",
            )?,
            livez: make.counter("kubeproxy_proxy_livez_total", "answers of /livez by status", "code")?,
            drops: make.counter(
                "sluice_dropped_packets_total",
                "packets that the datapath dropped",
                "reason",
            )?,
            map_entries: make.gauges("sluice_map_entries", "entries in a map of the datapath", "map")?,
            map_capacity: make.gauges(
                "sluice_map_capacity",
                "entries that a map of the datapath can hold",
                "map",
            )?,
            failures: make.counter(
                "sluice_failures_total",
                "what failed and was or will be tried again",
                "part",
            )?,
            faults: make.put(IntGauge::new(
                "sluice_manifest_faults",
                "manifest files that have a mistake in them",
            )?)?,
            ready: make.put(IntGauge::new("sluice_ready", "1 once the node serves")?)?,
            started: make.put(Gauge::new("process_start_time_seconds", "when the agent was started")?)?,
            change_duration: make.put(Histogram::with_opts(
                HistogramOpts::new(
                    "sluice_change_duration_seconds",
                    "time from the notice of a change to its effect",
                )
                .buckets(exponential_buckets(0.0005, 2.0, 14)?),
            )?)?,
            registry: make.0,
        };
        metrics.started.set(seconds_since_epoch(SystemTime::now()));
        for family in FAMILIES {
            metrics.sync_duration.with_label_values(&[family]);
            metrics.programming.with_label_values(&[family]);
            metrics.endpoint_pending.with_label_values(&[family]).set(0);
            metrics.service_pending.with_label_values(&[family]).set(0);
        }
        Ok(metrics)
    }

    /// Changes came that wait for a pass.
    pub fn queued(&self, endpoints: usize, services: usize, now: SystemTime) {
        for family in FAMILIES {
            self.last_queued.with_label_values(&[family]).set(seconds_since_epoch(now));
            self.endpoint_changes.with_label_values(&[family]).inc_by(endpoints as u64);
            self.service_changes.with_label_values(&[family]).inc_by(services as u64);
            self.endpoint_pending.with_label_values(&[family]).add(endpoints as i64);
            self.service_pending.with_label_values(&[family]).add(services as i64);
        }
    }

    /// A pass was made.
    pub fn passed(&self, pass: PassRecord, complete: bool) {
        let kind = if pass.full { &self.full_duration } else { &self.partial_duration };
        for family in FAMILIES {
            self.sync_duration.with_label_values(&[family]).observe(pass.duration.as_secs_f64());
            kind.with_label_values(&[family]).observe(pass.duration.as_secs_f64());
            if complete {
                self.last_sync.with_label_values(&[family]).set(seconds_since_epoch(pass.end));
                self.endpoint_pending.with_label_values(&[family]).set(0);
                self.service_pending.with_label_values(&[family]).set(0);
            }
        }
    }

    /// A change of endpoints that happened at `trigger` is in effect at `now`.
    pub fn programmed(&self, family: sluice_model::IpFamily, trigger: SystemTime, now: SystemTime) {
        let label = match family {
            sluice_model::IpFamily::V4 => FAMILIES[0],
            sluice_model::IpFamily::V6 => FAMILIES[1],
        };
        let took = now.duration_since(trigger).unwrap_or_default();
        self.programming.with_label_values(&[label]).observe(took.as_secs_f64());
    }

    /// A change that was noticed so long ago is in effect.
    pub fn changed(&self, took: Duration) {
        self.change_duration.observe(took.as_secs_f64());
    }

    /// `/healthz` was answered.
    pub fn healthz(&self, healthy: bool) {
        self.healthz.with_label_values(&[code(healthy)]).inc();
    }

    /// `/livez` was answered.
    pub fn livez(&self, healthy: bool) {
        self.livez.with_label_values(&[code(healthy)]).inc();
    }

    /// Something failed.
    pub fn failed(&self, part: &str) {
        self.failures.with_label_values(&[part]).inc();
    }

    /// How many manifest files have a mistake in them.
    pub fn set_faults(&self, faults: usize) {
        self.faults.set(faults as i64);
    }

    /// The node serves.
    pub fn set_ready(&self) {
        self.ready.set(1);
    }

    /// Packets dropped since the datapath was made, by reason. The counters live in the datapath and outlast
    /// the agent.
    pub fn set_drops(&self, drops: &BTreeMap<&str, u64>) {
        for (reason, count) in drops {
            let counter = self.drops.with_label_values(&[*reason]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// How full a map is.
    pub fn set_map(&self, map: &str, entries: usize, capacity: usize) {
        self.map_entries.with_label_values(&[map]).set(entries as i64);
        self.map_capacity.with_label_values(&[map]).set(capacity as i64);
    }
}

const fn code(healthy: bool) -> &'static str {
    if healthy { "200" } else { "503" }
}
