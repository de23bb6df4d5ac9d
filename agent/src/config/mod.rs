//! The configuration: read, merged with the flags, checked, and complete from there on.
//!
//! A mistake in it ends the agent before it has touched anything, with the file's line where there is one.

mod fields;
mod kube_proxy;
mod settings;
mod source;
mod value;

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use sluice_model::{IpFamily, ObjectName, Snapshot};
use sluice_proxy::FlowTimeouts;

pub use kube_proxy::KubeProxyError;
pub use settings::{AttachMode, DetectLocal, Listen, LogFormat, OverlayMode, Settings};
pub use source::{ApiSettings, Source};
pub use value::{Grace, InvalidNodePortAddress, InvalidPeriod, NodePortAddress, Period, ServiceName};

/// The configuration with nothing left open. The fields are those of [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented in Settings, whose comments are the help texts")]
pub struct Config {
    /// What was set, by the file and by flags; the rest has its default.
    pub set: Settings,
    /// What of a KubeProxyConfiguration does not hold here.
    pub remarks: Vec<String>,
    pub node_name: Arc<str>,
    /// Either this or an API server is the source.
    pub manifests: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub api_servers: Vec<String>,
    pub api_idle_timeout: Duration,
    pub publish_pod_status: bool,
    pub state_dir: PathBuf,
    pub bpffs_dir: PathBuf,
    /// `None` where no cgroup2 is mounted: there is no fast path then.
    pub cgroup_root: Option<PathBuf>,
    pub sysctl_dir: Option<PathBuf>,
    pub datapath_object: Option<PathBuf>,
    pub flow_entries: u32,
    pub flow_timeouts: FlowTimeouts,
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
        let told = kube_proxy::translate(&text, cores(), settings.bridge.as_deref())
            .map_err(|source| ConfigError::KubeProxy { path: path.clone(), source })?;
        let mut other = told.settings;
        if settings.manifests.is_some() || settings.api_servers.is_some() {
            other.kubeconfig = None;
        }
        let config = Self::new(settings.or(other))?;
        let remarks = told.remarks.iter().map(|remark| format!("{}: {remark}", path.display()));
        Ok(Self { remarks: remarks.collect(), ..config })
    }

    /// Puts the defaults where nothing is set, and checks the whole.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let set = settings.clone();
        let node_name = match settings.node_name {
            Some(name) => name,
            None => fs::read_to_string("/proc/sys/kernel/hostname")
                .map_err(ConfigError::HostName)?
                .trim()
                .to_lowercase(),
        };
        let cni_conf_dir = match (settings.cni_conflist, settings.cni_conf_dir) {
            (Some(false), _) => None,
            (_, Some(folder)) => Some(folder),
            // Whoever runs from a folder of manifests may have no container runtime, and has not asked for one to be
            // told anything.
            (None, None) if settings.manifests.is_some() => None,
            (_, None) => Some("/etc/cni/net.d".into()),
        };
        let times = FlowTimeouts::default();
        let config = Self {
            set,
            remarks: Vec::new(),
            node_name: node_name.into(),
            manifests: settings.manifests,
            kubeconfig: settings.kubeconfig,
            api_servers: source::api_servers(&settings.api_servers.unwrap_or_default())?,
            api_idle_timeout: settings.api_idle_timeout.map_or(Duration::from_secs(150), |period| period.0),
            publish_pod_status: settings.publish_pod_status.unwrap_or(false),
            state_dir: settings.state_dir.unwrap_or_else(|| "/var/lib/sluice".into()),
            bpffs_dir: settings.bpffs_dir.unwrap_or_else(|| "/sys/fs/bpf/sluice".into()),
            cgroup_root: settings.cgroup_root.or_else(mounted_cgroup2),
            sysctl_dir: settings.sysctl_dir,
            datapath_object: settings.datapath_object,
            flow_entries: settings.flow_entries.unwrap_or(262_144),
            flow_timeouts: FlowTimeouts {
                tcp_established: settings
                    .tcp_established_timeout
                    .map_or(times.tcp_established, |period| period.0),
                tcp_half_closed: settings
                    .tcp_close_wait_timeout
                    .map_or(times.tcp_half_closed, |period| period.0),
                udp: settings.udp_timeout.map_or(times.udp, |period| period.0),
                udp_stream: settings.udp_stream_timeout.map_or(times.udp_stream, |period| period.0),
            },
            bridge: settings.bridge.unwrap_or_else(|| sluice_netlink::owned::DEFAULT_BRIDGE.to_owned()),
            uplinks: settings.uplinks,
            mtu: settings.mtu,
            service_cidrs: settings.service_cidrs.unwrap_or_default().iter().map(IpNet::trunc).collect(),
            non_masquerade_cidrs: settings
                .non_masquerade_cidrs
                .unwrap_or_default()
                .iter()
                .map(IpNet::trunc)
                .collect(),
            masquerade_all: settings.masquerade_all.unwrap_or(false),
            detect_local: settings.detect_local.unwrap_or_default(),
            cluster_cidrs: settings.cluster_cidrs.unwrap_or_default().iter().map(IpNet::trunc).collect(),
            overlay: settings.overlay.unwrap_or_default(),
            vxlan_id: settings.vxlan_id.unwrap_or(83),
            vxlan_port: settings.vxlan_port.unwrap_or(8472),
            node_port_addresses: settings
                .node_port_addresses
                .unwrap_or_else(|| vec![NodePortAddress::Primary]),
            guard_node_ports: settings.guard_node_ports.unwrap_or(false),
            cni_conf_dir,
            attach: settings.attach.unwrap_or_default(),
            cluster_domain: settings.cluster_domain.unwrap_or_else(|| "cluster.local".to_owned()),
            cluster_dns: settings.cluster_dns.unwrap_or_default(),
            dns_service: settings
                .dns_service
                .map_or_else(|| ObjectName::new("kube-system", "kube-dns"), |name| name.0),
            dns_upstreams: upstreams(&settings.dns_upstreams.unwrap_or_default())?,
            resolv_conf: settings.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
            dns_ttl: settings.dns_ttl.unwrap_or(30),
            corefile: settings.corefile,
            dns_allow_from: settings.dns_allow_from.unwrap_or_default().iter().map(IpNet::trunc).collect(),
            dns_health_address: settings.dns_health_address,
            dns_ready_address: settings.dns_ready_address,
            dns_metrics_address: settings.dns_metrics_address,
            dns_lameduck: settings.dns_lameduck.map(|time| time.0),
            proxy: settings.proxy.unwrap_or(true),
            dns: settings.dns.unwrap_or(true),
            routes: settings.routes.unwrap_or(true),
            fast_path: settings.fast_path.unwrap_or(true),
            healthz_address: settings
                .healthz_address
                .map_or(Some((Ipv4Addr::UNSPECIFIED, 10_256).into()), |listen| listen.0),
            metrics_address: settings
                .metrics_address
                .map_or(Some((Ipv4Addr::LOCALHOST, 10_249).into()), |listen| listen.0),
            program_stats: settings.program_stats.unwrap_or(false),
            resync_period: settings.resync_period.map_or(Duration::from_secs(30), |period| period.0),
            log_format: settings.log_format.unwrap_or_default(),
            log_level: settings.log_level.unwrap_or_else(|| "info".to_owned()),
        };
        config.check()?;
        Ok(config)
    }

    /// The networks of services: those that are configured, and those that the cluster names.
    pub fn service_networks(&self, snapshot: &Snapshot) -> BTreeSet<IpNet> {
        self.service_cidrs.iter().copied().chain(snapshot.service_networks()).collect()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, problem: String| Err(ConfigError::Value { setting, problem });
        if self.node_name.is_empty() {
            return wrong("nodeName", "is empty".to_owned());
        }
        if self.bridge.is_empty() || self.bridge.len() > 15 || self.bridge.contains('/') {
            return wrong(
                "bridge",
                format!("{:?} is not a device name (1 to 15 bytes, no '/')", self.bridge),
            );
        }
        if self.uplinks.as_ref().is_some_and(Vec::is_empty) {
            return wrong("uplinks", "is an empty list; leave it out to have them found".to_owned());
        }
        if self.mtu.is_some_and(|mtu| !(1280..=65_535).contains(&mtu)) {
            return wrong("mtu", "must be 1280 to 65535: IPv6 needs 1280".to_owned());
        }
        if self.vxlan_id == 0 || self.vxlan_id >= 1 << 24 {
            return wrong("vxlanId", format!("{} is not between 1 and 16777215", self.vxlan_id));
        }
        if self.vxlan_port == 0 {
            return wrong("vxlanPort", "0 is no port".to_owned());
        }
        if self.node_port_addresses.is_empty() {
            return wrong("nodePortAddresses", "is an empty list; leave it out for the default".to_owned());
        }
        if self.detect_local == DetectLocal::ClusterCidr && self.cluster_cidrs.is_empty() {
            return wrong("detectLocal", "is clusterCIDR, and clusterCIDRs is not set".to_owned());
        }
        if self.detect_local != DetectLocal::ClusterCidr && !self.cluster_cidrs.is_empty() {
            return wrong("clusterCIDRs", "is set, and detectLocal is not clusterCIDR".to_owned());
        }
        let times = &self.flow_timeouts;
        for (setting, time) in [
            ("tcpEstablishedTimeout", times.tcp_established),
            ("tcpCloseWaitTimeout", times.tcp_half_closed),
            ("udpTimeout", times.udp),
            ("udpStreamTimeout", times.udp_stream),
        ] {
            if time < Duration::from_secs(1) {
                return wrong(setting, "is less than a second".to_owned());
            }
        }
        if self.dns_ttl > 3600 {
            return wrong("dnsTtl", format!("{} is more than 3600 seconds", self.dns_ttl));
        }
        for (index, ip) in self.cluster_dns.iter().enumerate() {
            if self.cluster_dns[..index].iter().any(|other| IpFamily::of(*other) == IpFamily::of(*ip)) {
                return wrong("clusterDNS", format!("{ip} is the second address of its family"));
            }
        }
        Ok(())
    }
}

fn upstreams(texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let parse = |text: &String| {
        let address = text.parse::<SocketAddr>().ok();
        let plain = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
        address.or_else(plain).ok_or_else(|| ConfigError::Value {
            setting: "dnsUpstreams",
            problem: format!("{text:?} is not an address or address:port"),
        })
    };
    texts.iter().map(parse).collect()
}

/// How many processors this machine has.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Where cgroup2 is mounted, as the process sees it.
fn mounted_cgroup2() -> Option<PathBuf> {
    cgroup2_of(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn cgroup2_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    })
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

    #[test]
    fn the_cgroup_root_is_found() {
        let mounts = "proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_of(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_of("proc /proc proc rw 0 0\n"), None);
    }
}
