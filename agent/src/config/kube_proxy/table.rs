//! The flags of kube-proxy, and where each belongs.

use std::fmt;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// `true` if there is no value; one stands behind `=` only.
    Bool,
    Int,
    Float,
    Duration,
    /// Parts with commas between, or the flag several times.
    List,
    /// `name=true`, with commas between.
    Gates,
    Ip,
    IpPort,
}

impl Kind {
    /// What stands for a value in the help.
    const fn word(self) -> &'static str {
        match self {
            Self::Text => " TEXT",
            Self::Bool => "",
            Self::Int | Self::Float => " NUMBER",
            Self::Duration => " DURATION",
            Self::List => " TEXT,..",
            Self::Gates => " NAME=BOOL,..",
            Self::Ip => " ADDRESS",
            Self::IpPort => " ADDRESS:PORT",
        }
    }
}

/// Where a flag's value belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A field of KubeProxyConfiguration.
    Field(&'static str),
    /// A field of the section of the proxy's mode, if that section is this one (`ipvs`), or is not `ipvs`.
    Mode(&'static str, &'static str),
    /// It says what to do.
    Task(&'static str),
    /// It has no meaning here, and why.
    Nowhere(&'static str),
}

use Place::{Field, Mode, Nowhere, Task};

/// The flags of kube-proxy 1.36, and one of ours.
pub(super) const FLAGS: &[(&str, Kind, Place)] = &[
    ("bind-address", Kind::Ip, Field("bindAddress")),
    ("bind-address-hard-fail", Kind::Bool, Field("bindAddressHardFail")),
    ("boot-id-file", Kind::Text, Nowhere("nobody asks for the machine's id")),
    ("cleanup", Kind::Bool, Task("remove all that was made on this node, and end")),
    ("cluster-cidr", Kind::Text, Field("clusterCIDR")),
    (
        "config",
        Kind::Text,
        Task("the file with a KubeProxyConfiguration; other settings among the flags are left out then"),
    ),
    ("config-sync-period", Kind::Duration, Field("configSyncPeriod")),
    ("conntrack-max-per-core", Kind::Int, Field("conntrack.maxPerCore")),
    ("conntrack-min", Kind::Int, Field("conntrack.min")),
    ("conntrack-tcp-be-liberal", Kind::Bool, Field("conntrack.tcpBeLiberal")),
    ("conntrack-tcp-timeout-close-wait", Kind::Duration, Field("conntrack.tcpCloseWaitTimeout")),
    ("conntrack-tcp-timeout-established", Kind::Duration, Field("conntrack.tcpEstablishedTimeout")),
    ("conntrack-udp-timeout", Kind::Duration, Field("conntrack.udpTimeout")),
    ("conntrack-udp-timeout-stream", Kind::Duration, Field("conntrack.udpStreamTimeout")),
    ("detect-local-mode", Kind::Text, Field("detectLocalMode")),
    ("feature-gates", Kind::Gates, Field("featureGates")),
    ("healthz-bind-address", Kind::IpPort, Field("healthzBindAddress")),
    (
        "healthz-port",
        Kind::Int,
        Task("the port of /healthz where --healthz-bind-address has none; 0 serves it nowhere"),
    ),
    ("help", Kind::Bool, Task("print this, and end")),
    ("hostname-override", Kind::Text, Task("the name of this node's Node")),
    ("init-only", Kind::Bool, Task("set what only root may set, and end")),
    ("iptables-localhost-nodeports", Kind::Bool, Field("iptables.localhostNodePorts")),
    ("iptables-masquerade-bit", Kind::Int, Field("iptables.masqueradeBit")),
    ("iptables-min-sync-period", Kind::Duration, Mode("iptables", "minSyncPeriod")),
    ("iptables-sync-period", Kind::Duration, Mode("iptables", "syncPeriod")),
    ("ipvs-exclude-cidrs", Kind::List, Field("ipvs.excludeCIDRs")),
    ("ipvs-min-sync-period", Kind::Duration, Mode("ipvs", "minSyncPeriod")),
    ("ipvs-scheduler", Kind::Text, Field("ipvs.scheduler")),
    ("ipvs-strict-arp", Kind::Bool, Field("ipvs.strictARP")),
    ("ipvs-sync-period", Kind::Duration, Mode("ipvs", "syncPeriod")),
    ("ipvs-tcp-timeout", Kind::Duration, Field("ipvs.tcpTimeout")),
    ("ipvs-tcpfin-timeout", Kind::Duration, Field("ipvs.tcpFinTimeout")),
    ("ipvs-udp-timeout", Kind::Duration, Field("ipvs.udpTimeout")),
    ("kube-api-burst", Kind::Int, Field("clientConnection.burst")),
    ("kube-api-content-type", Kind::Text, Field("clientConnection.contentType")),
    ("kube-api-qps", Kind::Float, Field("clientConnection.qps")),
    ("kubeconfig", Kind::Text, Field("clientConnection.kubeconfig")),
    ("log-flush-frequency", Kind::Duration, Field("logging.flushFrequency")),
    ("log-json-info-buffer-size", Kind::Text, Field("logging.options.json.infoBufferSize")),
    ("log-json-split-stream", Kind::Bool, Field("logging.options.json.splitStream")),
    ("log-text-info-buffer-size", Kind::Text, Field("logging.options.text.infoBufferSize")),
    ("log-text-split-stream", Kind::Bool, Field("logging.options.text.splitStream")),
    ("logging-format", Kind::Text, Field("logging.format")),
    ("machine-id-file", Kind::Text, Nowhere("nobody asks for the machine's id")),
    ("masquerade-all", Kind::Bool, Mode("nftables or iptables", "masqueradeAll")),
    ("master", Kind::Text, Task("the address of the API server; goes before that of the kubeconfig")),
    ("metrics-bind-address", Kind::IpPort, Field("metricsBindAddress")),
    (
        "metrics-port",
        Kind::Int,
        Task("the port of /metrics where --metrics-bind-address has none; 0 serves it nowhere"),
    ),
    ("nodeport-addresses", Kind::List, Field("nodePortAddresses")),
    ("oom-score-adj", Kind::Int, Field("oomScoreAdj")),
    ("pod-bridge-interface", Kind::Text, Field("detectLocal.bridgeInterface")),
    ("pod-interface-name-prefix", Kind::Text, Field("detectLocal.interfaceNamePrefix")),
    ("profiling", Kind::Bool, Field("enableProfiling")),
    ("proxy-mode", Kind::Text, Field("mode")),
    ("show-hidden-metrics-for-version", Kind::Text, Field("showHiddenMetricsForVersion")),
    (
        "sluice-config",
        Kind::Text,
        Task("a file with settings of `sluice agent`, which go before kube-proxy's"),
    ),
    ("v", Kind::Int, Field("logging.verbosity")),
    ("version", Kind::Bool, Task("print the version, and end")),
    ("vmodule", Kind::Text, Field("logging.vmodule")),
    (
        "write-config-to",
        Kind::Text,
        Task("write what is set, defaults and all, as a KubeProxyConfiguration into this file, and end"),
    ),
];

/// The help text: each flag, and what it is.
pub(super) struct Help;

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Serves this node's services in the place of kube-proxy, with kube-proxy's flags.\n")?;
        writeln!(f, "Usage: sluice kube-proxy [FLAGS]\n")?;
        for (flag, kind, place) in FLAGS {
            let dashes = if flag.len() == 1 { "-" } else { "--" };
            let left = format!("{dashes}{flag}{}", kind.word());
            match place {
                Field(path) => writeln!(f, "  {left:<50} the field {path}")?,
                Mode(section, field) => writeln!(f, "  {left:<50} the field {field} of {section}")?,
                Task(text) => writeln!(f, "  {left:<50} {text}")?,
                Nowhere(why) => writeln!(f, "  {left:<50} no effect: {why}")?,
            }
        }
        write!(f, "\nFields are those of KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).")
    }
}
