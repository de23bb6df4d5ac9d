//! What the agent counts. Names that kube-proxy has are kube-proxy's (rows 41 and 42 of the behaviour table), so
//! that dashboards and alerts go on working; ours begin with `sluice_`.

mod make;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
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
    endpoint_changes: IntCounter,
    service_changes: IntCounter,
    endpoint_pending: IntGauge,
    service_pending: IntGauge,
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

impl Metrics {
    /// Changes came that wait for a pass.
    pub fn queued(&self, endpoints: usize, services: usize, now: SystemTime) {
        for family in FAMILIES {
            self.last_queued.with_label_values(&[family]).set(seconds_since_epoch(now));
        }
        self.endpoint_changes.inc_by(endpoints as u64);
        self.service_changes.inc_by(services as u64);
        self.endpoint_pending.add(endpoints as i64);
        self.service_pending.add(services as i64);
    }

    /// A pass was made.
    pub fn passed(&self, pass: PassRecord, complete: bool) {
        let kind = if pass.full { &self.full_duration } else { &self.partial_duration };
        for family in FAMILIES {
            self.sync_duration.with_label_values(&[family]).observe(pass.duration.as_secs_f64());
            kind.with_label_values(&[family]).observe(pass.duration.as_secs_f64());
            if complete {
                self.last_sync.with_label_values(&[family]).set(seconds_since_epoch(pass.end));
            }
        }
        if complete {
            self.endpoint_pending.set(0);
            self.service_pending.set(0);
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
