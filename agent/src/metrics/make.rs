//! The metrics by their names, each at zero.

use std::time::SystemTime;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector, exponential_buckets,
};
use sluice_model::IpFamily;
use sluice_proxy::WithoutLocal;

use super::{FAMILIES, Metrics, seconds_since_epoch};

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
            .chain((60..120).step_by(5).map(f64::from))
            .chain((120..=300).step_by(30).map(f64::from))
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
            endpoint_changes: make
                .put(IntCounter::new("kubeproxy_sync_proxy_rules_endpoint_changes_total", endpoints)?)?,
            service_changes: make
                .put(IntCounter::new("kubeproxy_sync_proxy_rules_service_changes_total", changes)?)?,
            endpoint_pending: make.put(IntGauge::new(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "endpoint changes not in effect yet",
            )?)?,
            service_pending: make.put(IntGauge::new(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "service changes not in effect yet",
            )?)?,
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
            // What alerts divide by is there from the start.
            metrics.full_duration.with_label_values(&[family]);
            metrics.partial_duration.with_label_values(&[family]);
            metrics.last_sync.with_label_values(&[family]);
            metrics.last_queued.with_label_values(&[family]);
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
}
