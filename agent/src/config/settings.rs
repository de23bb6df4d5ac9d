//! What can be set: one structure for the file and for the flags, so that they cannot drift apart.
//!
//! The comment of a field is its help text.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use super::value::{Grace, NfConntrack, NodePortAddress, Period, ServiceName};

/// Everything that can be set, each field as yet unset or set. In a file the names are in camelCase
/// (`nodeName`), as flags in kebab-case (`--node-name`); a flag wins over the file.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// This node's name [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): what of it has a meaning here holds where nothing
    /// else is set, and the rest is reported
    #[arg(long, value_name = "FILE")]
    pub kube_proxy_config: Option<PathBuf>,
    /// The folder of Kubernetes manifests that stands in the place of an API server
    #[arg(long, value_name = "FOLDER")]
    pub manifests: Option<PathBuf>,
    /// The file that says how to reach the Kubernetes API; it is read again whenever a connection is made
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of the Kubernetes API, in the place of the kubeconfig's or a pod's; the next one is tried
    /// when one fails
    #[arg(long, value_name = "ADDRESS,..", value_delimiter = ',')]
    pub api_servers: Option<Vec<String>>,
    /// How long the Kubernetes API may be silent before its connection is taken for dead; it has something to
    /// say every minute [default: 150s]
    #[arg(long, value_name = "DURATION")]
    pub api_idle_timeout: Option<Period>,
    /// Tell the other nodes that share the folder of manifests the addresses of this node's pods, in the
    /// file .sluice/NODE.yaml below it [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub publish_pod_status: Option<bool>,
    /// The folder that the agent shares with the plugin [default: /var/lib/sluice]
    #[arg(long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// How long to wait for another agent that runs on the same folder to be told to end, before giving up
    /// [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub handover_wait: Option<Grace>,
    /// The folder, on a BPF file system, that holds what survives the agent [default: /sys/fs/bpf/sluice]
    #[arg(long, value_name = "FOLDER")]
    pub bpffs_dir: Option<PathBuf>,
    /// The cgroup v2 folder of all sockets of this node [default: where cgroup2 is mounted]
    #[arg(long, value_name = "FOLDER")]
    pub cgroup_root: Option<PathBuf>,
    /// The folder that stands for /proc/sys, where that is read-only, as in a container [default: /proc/sys]
    #[arg(long, value_name = "FOLDER")]
    pub sysctl_dir: Option<PathBuf>,
    /// The datapath's object file, in the place of the built-in one
    #[arg(long, value_name = "FILE")]
    pub datapath_object: Option<PathBuf>,
    /// How many entries the table of connections has; two make a connection [default: 262144]
    #[arg(long, value_name = "COUNT")]
    pub flow_entries: Option<u32>,
    /// How long an open TCP connection is remembered without a packet [default: 24h]
    #[arg(long, value_name = "DURATION")]
    pub tcp_established_timeout: Option<Period>,
    /// How long a TCP connection that one side has closed is remembered without a packet [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub tcp_close_wait_timeout: Option<Period>,
    /// How long datagrams that nobody has answered are remembered [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub udp_timeout: Option<Period>,
    /// How long datagrams are remembered [default: 2m]
    #[arg(long, value_name = "DURATION")]
    pub udp_stream_timeout: Option<Period>,
    /// What nf_conntrack is told when the agent starts, as kube-proxy does: settings without their nf_conntrack_, such as
    /// max=131072,udp_timeout=30; "none" leaves all as it is [default: max by the number of processors, and the two times
    /// of TCP]
    #[arg(long, value_name = "NAME=NUMBER,..")]
    pub nf_conntrack: Option<NfConntrack>,
    /// How the kernel scores the agent when it must end a process for want of memory, -1000 (never) to 1000
    /// [default: as it was started]
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Who attaches pods to the network: this node's plugin, or another one (then there is no bridge, no configuration for
    /// the container runtime and no route to other nodes' pods, and pods are found by their devices) [default: own]
    #[arg(long, value_name = "WHO")]
    pub pod_network: Option<PodNetwork>,
    /// The bridge that pods are attached to [default: sluice0]
    #[arg(long, value_name = "DEVICE")]
    pub bridge: Option<String>,
    /// The devices that lead out of the node [default: those of the default routes and of the node's addresses]
    #[arg(long, value_name = "DEVICE,..", value_delimiter = ',')]
    pub uplinks: Option<Vec<String>>,
    /// The largest packet of a pod, in bytes [default: that of the uplink]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// The networks that cluster addresses of services are taken from
    #[arg(long = "service-cidrs", value_name = "CIDR,..", value_delimiter = ',')]
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Option<Vec<IpNet>>,
    /// Networks outside the cluster that pods reach with their own addresses, without masquerade; the
    /// networks of pods and the addresses of nodes always belong to them
    #[arg(long = "non-masquerade-cidrs", value_name = "CIDR,..", value_delimiter = ',')]
    #[serde(rename = "nonMasqueradeCIDRs")]
    pub non_masquerade_cidrs: Option<Vec<IpNet>>,
    /// Let all that goes to cluster addresses bear the node's address, pods' packets too; there is no fast path then
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub masquerade_all: Option<bool>,
    /// Who is of the cluster, and so reaches cluster addresses with an address of its own [default: nodeCIDR]
    #[arg(long, value_name = "WAY")]
    pub detect_local: Option<DetectLocal>,
    /// The networks of the cluster's pods, for --detect-local clusterCIDR
    #[arg(long = "cluster-cidrs", value_name = "CIDR,..", value_delimiter = ',')]
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Option<Vec<IpNet>>,
    /// How packets get to the pods of other nodes [default: auto]
    #[arg(long, value_name = "WAY")]
    pub overlay: Option<OverlayMode>,
    /// The number of the overlay's network (VNI), the same on all nodes [default: 83]
    #[arg(long, value_name = "NUMBER")]
    pub vxlan_id: Option<u32>,
    /// The UDP port of the overlay, the same on all nodes [default: 8472]
    #[arg(long, value_name = "PORT")]
    pub vxlan_port: Option<u16>,
    /// The node's addresses at which node ports are served: networks, "primary" (those of the Node object),
    /// "localhost", "all" [default: primary]
    #[arg(long, value_name = "CIDR|WORD,..", value_delimiter = ',')]
    pub node_port_addresses: Option<Vec<NodePortAddress>>,
    /// Hold the node ports of services, so that no process of the node gets one and then hears nothing; one that is
    /// taken already is reported in either case [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub guard_node_ports: Option<bool>,
    /// The folder of the container runtime's network configurations; the one for the plugin is written there once
    /// pods can be attached [default: /etc/cni/net.d; with --manifests none]
    #[arg(long, value_name = "FOLDER")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Write the container runtime's network configuration [default: true; with --manifests, if --cni-conf-dir is set]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub cni_conflist: Option<bool>,
    /// How programs are put on devices: by links of the kernel (tcx, from 6.6), by filters (clsact), or by what the
    /// kernel has [default: auto]
    #[arg(long, value_name = "KIND")]
    pub attach: Option<AttachMode>,
    /// The domain of the cluster's names [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Domains in which DNS names services of a set of clusters (ServiceImports), such as clusterset.local; a Corefile says it
    /// with multicluster
    #[arg(long, value_name = "DOMAIN,..", value_delimiter = ',')]
    pub dns_multicluster_zones: Option<Vec<String>>,
    /// The addresses at which pods reach the cluster's DNS [default: those of the service --dns-service]
    #[arg(long = "cluster-dns", value_name = "ADDRESS,..", value_delimiter = ',')]
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<IpAddr>>,
    /// The service that stands for the cluster's DNS; it need not exist [default: kube-system/kube-dns]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub dns_service: Option<ServiceName>,
    /// Servers for the names outside the cluster, address or address:port [default: those of --resolv-conf]
    #[arg(long, value_name = "ADDRESS,..", value_delimiter = ',')]
    pub dns_upstreams: Option<Vec<String>>,
    /// The file whose nameserver lines name the servers for the names outside the cluster
    /// [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Time to live of the cluster's DNS records, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub dns_ttl: Option<u32>,
    /// A configuration of CoreDNS that says how names are answered; a mistake in it, or something that is not
    /// supported, is told with its line, and the last good one stays in force
    #[arg(long, value_name = "FILE")]
    pub corefile: Option<PathBuf>,
    /// Networks whose clients DNS answers besides the cluster's pods and nodes; 0.0.0.0/0,::/0 are all
    #[arg(long = "dns-allow-from", value_name = "CIDR,..", value_delimiter = ',')]
    pub dns_allow_from: Option<Vec<IpNet>>,
    /// Where DNS serves /health, besides healthzAddress; "none" serves it nowhere else [default: that of the Corefile, or
    /// port 8080 of the cluster's DNS addresses, without a socket of its own]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dns_health_address: Option<Listen>,
    /// Where DNS serves /ready, besides healthzAddress; "none" serves it nowhere else [default: that of the Corefile, or
    /// port 8181 of the cluster's DNS addresses, without a socket of its own]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dns_ready_address: Option<Listen>,
    /// Where DNS serves its own /metrics; "none" serves it nowhere [default: that of the Corefile, or [::]:9153]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dns_metrics_address: Option<Listen>,
    /// How long DNS goes on answering after the agent was told to end, unless a successor takes over
    /// [default: that of the Corefile, or 5s]
    #[arg(long, value_name = "DURATION")]
    pub dns_lameduck: Option<Grace>,
    /// Serve services: load, attach and feed the datapath [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub proxy: Option<bool>,
    /// Serve the cluster's DNS on this node [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub dns: Option<bool>,
    /// Route to the pods of other nodes [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub routes: Option<bool>,
    /// Turn connect() to a service into a connection to its backend at once where that changes nothing but
    /// the speed [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub fast_path: Option<bool>,
    /// Where /healthz and /livez are served; "none" serves them nowhere [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub healthz_address: Option<Listen>,
    /// Where /metrics is served; "none" serves it nowhere [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_address: Option<Listen>,
    /// Let the kernel count how often the programs run, and for how long; it costs each run some tens of
    /// nanoseconds [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub program_stats: Option<bool>,
    /// How often everything is compared with what the kernel holds, and repaired [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub resync_period: Option<Period>,
    /// How logs are written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or levels for modules, as in "info,sluice_proxy=debug" [default: info]
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG")]
    pub log_level: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How packets get to the pods of other nodes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OverlayMode {
    /// Directly to nodes on a common network, inside UDP to the others.
    #[default]
    Auto,
    /// Directly; nodes on no common network cannot be reached.
    Direct,
    /// Inside UDP to all nodes.
    Vxlan,
    /// Somebody else sees to it.
    None,
}

