//! Counters, named and labelled as CoreDNS's are, so that its dashboards go on working.

mod cache;
mod former;
mod rules;

use self::former::Former;
pub(crate) use self::{
    cache::CacheMetrics,
    rules::{AclMetrics, RuleMetrics, SignatureMetrics},
};

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector, exponential_buckets,
};

use crate::{DnsConfig, Order, Rules, Upstreams, handler::Asked, wire::rtype};

/// Types that are counted by name; all others are `other`.
const TYPES: [(u16, &str); 19] = [
    (rtype::A, "A"),
    (rtype::AAAA, "AAAA"),
    (rtype::SRV, "SRV"),
    (rtype::PTR, "PTR"),
    (rtype::TXT, "TXT"),
    (rtype::CNAME, "CNAME"),
    (rtype::SOA, "SOA"),
    (rtype::NS, "NS"),
    (rtype::ANY, "ANY"),
    (rtype::IXFR, "IXFR"),
    (rtype::AXFR, "AXFR"),
    (15, "MX"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (43, "DS"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
];

/// Sizes of messages: the steps at which something about them changes.
const SIZES: [f64; 14] =
    [0., 100., 200., 300., 400., 511., 1023., 2047., 4095., 8291., 16e3, 32e3, 48e3, 64e3];

/// What answered, as CoreDNS names its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The zone.
    Kubernetes,
    /// An upstream.
    Forward,
    /// What an upstream said before.
    Cache,
    /// What the zone has for those outside.
    External,
    /// A domain in a file.
    File,
    /// Keys that sign answers.
    Dnssec,
    /// The rules that come before all else.
    Rules,
    /// Nothing: the message was refused.
    Server,
}

const PARTS: [&str; 8] = ["kubernetes", "forward", "cache", "k8s_external", "file", "dnssec", "hosts", ""];

/// All counters of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    responses: IntCounterVec,
    do_requests: IntCounterVec,
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    build: IntGaugeVec,
    /// Whether the cluster is known.
    pub(crate) synced: IntGauge,
    /// Tasks that panicked.
    pub(crate) panics: IntCounter,
    /// From a change of an endpoint to its being answered.
    pub(crate) programming: HistogramVec,
    /// Questions that found too many others under way.
    pub(crate) rejects: IntCounter,
    /// Questions for which no upstream was thought to be well.
    pub(crate) all_down: IntCounter,
    /// Answers of upstreams by server and code, with the time they took.
    pub(crate) upstream: HistogramVec,
    /// 1 while what an upstream is asked comes back.
    pub(crate) loops: IntGaugeVec,
    /// Health checks that failed.
    pub(crate) check_failures: IntCounterVec,
    /// Questions to upstreams that found a connection.
    pub(crate) connections_found: IntCounterVec,
    /// Questions to upstreams for which one was opened.
    pub(crate) connections_opened: IntCounterVec,
    /// What is switched on.
    plugins: IntGaugeVec,
    /// The cache's.
    pub(crate) cache: CacheMetrics,
    /// Those of what comes before zone and upstreams.
    pub(crate) rules: RuleMetrics,
}

