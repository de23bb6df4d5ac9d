//! What a server can be told.

mod exposure;
mod log;
mod rewrite;
mod rules;

pub use exposure::{Exposure, InvalidSelector, Selector};
pub use log::{AnswerClass, LogRule};
pub(crate) use log::{COMBINED, COMMON};
pub use rewrite::{
    AnswerChange, Change, EdnsOption, NameMatch, NamePattern, OptionChange, OptionData, OptionWhen, Rewrite,
};
pub use rules::{AclAction, AclRule, Dns64, Hosts, Rules, Template};

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

/// How names of the form `1-2-3-4.namespace.pod.<zone>` are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodRecords {
    /// They do not exist.
    Disabled,
    /// The address in the name is the answer, where the namespace exists.
    #[default]
    Insecure,
    /// As insecure, but only where a pod of the namespace has the address.
    Verified,
}

/// Where names outside the cluster are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// Nowhere: they are refused.
    None,
    /// The `nameserver` lines of this file, which is read again when it changes.
    ResolvConf(PathBuf),
    /// These servers.
    Addresses(Vec<SocketAddr>),
}

/// In which order upstreams are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// At random.
    #[default]
    Random,
    /// Each question starts with the next one.
    RoundRobin,
    /// As they are given; the second only where the first does not answer.
    Sequential,
}

/// How upstreams are asked: the `forward` of CoreDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// In which order.
    pub policy: Policy,
    /// Over TCP only; without, over UDP, and over TCP what is too large for that.
    pub force_tcp: bool,
    /// How often a server that failed is asked whether it is back.
    pub health_check: Duration,
    /// After so many of those without an answer it counts as down; 0: never.
    pub max_fails: u32,
    /// Over TLS only (DNS over TLS, RFC 7858).
    pub tls: Option<Tls>,
    /// Response codes for which the next server is asked, as for no answer.
    pub failover: Vec<u16>,
    /// The most attempts for one question; 0: as many as there is time for.
    pub max_attempts: u32,
    /// Connections to a server, kept between questions and shared where there are more questions at one time; 0: each question
    /// has one for itself.
    pub max_idle: usize,
    /// How long they are kept without a question.
    pub idle_for: Duration,
    /// How long they are kept at all; none: as long as there are questions.
    pub max_age: Option<Duration>,
    /// Where all servers are down, none is asked; without, they are asked all the same.
    pub fail_fast: bool,
    /// How servers are asked whether they are back.
    pub probe: Probe,
}

/// How a server is asked whether it is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// For the servers of this domain.
    pub domain: String,
    /// Whether it is to ask others for it.
    pub recursion: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self { domain: ".".to_owned(), recursion: true }
    }
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            force_tcp: false,
            health_check: Duration::from_millis(500),
            max_fails: 2,
            tls: None,
            failover: Vec::new(),
            max_attempts: 0,
            max_idle: 16,
            idle_for: Duration::from_secs(10),
            max_age: None,
            fail_fast: false,
            probe: Probe::default(),
        }
    }
}

/// Who an upstream must prove to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name in its certificate; none: its address.
    pub server_name: Option<String>,
    /// A file of certificates (PEM), one of which must vouch for it; none: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key (PEM), for servers that want to know who asks.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A domain with upstreams of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubDomain {
    /// The domain; all names below it are meant too.
    pub zone: String,
    /// Where its names are asked for. None: nowhere, they are refused.
    pub upstreams: Upstreams,
    /// Queries under way at one time.
    pub max_concurrent: usize,
    /// How they are asked.
    pub forward: ForwardOptions,
    /// What is kept of their answers.
    pub cache: CacheConfig,
}

/// What upstreams answered is kept for a while: the `cache` of CoreDNS. Denials are names and types that do
/// not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Whether anything is kept.
    pub enabled: bool,
    /// Answers kept.
    pub success_capacity: usize,
    /// Denials kept.
    pub denial_capacity: usize,
    /// The most bytes all of them take, half for answers and half for denials.
    pub max_bytes: usize,
    /// The most seconds an answer is kept.
    pub success_ttl: u32,
    /// The most seconds a denial is kept.
    pub denial_ttl: u32,
    /// The least seconds an answer is kept.
    pub min_success_ttl: u32,
    /// The least seconds a denial is kept.
    pub min_denial_ttl: u32,
    /// Clients are told the whole time to live of what is kept, not what is left of it.
    pub keep_ttl: bool,
    /// The seconds an upstream's SERVFAIL is kept.
    pub servfail_ttl: u32,
    /// Whether answers are told past their time.
    pub serve_stale: Option<ServeStale>,
    /// Whether what is asked often is asked for again before its time is up.
    pub prefetch: Option<Prefetch>,
    /// Only names of these domains are kept; empty: all.
    pub zones: Vec<String>,
    /// Domains of whose names answers are not kept.
    pub no_success: Vec<String>,
    /// Domains of whose names denials are not kept.
    pub no_denial: Vec<String>,
}

