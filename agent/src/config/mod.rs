//! The configuration: read, merged with the flags, checked, and complete from there on.
//!
//! A mistake in it ends the agent before it has touched anything, with the file's line where there is one.

mod check;
mod complete;
mod fields;
pub mod kube_proxy;
mod settings;
mod source;
mod value;

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use sluice_model::{ObjectName, Snapshot};
use sluice_proxy::FlowTimeouts;

pub use kube_proxy::KubeProxyError;
pub use settings::{AttachMode, DetectLocal, Listen, LogFormat, OverlayMode, PodNetwork, Settings};
pub use source::{ApiSettings, Source};
pub use value::{
    ConntrackName, Grace, InvalidNfConntrack, InvalidNodePortAddress, InvalidPeriod, NfConntrack,
    NodePortAddress, Period, ServiceName,
};

/// The configuration with nothing left open. The fields are those of [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented in Settings, whose comments are the help texts")]
pub struct Config {
    /// What was set, by the file and by flags; the rest has its default.
    pub set: Settings,
    /// What of a KubeProxyConfiguration does not hold here.
    pub remarks: Vec<String>,
    /// A file, and what stood in it: the agent ends once something else does, as kube-proxy does.
    pub followed: Option<(PathBuf, String)>,
    pub node_name: Arc<str>,
    /// Either this or an API server is the source.
    pub manifests: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub api_servers: Vec<String>,
    pub api_idle_timeout: Duration,
    pub publish_pod_status: bool,
    pub state_dir: PathBuf,
    pub handover_wait: Duration,
    pub bpffs_dir: PathBuf,
    /// `None` where no cgroup2 is mounted: there is no fast path then.
    pub cgroup_root: Option<PathBuf>,
    pub sysctl_dir: Option<PathBuf>,
    pub datapath_object: Option<PathBuf>,
    pub flow_entries: u32,
    pub flow_timeouts: FlowTimeouts,
    pub nf_conntrack: NfConntrack,
    pub oom_score_adj: Option<i32>,
    pub pod_network: PodNetwork,
    pub bridge: String,
    /// `None`: to be found out.
    pub uplinks: Option<Vec<String>>,
    /// `None`: that of the uplink.
    pub mtu: Option<u32>,
    pub service_cidrs: Vec<IpNet>,
    pub non_masquerade_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    pub detect_local: DetectLocal,
    pub cluster_cidrs: Vec<IpNet>,
    pub overlay: OverlayMode,
    pub vxlan_id: u32,
    pub vxlan_port: u16,
    pub node_port_addresses: Vec<NodePortAddress>,
    pub guard_node_ports: bool,
    /// `None`: none is written.
    pub cni_conf_dir: Option<PathBuf>,
    pub attach: AttachMode,
    pub cluster_domain: String,
    /// Domains of services of a set of clusters.
    pub dns_multicluster_zones: Vec<String>,
    /// Empty: those of the service.
    pub cluster_dns: Vec<IpAddr>,
    pub dns_service: ObjectName,
    pub dns_upstreams: Vec<SocketAddr>,
    pub resolv_conf: PathBuf,
    pub dns_ttl: u32,
    pub corefile: Option<PathBuf>,
    pub dns_allow_from: Vec<IpNet>,
    /// `None`, of this and the next three: as the Corefile says, or as is usual.
    pub dns_health_address: Option<Listen>,
    pub dns_ready_address: Option<Listen>,
    pub dns_metrics_address: Option<Listen>,
    pub dns_lameduck: Option<Duration>,
    pub proxy: bool,
    pub dns: bool,
    pub routes: bool,
    pub fast_path: bool,
    pub healthz_address: Option<SocketAddr>,
    pub metrics_address: Option<SocketAddr>,
    pub program_stats: bool,
    pub resync_period: Duration,
    pub log_format: LogFormat,
    pub log_level: String,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that is no setting.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<serde_saphyr::Error>,
    },
    /// Nothing says where the cluster is to be learned of.
    #[error(
        "no source of objects: set kubeconfig or apiServers for a Kubernetes API (flags --kubeconfig, --api-servers), \
         or manifests for a folder (flag --manifests); and this is no pod with a service account"
    )]
    NoSource,
    /// The host name, which is the node's name if none is set.
    #[error("nodeName is not set and the host name cannot be read: {0}")]
    HostName(io::Error),
    /// A KubeProxyConfiguration that cannot be used.
    #[error("{path}: {source}")]
    KubeProxy {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: KubeProxyError,
    },
    /// A setting with a value that it cannot have.
    #[error("{setting}: {problem}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Settings {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let parsed: Result<Option<Self>, _> = serde_saphyr::from_str(text);
        let settings = parsed
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        Ok(settings.unwrap_or_default())
    }
}