/// The counters of one address and protocol.
#[derive(Debug)]
pub(crate) struct Listener {
    metrics: Metrics,
    server: String,
    labels: [&'static str; 2],
    requests: [OnceLock<IntCounter>; TYPES.len() + 1],
    do_requests: IntCounter,
    responses: [[OnceLock<IntCounter>; 17]; PARTS.len()],
    duration: Histogram,
    request_size: Histogram,
    response_size: Histogram,
}

impl Metrics {
    /// Counters at zero.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let opts = |subsystem: &str, name: &str, help: &str| {
            Opts::new(name, help).namespace("coredns").subsystem(subsystem)
        };
        let buckets = |start, factor, count, opts: Opts| {
            exponential_buckets(start, factor, count)
                .map(|buckets| HistogramOpts { common_opts: opts, buckets })
        };
        let sizes = |opts: Opts| HistogramOpts { common_opts: opts, buckets: SIZES.to_vec() };
        let server = ["server", "zone", "view"];
        let with = |more: &[&'static str]| [&server[..], more].concat();
        Ok(Self {
            requests: IntCounterVec::new(
                opts("dns", "requests_total", "Queries received."),
                &with(&["proto", "family", "type"]),
            )?,
            responses: IntCounterVec::new(
                opts("dns", "responses_total", "Answers sent."),
                &with(&["rcode", "plugin"]),
            )?,
            do_requests: IntCounterVec::new(
                opts("dns", "do_requests_total", "Queries that want DNSSEC records."),
                &server,
            )?,
            build: IntGaugeVec::new(
                Opts::new("coredns_build_info", "The version; it is Sluice's."),
                &["version", "revision", "goversion"],
            )?,
            duration: HistogramVec::new(
                buckets(0.000_25, 2.0, 16, opts("dns", "request_duration_seconds", "From query to answer."))?,
                &server,
            )?,
            request_size: HistogramVec::new(
                sizes(opts("dns", "request_size_bytes", "Sizes of queries.")),
                &with(&["proto"]),
            )?,
            response_size: HistogramVec::new(
                sizes(opts("dns", "response_size_bytes", "Sizes of answers.")),
                &with(&["proto"]),
            )?,
            synced: IntGauge::with_opts(Opts::new(
                "sluice_dns_synced",
                "1 once the cluster is known, before that 0.",
            ))?,
            panics: IntCounter::with_opts(opts("", "panics_total", "Queries whose handling panicked."))?,
            programming: HistogramVec::new(
                buckets(
                    0.001,
                    2.0,
                    20,
                    opts(
                        "kubernetes",
                        "dns_programming_duration_seconds",
                        "From a change of an endpoint to its being answered.",
                    ),
                )?,
                &["service_kind"],
            )?,
            rejects: IntCounter::with_opts(opts(
                "forward",
                "max_concurrent_rejects_total",
                "Queries refused because too many were under way to the upstreams.",
            ))?,
            all_down: IntCounter::with_opts(opts(
                "forward",
                "healthcheck_broken_total",
                "Queries for which all upstreams were down, so that any of them was asked.",
            ))?,
            upstream: HistogramVec::new(
                buckets(
                    0.000_25,
                    2.0,
                    16,
                    opts("proxy", "request_duration_seconds", "From asking an upstream to its answer."),
                )?,
                &["proxy_name", "to", "rcode"],
            )?,
            loops: IntGaugeVec::new(
                Opts::new(
                    "sluice_dns_upstream_loop",
                    "1 while what an upstream is asked comes back to this server.",
                ),
                &["to"],
            )?,
            check_failures: IntCounterVec::new(
                opts("proxy", "healthcheck_failures_total", "Health checks that failed."),
                &["proxy_name", "to"],
            )?,
            connections_found: IntCounterVec::new(
                opts("proxy", "conn_cache_hits_total", "Questions to upstreams that found a connection."),
                &["proxy_name", "to", "proto"],
            )?,
            connections_opened: IntCounterVec::new(
                opts(
                    "proxy",
                    "conn_cache_misses_total",
                    "Questions to upstreams that had a connection, or socket, opened.",
                ),
                &["proxy_name", "to", "proto"],
            )?,
            plugins: IntGaugeVec::new(
                Opts::new("coredns_plugin_enabled", "What of CoreDNS's plugins is switched on."),
                &with(&["name"]),
            )?,
            cache: CacheMetrics::new()?,
            rules: RuleMetrics::new()?,
        })
    }

    /// Shows what a configuration switches on, by the names that CoreDNS has for it.
    pub(crate) fn show_plugins(&self, config: &DnsConfig) {
        let rules = |has: fn(&Rules) -> bool| config.rules.iter().any(has);
        self.plugins.reset();
        for (name, is_on) in [
            ("errors", true),
            ("kubernetes", true),
            ("loadbalance", config.rules.is_empty() || rules(|rules| rules.order != Order::AS_IT_COMES)),
            ("loop", config.detect_loops),
            ("prometheus", true),
            ("reload", true),
            ("autopath", config.autopath),
            ("cache", config.cache.enabled),
            ("forward", config.upstreams != Upstreams::None || !config.stub_domains.is_empty()),
            ("k8s_external", config.external.is_some()),
            ("acl", !config.allow_from.is_empty() || rules(|rules| !rules.acl.is_empty())),
            ("dns64", rules(|rules| rules.dns64.is_some())),
            ("dnssec", rules(|rules| rules.dnssec.is_some())),
            ("file", rules(|rules| !rules.files.is_empty())),
            ("hosts", rules(|rules| rules.hosts.is_some())),
            ("log", rules(|rules| !rules.log.is_empty())),
            ("rewrite", rules(|rules| !rules.rewrites.is_empty())),
            ("template", rules(|rules| !rules.templates.is_empty())),
        ] {
            if is_on {
                self.plugins.with_label_values(&["dns://:53", ".", "", name]).set(1);
            }
        }
    }