/// Answers past their time are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeStale {
    /// How long past their time.
    pub duration: Duration,
    /// Only where the upstreams do not answer; without, at once, and the upstreams are asked meanwhile.
    pub verify: bool,
    /// How long the upstreams are waited for then; none: until they are given up.
    pub patience: Option<Duration>,
    /// The time to live that clients are told, in seconds.
    pub ttl: u32,
}

impl Default for ServeStale {
    fn default() -> Self {
        Self { duration: Duration::from_secs(3600), verify: false, patience: None, ttl: 0 }
    }
}

/// When an answer is asked for again while it is still good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// It was asked for so often.
    pub hits: u32,
    /// With no longer pauses than this.
    pub within: Duration,
    /// And so much of its time is left, or less.
    pub percent: u8,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            success_capacity: 9984,
            denial_capacity: 9984,
            max_bytes: 16 << 20,
            success_ttl: 30,
            denial_ttl: 30,
            min_success_ttl: 5,
            min_denial_ttl: 5,
            keep_ttl: false,
            servfail_ttl: 5,
            serve_stale: None,
            prefetch: None,
            zones: Vec::new(),
            no_success: Vec::new(),
            no_denial: Vec::new(),
        }
    }
}

/// The server's configuration. [`DnsConfig::default`] is what the standard Kubernetes manifests ask of
/// CoreDNS, without an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The cluster's domain, with or without a final dot.
    pub zone: String,
    /// Further domains in which the cluster's names are answered alike.
    pub more_zones: Vec<String>,
    /// Where to listen, UDP and TCP: the cluster's DNS addresses. They need not exist yet when the server
    /// starts. Port 0 takes a free one, the same for UDP and TCP; see [`crate::Server::addresses`].
    pub listen: Vec<SocketAddr>,
    /// Time to live of the cluster's records in seconds, 0 to 3600.
    pub ttl: u32,
    /// Pod records.
    pub pods: PodRecords,
    /// Which namespaces have names.
    pub exposure: Exposure,
    /// Endpoints have names, and headless services their addresses; without, neither exists.
    pub endpoints: bool,
    /// Services without a ready endpoint do not exist.
    pub ignore_empty_services: bool,
    /// Names of the cluster's domain that do not exist are asked for elsewhere, where one of these domains holds
    /// them.
    pub fallthrough: Vec<String>,
    /// An endpoint without a host name is named after its pod, not after its address.
    pub endpoint_pod_names: bool,
    /// A pod that looks for `www.example.org` along its search path gets the answer with its first query. The
    /// host's search domains are those of the resolv.conf of `upstreams`.
    pub autopath: bool,
    /// The name of this node, so that only its pods need be known for `autopath`.
    pub node: Option<String>,
    /// Where everything else is asked for.
    pub upstreams: Upstreams,
    /// The cluster's pod and service networks. Reverse names within them get SERVFAIL, not the upstreams'
    /// answer, before the first publish.
    pub networks: Vec<IpNet>,
    /// Reverse names that the cluster does not know go to the upstreams (`fallthrough in-addr.arpa
    /// ip6.arpa`); without, those within `networks` do not exist.
    pub reverse_fallthrough: bool,
    /// Threads that answer UDP, for each listen address; 0 takes the number of processors, at most 4.
    pub udp_threads: usize,
    /// The largest answer sent over UDP, whatever the client would take: 512 to 4096 bytes.
    pub max_udp_payload: u16,
    /// Queries under way to the upstreams at one time; more get REFUSED.
    pub max_concurrent: usize,
    /// How the upstreams are asked.
    pub forward: ForwardOptions,
    /// Domains with upstreams of their own; the longest that a name ends with counts.
    pub stub_domains: Vec<StubDomain>,
    /// What is done about queries before the zone and the upstreams are asked.
    pub rules: Vec<Rules>,
    /// The clients that are answered: the node and its pods, say. Others are refused; empty: all are answered.
    pub allow_from: Vec<IpNet>,
    /// What upstreams answered is kept.
    pub cache: CacheConfig,
    /// Who may have the cluster's domain as a whole (AXFR, IXFR); nobody else.
    pub transfers: Vec<Transfer>,
}

/// Who may have domains as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Domains within these.
    pub zones: Vec<String>,
    /// Clients of these networks; empty: all.
    pub to: Vec<IpNet>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            zone: "cluster.local".to_owned(),
            more_zones: Vec::new(),
            listen: Vec::new(),
            ttl: 30,
            pods: PodRecords::default(),
            exposure: Exposure::default(),
            endpoints: true,
            ignore_empty_services: false,
            fallthrough: Vec::new(),
            endpoint_pod_names: false,
            autopath: true,
            node: None,
            upstreams: Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf")),
            networks: Vec::new(),
            reverse_fallthrough: true,
            udp_threads: 0,
            max_udp_payload: 1232,
            max_concurrent: 1000,
            forward: ForwardOptions::default(),
            stub_domains: Vec::new(),
            rules: Vec::new(),
            allow_from: Vec::new(),
            cache: CacheConfig::default(),
            transfers: Vec::new(),
        }
    }
}
