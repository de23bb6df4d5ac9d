//! What a server can be told.

mod cache;
mod dnssec;
mod exposure;
mod external;
mod file;
mod forward;
mod log;
mod order;
mod rewrite;
mod rules;

pub use cache::{CacheConfig, Prefetch, ServeStale};
pub use dnssec::Dnssec;
pub use exposure::{Exposure, InvalidSelector, Selector};
pub use external::External;
pub use file::ZoneFile;
pub use forward::{ForwardOptions, NextUpstreams, Policy, Probe, StubDomain, Tls, Upstreams};
pub use log::{AnswerClass, LogRule};
pub(crate) use log::{COMBINED, COMMON};
pub use order::{Order, OrderPolicy, WeightFile};
pub use rewrite::{
    AnswerChange, Change, EdnsOption, NameMatch, NamePattern, OptionChange, OptionData, OptionWhen, Rewrite,
};
pub use rules::{AclAction, AclRule, Dns64, Hosts, Rules, Template};

use std::{net::SocketAddr, path::PathBuf};

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

/// The server's configuration. [`DnsConfig::default`] is what the standard Kubernetes manifests ask of
/// CoreDNS, without an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The cluster's domain, with or without a final dot.
    pub zone: String,
    /// Further domains in which the cluster's names are answered alike.
    pub more_zones: Vec<String>,
    /// Domains of the services of a set of clusters (KEP-1645), `clusterset.local` by custom. Whoever publishes must know
    /// the imports then.
    pub multicluster_zones: Vec<String>,
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
    /// Headless services have names for their endpoints in a topology zone: `<zone>.pin._zone.<service>..` and
    /// `<zone>.prefer._zone.<service>..`.
    pub zonal: bool,
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
    /// Who is asked after them where their answer is one that [`ForwardOptions::next`] passes on.
    pub next: Vec<NextUpstreams>,
    /// Upstreams are looked at whether what they are asked comes back to this server.
    pub detect_loops: bool,
    /// Domains with upstreams of their own; the longest that a name ends with counts.
    pub stub_domains: Vec<StubDomain>,
    /// What is done about queries before the zone and the upstreams are asked.
    pub rules: Vec<Rules>,
    /// Services have names for those outside.
    pub external: Option<External>,
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
            multicluster_zones: Vec::new(),
            listen: Vec::new(),
            ttl: 30,
            pods: PodRecords::default(),
            exposure: Exposure::default(),
            endpoints: true,
            ignore_empty_services: false,
            fallthrough: Vec::new(),
            endpoint_pod_names: false,
            zonal: false,
            autopath: true,
            node: None,
            upstreams: Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf")),
            networks: Vec::new(),
            reverse_fallthrough: true,
            udp_threads: 0,
            max_udp_payload: 1232,
            max_concurrent: 1000,
            forward: ForwardOptions::default(),
            next: Vec::new(),
            detect_loops: true,
            stub_domains: Vec::new(),
            rules: Vec::new(),
            external: None,
            allow_from: Vec::new(),
            cache: CacheConfig::default(),
            transfers: Vec::new(),
        }
    }
}