    /// Registers all of them.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 21] = [
            Box::new(self.requests.clone()),
            Box::new(self.responses.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.request_size.clone()),
            Box::new(self.response_size.clone()),
            Box::new(self.synced.clone()),
            Box::new(self.panics.clone()),
            Box::new(self.programming.clone()),
            Box::new(self.rejects.clone()),
            Box::new(self.all_down.clone()),
            Box::new(self.upstream.clone()),
            Box::new(self.loops.clone()),
            Box::new(self.check_failures.clone()),
            Box::new(self.connections_found.clone()),
            Box::new(self.connections_opened.clone()),
            Box::new(self.plugins.clone()),
            Box::new(self.cache.clone()),
            Box::new(self.rules.clone()),
            Box::new(self.do_requests.clone()),
            Box::new(self.build.clone()),
            Box::new(Former::of(self)?),
        ];
        let version = concat!("sluice-", env!("CARGO_PKG_VERSION"));
        self.build.with_label_values(&[version, "", ""]).set(1);
        all.into_iter().try_for_each(|collector| registry.register(collector))
    }

    /// The counters of one address and protocol (`udp`, `tcp`).
    pub(crate) fn listener(&self, address: SocketAddr, protocol: &'static str) -> Arc<Listener> {
        let server = format!("dns://{address}");
        let family = if address.is_ipv4() { "1" } else { "2" };
        Arc::new(Listener {
            do_requests: self.do_requests.with_label_values(&[&*server, ".", ""]),
            duration: self.duration.with_label_values(&[&*server, ".", ""]),
            request_size: self.request_size.with_label_values(&[&*server, ".", "", protocol]),
            response_size: self.response_size.with_label_values(&[&*server, ".", "", protocol]),
            metrics: self.clone(),
            server,
            labels: [protocol, family],
            requests: Default::default(),
            responses: Default::default(),
        })
    }
}

impl Listener {
    /// Counts a query, with what it asked for if that could be read, and its length.
    pub(crate) fn request(&self, asked: Option<Asked>, length: usize) {
        self.request_size.observe(length as f64);
        let Asked { qtype, dnssec_ok } = asked.unwrap_or_default();
        if dnssec_ok {
            self.do_requests.inc();
        }
        let place = TYPES.iter().position(|(number, _)| *number == qtype).unwrap_or(TYPES.len());
        let counter = self.requests[place].get_or_init(|| {
            let name = TYPES.get(place).map_or("other", |(_, name)| name);
            let [protocol, family] = self.labels;
            self.metrics.requests.with_label_values(&[&*self.server, ".", "", protocol, family, name])
        });
        counter.inc();
    }

    /// Counts an answer: its header says how it ended.
    pub(crate) fn response(&self, answer: &[u8], part: Part, took: Duration) {
        let code = usize::from(answer.get(3).copied().unwrap_or_default() & 0xf);
        let counter = self.responses[part as usize][code].get_or_init(|| {
            let name = rcode_name(code as u16);
            self.metrics.responses.with_label_values(&[&*self.server, ".", "", name, PARTS[part as usize]])
        });
        counter.inc();
        self.duration.observe(took.as_secs_f64());
        self.response_size.observe(answer.len() as f64);
    }

    /// Counts a query whose handling panicked.
    pub(crate) fn panicked(&self) {
        self.metrics.panics.inc();
    }
}

/// A response code's name.
pub(crate) fn rcode_name(code: u16) -> &'static str {
    const NAMES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    NAMES.get(usize::from(code)).copied().unwrap_or("other")
}