impl Config {
    /// These settings, and those of kube-proxy's configuration where these name one and say nothing.
    pub fn load(settings: Settings) -> Result<Self, ConfigError> {
        let Some(path) = settings.kube_proxy_config.clone() else { return Self::new(settings) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let told = kube_proxy::translate(&text, &kube_proxy::Around::of(&settings))
            .map_err(|source| ConfigError::KubeProxy { path: path.clone(), source })?;
        let mut other = told.settings;
        if settings.manifests.is_some() || settings.api_servers.is_some() {
            other.kubeconfig = None;
        }
        let config = Self::new(settings.or(other))?;
        let remarks = told.remarks.iter().map(|remark| format!("{}: {remark}", path.display()));
        Ok(Self { remarks: remarks.collect(), ..config })
    }

    /// The networks of services: those that are configured, and those that the cluster names.
    pub fn service_networks(&self, snapshot: &Snapshot) -> BTreeSet<IpNet> {
        self.service_cidrs.iter().copied().chain(snapshot.service_networks()).collect()
    }
}

/// How many processors this machine has.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(text, Path::new("sluice.yaml"))
    }

    #[test]
    fn a_file_sets_what_it_names_and_flags_win() {
        let text = "nodeName: one\nmanifests: /m\nserviceCIDRs: [10.96.0.0/12, 'fd00::/108']\nclusterDNS: [10.96.0.10]\n\
                    dnsUpstreams: ['192.0.2.1', '[2001:db8::1]:5353']\nresyncPeriod: 5s\nhealthzAddress: none\nlogFormat: json\n\
                    dnsService: dns/coredns\noverlay: vxlan\nnodePortAddresses: [primary, 192.0.2.7/24]\n";
        let file = parse(text).unwrap();
        let flags = Settings { node_name: Some("two".into()), mtu: Some(1400), ..Settings::default() };
        let config = Config::new(flags.or(file)).unwrap();
        assert_eq!((&*config.node_name, config.mtu), ("two", Some(1400)));
        assert_eq!(config.service_cidrs.len(), 2);
        assert_eq!(config.dns_upstreams[0].to_string(), "192.0.2.1:53");
        assert_eq!(config.dns_upstreams[1].to_string(), "[2001:db8::1]:5353");
        assert_eq!(config.resync_period, Duration::from_secs(5));
        assert_eq!(config.healthz_address, None);
        assert_eq!(config.metrics_address.unwrap().to_string(), "127.0.0.1:10249");
        assert_eq!(config.dns_service.to_string(), "dns/coredns");
        let said = serde_json::to_string(&config.set).unwrap();
        let again: Settings = serde_json::from_str(&said).unwrap();
        assert_eq!(again, config.set, "what is told of the configuration reads back: {said}");
        assert!(config.proxy && config.dns && config.routes && config.fast_path);
        let network = NodePortAddress::Network("192.0.2.0/24".parse().unwrap());
        assert_eq!(config.node_port_addresses, [NodePortAddress::Primary, network]);
        assert_eq!((config.overlay, config.cni_conf_dir), (OverlayMode::Vxlan, None));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let table = [
            ("nodeName: a\nmanifest: /m\n", "line 2", "manifest"),
            ("mtu: big\n", "line 1", "mtu"),
            ("serviceCIDRs:\n- 10.96.0.0/12\n- 10.96\n", "line 3", ""),
            ("resyncPeriod: soon\n", "line 1", "soon"),
            ("nodePortAddresses: [first]\n", "line 1", "first"),
        ];
        for (text, line, word) in table {
            let said = parse(text).unwrap_err().to_string();
            assert!(
                said.starts_with("sluice.yaml: ") && said.contains(line) && said.contains(word),
                "{said}"
            );
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let base = || Settings { manifests: Some("/m".into()), ..Settings::default() };
        let table = [
            (Settings { api_servers: Some(vec!["a b".into()]), ..base() }, "apiServers"),
            (Settings { mtu: Some(100), ..base() }, "mtu"),
            (Settings { bridge: Some("a-name-that-is-too-long".into()), ..base() }, "bridge"),
            (Settings { uplinks: Some(vec![]), ..base() }, "uplinks"),
            (Settings { vxlan_id: Some(1 << 24), ..base() }, "vxlanId"),
            (Settings { node_port_addresses: Some(vec![]), ..base() }, "nodePortAddresses"),
            (Settings { dns_upstreams: Some(vec!["a.example".into()]), ..base() }, "dnsUpstreams"),
            (
                Settings { cluster_dns: Some(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]), ..base() },
                "clusterDNS",
            ),
        ];
        for (settings, word) in table {
            let said = Config::new(settings).unwrap_err().to_string();
            assert!(said.starts_with(word), "{said}");
        }
        assert!(Config::new(base()).is_ok());
        assert!(parse("").is_ok(), "an empty file sets nothing");
    }
}
