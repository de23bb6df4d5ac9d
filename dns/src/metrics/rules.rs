//! The counters of what comes before the zone and the upstreams: CoreDNS's `acl`, `template`, `hosts`, `dns64` and `autopath`.

use prometheus::{
    Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::AclAction;

/// Counters of rules. One set of rules serves all addresses here, so the labels `server` and `view` say nothing.
#[derive(Clone, Debug)]
pub(crate) struct RuleMetrics {
    /// What became of queries, by domain.
    blocked: IntCounterVec,
    filtered: IntCounterVec,
    dropped: IntCounterVec,
    allowed: IntCounterVec,
    matches: IntCounterVec,
    bad_records: IntCounterVec,
    all_translated: IntCounterVec,
    all_walks: IntCounterVec,
    /// Answers that were given IPv6 addresses.
    pub(crate) translated: IntCounter,
    /// Searches that were gone for a client.
    pub(crate) walks: IntCounter,
    /// Names and addresses of `hosts`.
    pub(crate) entries: IntGauge,
    /// When the hosts file was written that was read last, in seconds since 1970.
    pub(crate) read: Gauge,
    /// Signatures.
    pub(crate) signatures: SignatureMetrics,
}

const SERVER: &str = "dns://";

/// What is counted of signatures that are kept.
#[derive(Clone, Debug)]
pub(crate) struct SignatureMetrics {
    /// How many are kept.
    pub(crate) entries: IntGauge,
    /// How many were found.
    pub(crate) hits: IntCounter,
    /// How many were made.
    pub(crate) misses: IntCounter,
    all: [IntCounterVec; 2],
    all_entries: IntGaugeVec,
}

impl SignatureMetrics {
    fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("coredns").subsystem("dnssec");
        let hits = IntCounterVec::new(opts("cache_hits_total", "Signatures that were there."), &["server"])?;
        let misses =
            IntCounterVec::new(opts("cache_misses_total", "Signatures that were made."), &["server"])?;
        let entries =
            IntGaugeVec::new(opts("cache_entries", "Signatures that are kept."), &["server", "type"])?;
        Ok(Self {
            entries: entries.with_label_values(&[SERVER, "signature"]),
            hits: hits.with_label_values(&[SERVER]),
            misses: misses.with_label_values(&[SERVER]),
            all: [hits, misses],
            all_entries: entries,
        })
    }
}

/// What an `acl` counts.
#[derive(Clone, Debug)]
pub(crate) struct AclMetrics {
    allowed: IntCounter,
    blocked: IntCounter,
    filtered: IntCounter,
    dropped: IntCounter,
}

impl AclMetrics {
    /// Counts what became of a query.
    pub(crate) fn count(&self, action: AclAction) {
        match action {
            AclAction::Allow => self.allowed.inc(),
            AclAction::Block => self.blocked.inc(),
            AclAction::Filter => self.filtered.inc(),
            AclAction::Drop => self.dropped.inc(),
        }
    }
}

impl RuleMetrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let opts =
            |part: &str, name: &str, help: &str| Opts::new(name, help).namespace("coredns").subsystem(part);
        let acl = |name: &str, labels: &[&str]| {
            IntCounterVec::new(opts("acl", name, "Queries of which acl says so."), labels)
        };
        let of_zone = ["server", "zone", "view"];
        let translated = IntCounterVec::new(
            opts("dns64", "requests_translated_total", "Answers that were given IPv6 addresses."),
            &["server"],
        )?;
        let walks = IntCounterVec::new(
            opts("autopath", "success_total", "Searches that were gone for a client."),
            &["server"],
        )?;
        Ok(Self {
            signatures: SignatureMetrics::new()?,
            blocked: acl("blocked_requests_total", &of_zone)?,
            filtered: acl("filtered_requests_total", &of_zone)?,
            dropped: acl("dropped_requests_total", &of_zone)?,
            allowed: acl("allowed_requests_total", &["server", "view"])?,
            matches: IntCounterVec::new(
                opts("template", "matches_total", "Queries that matched a template."),
                &["server", "zone", "view", "class", "type"],
            )?,
            bad_records: IntCounterVec::new(
                opts("template", "rr_failures_total", "What a template gave that is no record."),
                &["server", "zone", "view", "class", "type", "section", "template"],
            )?,
            translated: translated.with_label_values(&[SERVER]),
            walks: walks.with_label_values(&[SERVER]),
            all_translated: translated,
            all_walks: walks,
            entries: IntGauge::with_opts(opts("hosts", "entries", "Names and addresses of hosts."))?,
            read: Gauge::with_opts(opts(
                "hosts",
                "reload_timestamp_seconds",
                "When the hosts file was written that was read last.",
            ))?,
        })
    }

    /// Those of a domain's `acl`.
    pub(crate) fn acl(&self, zone: &str) -> AclMetrics {
        let labels = [SERVER, zone, ""];
        AclMetrics {
            allowed: self.allowed.with_label_values(&[SERVER, ""]),
            blocked: self.blocked.with_label_values(&labels),
            filtered: self.filtered.with_label_values(&labels),
            dropped: self.dropped.with_label_values(&labels),
        }
    }

    /// Counts a query that a template of a domain matched.
    pub(crate) fn matched(&self, zone: &str, qtype: &str) {
        self.matches.with_label_values(&[SERVER, zone, "", "IN", qtype]).inc();
    }

    /// Counts what a template gave that is no record.
    pub(crate) fn bad_record(&self, zone: &str, qtype: &str, section: &str, template: &str) {
        self.bad_records.with_label_values(&[SERVER, zone, "", "IN", qtype, section, template]).inc();
    }

    fn each(&self) -> [&dyn Collector; 13] {
        [
            &self.blocked,
            &self.filtered,
            &self.dropped,
            &self.allowed,
            &self.matches,
            &self.bad_records,
            &self.all_translated,
            &self.all_walks,
            &self.entries,
            &self.read,
            &self.signatures.all[0],
            &self.signatures.all[1],
            &self.signatures.all_entries,
        ]
    }
}

impl Collector for RuleMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.each().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.each().into_iter().flat_map(Collector::collect).collect()
    }
}