/// Who is of the cluster (row 7 of the behaviour table).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "camelCase")]
#[value(rename_all = "camelCase")]
pub enum DetectLocal {
    /// This node's pods, and what has an address of its pod networks.
    #[default]
    #[serde(rename = "nodeCIDR")]
    #[value(name = "nodeCIDR")]
    NodeCidr,
    /// This node's pods, and what has an address of the networks that are named.
    #[serde(rename = "clusterCIDR")]
    #[value(name = "clusterCIDR")]
    ClusterCidr,
    /// This node's pods, by their devices.
    Interface,
}

/// Who attaches pods to the network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PodNetwork {
    /// Sluice's plugin.
    #[default]
    Own,
    /// Another one: pods are found by their devices.
    Foreign,
}

/// How programs are put on devices.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// By what the kernel has.
    #[default]
    Auto,
    /// By links (kernel 6.6).
    Tcx,
    /// By filters of the qdisc clsact.
    Clsact,
}

/// An address to listen on, or nowhere.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Listen(pub Option<SocketAddr>);

impl std::str::FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))) }
    }
}

impl TryFrom<String> for Listen {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(address) => to.collect_str(&address),
            None => to.serialize_str("none"),
        }
    }
}

/// `a.or(b)` for each field.
macro_rules! first_set {
    ($first:expr, $second:expr; $($field:ident),+ $(,)?) => {{
        let (first, second) = ($first, $second);
        // Written as a pattern so that the compiler names a field that is forgotten here.
        let Settings { $($field),+ } = first;
        Settings { $($field: $field.or(second.$field)),+ }
    }};
}

impl Settings {
    /// These settings, and those of `other` where these say nothing.
    pub fn or(self, other: Self) -> Self {
        first_set!(self, other;
            node_name, kube_proxy_config, tcp_established_timeout, tcp_close_wait_timeout, udp_timeout, udp_stream_timeout,
            masquerade_all, detect_local, cluster_cidrs, guard_node_ports, manifests, kubeconfig, api_servers, api_idle_timeout, publish_pod_status, state_dir, handover_wait, bpffs_dir, cgroup_root, sysctl_dir, datapath_object,
            flow_entries, bridge, uplinks, mtu, service_cidrs, non_masquerade_cidrs, overlay, vxlan_id,
            vxlan_port, node_port_addresses, cni_conf_dir, cni_conflist, attach, cluster_domain, dns_multicluster_zones,
            cluster_dns, dns_service, dns_upstreams, resolv_conf, dns_ttl, corefile, dns_allow_from,
            dns_health_address, dns_ready_address, dns_metrics_address, dns_lameduck, proxy, dns, routes, fast_path,
            healthz_address, metrics_address, program_stats, resync_period, log_format, log_level, nf_conntrack,
            oom_score_adj, pod_network,
        )
    }
}
