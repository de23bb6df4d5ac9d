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
use sluice_model::IpFamily;
use sluice_proxy::{FlowCensus, ProgramRuns, WithoutLocal};

/// The label of kube-proxy's metrics. A pass serves both families at once, so both get the same values.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// The metrics, and the registry that holds them.
pub struct Metrics {
    /// Everything below.
    pub registry: Registry,
    /// What every component of Kubernetes tells of its own health, apart from the rest.
    pub slis: Registry,
    check_result: IntGaugeVec,
    check_count: IntCounterVec,
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
    no_local_endpoints: IntGaugeVec,
    reconcile_duration: HistogramVec,
    reconcile_deleted: IntCounterVec,
    healthz: IntCounterVec,
    livez: IntCounterVec,
    connections: IntGaugeVec,
    program_runs: IntCounterVec,
    program_seconds: GaugeVec,
    drops: IntCounterVec,
    map_entries: IntGaugeVec,
    map_capacity: IntGaugeVec,
    failures: IntCounterVec,
    faults: IntGauge,
    foreign_cni: IntGauge,
    taken_ports: IntGauge,
    features: IntGaugeVec,
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
        let slis = Maker(Registry::new());
        let check = &["name", "type"];
        let sync = exponential_buckets(0.001, 2.0, 15)?;
        let programming: Vec<f64> = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5]
            .into_iter()
            .chain((1..60).map(f64::from))
            .chain([60.0, 120.0, 300.0])
            .collect();
        let changes = "service changes seen by the proxy";
        let endpoints = "endpoint changes seen by the proxy";
        let metrics = Self {
            check_result: slis.put(IntGaugeVec::new(
                Opts::new("kubernetes_healthcheck", "1 if the check was passed"),
                check,
            )?)?,
            check_count: slis.put(IntCounterVec::new(
                Opts::new("kubernetes_healthchecks_total", "checks by result"),
                &["name", "status", "type"],
            )?)?,
            slis: slis.0,
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
            no_local_endpoints: make.put(IntGaugeVec::new(
                Opts::new(
                    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                    "service ports with a policy Local, endpoints elsewhere and none on this node",
                ),
                &["ip_family", "traffic_policy"],
            )?)?,
            reconcile_duration: make.histogram(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "time spent on a round through the table of connections",
                &sync,
            )?,
            reconcile_deleted: make.counter(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "entries removed from the table of connections because they were over",
                "ip_family",
            )?,
            healthz: make.counter(
                "kubeproxy_proxy_healthz_total",
                "answers of /healthz by status",
                "code",
            )?,
            livez: make.counter("kubeproxy_proxy_livez_total", "answers of /livez by status", "code")?,
            connections: make.gauges(
                "sluice_connections",
                "translated connections when they were last counted",
                "protocol",
            )?,
            program_runs: make.counter("sluice_program_runs_total", "runs of a program", "program")?,
            program_seconds: make.put(GaugeVec::new(
                Opts::new("sluice_program_run_seconds_total", "time spent in a program"),
                &["program"],
            )?)?,
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
            taken_ports: make.put(IntGauge::new(
                "sluice_node_ports_taken",
                "node ports of services that a process of this node is bound to",
            )?)?,
            foreign_cni: make.put(IntGauge::new(
                "sluice_foreign_cni_configurations",
                "network configurations of others in the container runtime's folder",
            )?)?,
            features: make.gauges(
                "sluice_kernel_feature",
                "1 for each feature of the kernel that is there, 0 for each that is done without",
                "feature",
            )?,
            faults: make.put(IntGauge::new(
                "sluice_manifest_faults",
                "manifest files, or objects of the API, that have a mistake in them",
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
            // What alerts divide by is there from the start.
            metrics.full_duration.with_label_values(&[family]);
            metrics.partial_duration.with_label_values(&[family]);
            metrics.last_sync.with_label_values(&[family]);
            metrics.last_queued.with_label_values(&[family]);
            metrics.endpoint_changes.with_label_values(&[family]);
            metrics.service_changes.with_label_values(&[family]);
            metrics.reconcile_duration.with_label_values(&[family]);
            metrics.reconcile_deleted.with_label_values(&[family]);
        }
        for family in IpFamily::ALL {
            metrics.set_without_local(family, WithoutLocal::default());
        }
        for code in ["200", "503"] {
            metrics.healthz.with_label_values(&[code]);
            metrics.livez.with_label_values(&[code]);
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

    /// How many service ports of a family drop traffic for want of an endpoint on this node.
    pub fn set_without_local(&self, family: IpFamily, without: WithoutLocal) {
        for (policy, count) in [("internal", without.internal), ("external", without.external)] {
            self.no_local_endpoints.with_label_values(&[label(family), policy]).set(count as i64);
        }
    }

    /// A round through the table of connections was made.
    pub fn collected(&self, census: &FlowCensus) {
        for family in IpFamily::ALL {
            let removed = census.removed.get(&family).copied().unwrap_or(0);
            self.reconcile_deleted.with_label_values(&[label(family)]).inc_by(removed as u64);
            let duration = self.reconcile_duration.with_label_values(&[label(family)]);
            duration.observe(census.work.as_secs_f64());
        }
        for protocol in ["tcp", "udp", "sctp", "icmp"] {
            let count = census.connections.get(protocol).copied().unwrap_or(0);
            self.connections.with_label_values(&[protocol]).set(count as i64);
        }
    }

    /// What the kernel has counted of a program since it was loaded.
    pub fn set_program(&self, runs: &ProgramRuns) {
        let counter = self.program_runs.with_label_values(&[runs.program]);
        if runs.count < counter.get() {
            // Another program under this name: it counts from the start.
            counter.reset();
        }
        counter.inc_by(runs.count.saturating_sub(counter.get()));
        self.program_seconds.with_label_values(&[runs.program]).set(runs.time.as_secs_f64());
    }

    /// A change of endpoints that happened at `trigger` is in effect at `now`.
    pub fn programmed(&self, family: IpFamily, trigger: SystemTime, now: SystemTime) {
        let took = now.duration_since(trigger).unwrap_or_default();
        self.programming.with_label_values(&[label(family)]).observe(took.as_secs_f64());
    }

    /// A change that was noticed so long ago is in effect.
    pub fn changed(&self, took: Duration) {
        self.change_duration.observe(took.as_secs_f64());
    }

    /// A part of the agent's health was looked at.
    pub fn checked(&self, name: &str, healthy: bool) {
        let status = if healthy { "success" } else { "error" };
        self.check_result.with_label_values(&[name, "healthz"]).set(i64::from(healthy));
        self.check_count.with_label_values(&[name, status, "healthz"]).inc();
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

    /// So many node ports are others'.
    pub fn set_taken_ports(&self, count: usize) {
        self.taken_ports.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many network configurations of others lie beside ours.
    pub fn set_foreign_cni(&self, count: usize) {
        self.foreign_cni.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The kernel has a feature, or not.
    pub fn set_feature(&self, name: &str, present: bool) {
        self.features.with_label_values(&[name]).set(present.into());
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

const fn label(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => FAMILIES[0],
        IpFamily::V6 => FAMILIES[1],
    }
}

const fn code(healthy: bool) -> &'static str {
    if healthy { "200" } else { "503" }
}
