//! kube-proxy's own configuration, `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1` (row 44 of the behaviour
//! table): what of it has a meaning here as settings, and a remark by name on all else that it sets.
//!
//! A name that is set to nothing (`""`, `0`, `0s`, `false`, `null`, an empty list) is as good as absent: kubeadm writes
//! them all. What kube-proxy refuses is refused, with the field.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;
use sluice_model::IpFamily;

use super::{
    LogFormat, NodePortAddress,
    fields::Fields,
    settings::{DetectLocal, Listen, Settings},
    value::Period,
};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";
const HEALTHZ_PORT: u16 = 10_256;
const METRICS_PORT: u16 = 10_249;
/// What conntrack has room for where one of its two settings is left out: connections, and connections a core.
const CONNTRACK_MIN: i64 = 128 * 1024;
const CONNTRACK_PER_CORE: i64 = 32 * 1024;

/// A KubeProxyConfiguration that kube-proxy would not take either.
#[derive(Debug, thiserror::Error)]
pub enum KubeProxyError {
    /// It is no YAML.
    #[error(transparent)]
    Parse(#[from] Box<serde_saphyr::Error>),
    /// A field with a value that it cannot have.
    #[error("{field}: {problem}")]
    Field {
        /// The field's path.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

/// What a KubeProxyConfiguration means here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// What has a meaning.
    pub(super) settings: Settings,
    /// What has none: a field, and why or what instead.
    pub(super) remarks: Vec<String>,
}

/// Why fields have no meaning here. A path ends a section's name with all that is in it.
const MEANINGLESS: &[(&str, &str)] = &[
    ("bindAddressHardFail", "an address that is taken is reported and tried again"),
    ("clientConnection", "the agent's way to the API has no such setting"),
    ("configSyncPeriod", "a watch needs no refreshing"),
    ("conntrack.tcpBeLiberal", "segments outside the window are left to their receiver in any case"),
    ("detectLocal", "belongs to another detectLocalMode"),
    ("enableProfiling", "pprof is of Go; the metrics tell of programs' run times"),
    ("featureGates", "there are no feature gates"),
    ("iptables.masqueradeBit", "packets are not marked"),
    ("iptables.minSyncPeriod", "a change takes effect at once, at a cost of its own size"),
    ("iptables", "belongs to another mode"),
    ("ipvs", "endpoints are chosen at random, all with the same probability, whatever the mode"),
    ("logging", "see logLevel and logFormat of the agent"),
    ("nftables.masqueradeBit", "packets are not marked"),
    ("nftables.minSyncPeriod", "a change takes effect at once, at a cost of its own size"),
    ("nftables", "belongs to another mode"),
    ("oomScoreAdj", "is for whoever starts the agent (OOMScoreAdjust= of its unit)"),
    ("portRange", "is unused in kube-proxy, too"),
    ("showHiddenMetricsForVersion", "no metrics are hidden"),
    ("windowsRunAsService", "is for Windows"),
    ("winkernel", "is for Windows"),
];

/// Reads a configuration. `cores` is the number of the machine's processors; `bridge` the bridge that pods are
/// attached to, if it is not the usual one.
pub(super) fn translate(text: &str, cores: u32, bridge: Option<&str>) -> Result<Translated, KubeProxyError> {
    let value: Value = serde_saphyr::from_str(text).map_err(Box::new)?;
    let mut top = Fields::new(String::new(), value)?;
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let found = top.text(name)?.unwrap_or_default();
        if found != wanted {
            return Err(top.wrong(name, format!("{found:?} is not {wanted}")));
        }
    }
    let mut remarks = Vec::new();
    let mode = Mode::read(&mut top)?;
    remarks.extend(
        mode.name()
            .map(|name| format!("mode: {name} is kube-proxy's; programs of eBPF serve, whatever it says")),
    );
    let mut settings = Settings::default();
    addresses(&mut top, &mut settings, &mut remarks)?;
    let local = mode.read_sections(&mut top, &mut settings)?;
    settings.node_port_addresses = Some(node_ports(&mut top, mode, local)?);
    detect_local(&mut top, &mut settings, &mut remarks, bridge)?;
    conntrack(&mut top, &mut settings, cores)?;
    settings.node_name = top.text("hostnameOverride")?.map(|name| name.trim().to_lowercase());
    let mut client = top.section("clientConnection")?;
    settings.kubeconfig = client.text("kubeconfig")?.map(Into::into);
    top.put_back("clientConnection", client);
    let mut logging = top.section("logging")?;
    settings.log_format = match logging.text("format")?.as_deref() {
        None => None,
        Some("text") => Some(LogFormat::Text),
        Some("json") => Some(LogFormat::Json),
        Some(other) => return Err(logging.wrong("format", format!("{other:?} is neither text nor json"))),
    };
    top.put_back("logging", logging);
    check_ranges(&mut top)?;
    leftovers("", &Value::Object(top.fields), &mut remarks);
    Ok(Translated { settings, remarks })
}

/// kube-proxy's modes. That it says nothing means iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Unset,
    Iptables,
    Ipvs,
    Nftables,
}

impl Mode {
    fn read(top: &mut Fields) -> Result<Self, KubeProxyError> {
        match top.text("mode")?.as_deref() {
            None => Ok(Self::Unset),
            Some("iptables") => Ok(Self::Iptables),
            Some("ipvs") => Ok(Self::Ipvs),
            Some("nftables") => Ok(Self::Nftables),
            Some(other) => Err(top.wrong("mode", format!("{other:?} is none of iptables, ipvs, nftables"))),
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Unset => None,
            Self::Iptables => Some("iptables"),
            Self::Ipvs => Some("ipvs"),
            Self::Nftables => Some("nftables"),
        }
    }

    /// The periods and the masquerade of the mode. Whether it serves node ports at loopback addresses.
    fn read_sections(self, top: &mut Fields, settings: &mut Settings) -> Result<bool, KubeProxyError> {
        let mut iptables = top.section("iptables")?;
        let mut localhost = true;
        if let Some(said) = iptables.flag("localhostNodePorts")? {
            localhost = said;
        }
        // Mode ipvs masquerades with the rules of iptables.
        let name = if self == Self::Nftables { "nftables" } else { "iptables" };
        top.put_back("iptables", iptables);
        let mut section = top.section(name)?;
        settings.masquerade_all = section.flag("masqueradeAll")?.filter(|all| *all);
        top.put_back(name, section);
        let name = self.name().unwrap_or("iptables");
        let mut section = top.section(name)?;
        let period = section.duration("syncPeriod")?;
        settings.resync_period = period.map(Period);
        let least = section.duration("minSyncPeriod")?;
        if let (Some(period), Some(least)) = (period, least)
            && least > period
        {
            return Err(section.wrong("minSyncPeriod", format!("{least:?} is more than syncPeriod")));
        }
        if let Some(least) = least {
            section.fields.insert("minSyncPeriod".to_owned(), Value::String(format!("{least:?}")));
        }
        top.put_back(name, section);
        Ok(localhost && matches!(self, Self::Unset | Self::Iptables))
    }
}

/// What the servers listen on. The family of `bindAddress` is that of their defaults.
fn addresses(
    top: &mut Fields,
    settings: &mut Settings,
    remarks: &mut Vec<String>,
) -> Result<(), KubeProxyError> {
    let mut v6 = false;
    if let Some(text) = top.text("bindAddress")? {
        let ip: IpAddr = text.parse().map_err(|_| top.wrong("bindAddress", not_an(&text, "address")))?;
        v6 = ip.is_ipv6();
        if !ip.is_unspecified() {
            remarks
                .push(format!("bindAddress: {ip} is not used: the node's addresses are those of its Node"));
        }
    }
    let [healthz, metrics] = if v6 { ["::", "::1"] } else { ["0.0.0.0", "127.0.0.1"] };
    settings.healthz_address = Some(listen(top, "healthzBindAddress", healthz, HEALTHZ_PORT)?);
    settings.metrics_address = Some(listen(top, "metricsBindAddress", metrics, METRICS_PORT)?);
    Ok(())
}

/// An address, with a port or without.
fn listen(top: &mut Fields, field: &str, default: &str, port: u16) -> Result<Listen, KubeProxyError> {
    let text = top.text(field)?.unwrap_or_else(|| default.to_owned());
    let whole = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    let plain = || text.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, port));
    let address = whole.or_else(plain);
    address
        .map(|address| Listen(Some(address)))
        .ok_or_else(|| top.wrong(field, not_an(&text, "address:port")))
}

/// Where node ports are served. That nothing is said means the primary addresses in mode nftables, and all in the others.
fn node_ports(top: &mut Fields, mode: Mode, localhost: bool) -> Result<Vec<NodePortAddress>, KubeProxyError> {
    let texts = top.list("nodePortAddresses")?;
    let mut places = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let place = text.trim().parse().map_err(|error: super::InvalidNodePortAddress| {
            top.wrong(&format!("nodePortAddresses[{index}]"), error)
        })?;
        places.push(place);
    }
    if !places.is_empty() {
        return Ok(places);
    }
    Ok(match (mode, localhost) {
        (Mode::Nftables, _) => vec![NodePortAddress::Primary],
        (_, true) => vec![NodePortAddress::All],
        // The networks of everything, to which loopback addresses do not belong.
        (_, false) => [IpFamily::V4, IpFamily::V6].map(everything).map(NodePortAddress::Network).to_vec(),
    })
}

fn everything(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        IpFamily::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Who is of the cluster (row 7 of the behaviour table). Pods of this node are known by their devices in any case.
fn detect_local(
    top: &mut Fields,
    settings: &mut Settings,
    remarks: &mut Vec<String>,
    bridge: Option<&str>,
) -> Result<(), KubeProxyError> {
    let cidrs = cluster_cidrs(top)?;
    let mut section = top.section("detectLocal")?;
    let mut interface = |name: &str| -> Result<String, KubeProxyError> {
        section.text(name)?.ok_or_else(|| section.wrong(name, "is empty, and detectLocalMode needs it"))
    };
    let unused = |what: &str| format!("clusterCIDR: is not used with detectLocalMode {what}");
    match top.text("detectLocalMode")?.as_deref() {
        None | Some("ClusterCIDR") if cidrs.is_empty() => {
            remarks.push(
                "clusterCIDR: is not set; who is of the cluster is told by the Node's podCIDRs".to_owned(),
            );
        }
        None | Some("ClusterCIDR") => {
            settings.detect_local = Some(DetectLocal::ClusterCidr);
            settings.cluster_cidrs = Some(cidrs);
        }
        Some("NodeCIDR") => {
            settings.detect_local = Some(DetectLocal::NodeCidr);
            remarks.extend((!cidrs.is_empty()).then(|| unused("NodeCIDR")));
        }
        Some(mode @ ("BridgeInterface" | "InterfaceNamePrefix")) => {
            settings.detect_local = Some(DetectLocal::Interface);
            remarks.extend((!cidrs.is_empty()).then(|| unused(mode)));
            let ours = bridge.unwrap_or(sluice_netlink::owned::DEFAULT_BRIDGE);
            let (field, name) = match mode {
                "BridgeInterface" => ("bridgeInterface", interface("bridgeInterface")?),
                _ => ("interfaceNamePrefix", interface("interfaceNamePrefix")?),
            };
            let means_ours = match field {
                "bridgeInterface" => name == ours,
                _ => ours.starts_with(&name),
            };
            if !means_ours {
                remarks.push(format!(
                    "detectLocal.{field}: {name} is not ours: the pods of {ours} are of the cluster"
                ));
            }
        }
        Some(other) => {
            let modes = "ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix";
            return Err(top.wrong("detectLocalMode", format!("{other:?} is none of {modes}")));
        }
    }
    top.put_back("detectLocal", section);
    Ok(())
}

/// One network, or one of each family.
fn cluster_cidrs(top: &mut Fields) -> Result<Vec<IpNet>, KubeProxyError> {
    let Some(text) = top.text("clusterCIDR")? else { return Ok(Vec::new()) };
    let mut networks: Vec<IpNet> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let network = part.parse::<IpNet>().map_err(|_| top.wrong("clusterCIDR", not_an(part, "network")))?;
        networks.push(network.trunc());
    }
    match networks[..] {
        [_] => Ok(networks),
        [one, other] if IpFamily::of(one.addr()) != IpFamily::of(other.addr()) => Ok(networks),
        _ => Err(top.wrong("clusterCIDR", format!("{text:?} is neither one network nor one of each family"))),
    }
}

/// The size of the table of connections, and how long they are remembered.
fn conntrack(top: &mut Fields, settings: &mut Settings, cores: u32) -> Result<(), KubeProxyError> {
    let mut section = top.section("conntrack")?;
    let (per_core, min) = (section.number("maxPerCore")?, section.number("min")?);
    for (field, number) in [("maxPerCore", per_core), ("min", min)] {
        if number.is_some_and(|number| number < 0) {
            return Err(section.wrong(field, "is less than 0"));
        }
    }
    // That there be no limit for a core means that the limit is left as it is.
    if per_core != Some(0) && (per_core.is_some() || min.is_some()) {
        let of_cores = per_core.unwrap_or(CONNTRACK_PER_CORE).saturating_mul(i64::from(cores));
        let connections = of_cores.max(min.unwrap_or(CONNTRACK_MIN));
        // Two entries are a connection.
        let entries = u32::try_from(connections.saturating_mul(2));
        settings.flow_entries = Some(entries.map_err(|_| section.wrong("maxPerCore", "is too large"))?);
    }
    settings.tcp_established_timeout = section.duration("tcpEstablishedTimeout")?.map(Period);
    settings.tcp_close_wait_timeout = section.duration("tcpCloseWaitTimeout")?.map(Period);
    settings.udp_timeout = section.duration("udpTimeout")?.map(Period);
    settings.udp_stream_timeout = section.duration("udpStreamTimeout")?.map(Period);
    top.put_back("conntrack", section);
    Ok(())
}

/// What kube-proxy refuses of what has no meaning here.
fn check_ranges(top: &mut Fields) -> Result<(), KubeProxyError> {
    let outside = |number: Option<i64>, low: i64, high: i64| number.filter(|n| !(low..=high).contains(n));
    for name in ["iptables", "nftables"] {
        let section = top.peek(name)?;
        if let Some(bit) = outside(section.peek_number("masqueradeBit")?, 0, 31) {
            return Err(section.wrong("masqueradeBit", format!("{bit} is not between 0 and 31")));
        }
    }
    if let Some(score) = outside(top.peek_number("oomScoreAdj")?, -1000, 1000) {
        return Err(top.wrong("oomScoreAdj", format!("{score} is not between -1000 and 1000")));
    }
    let ipvs = top.peek("ipvs")?;
    for (index, text) in ipvs.clone().list("excludeCIDRs")?.iter().enumerate() {
        if text.parse::<IpNet>().is_err() {
            return Err(ipvs.wrong(&format!("excludeCIDRs[{index}]"), not_an(text, "network")));
        }
    }
    for name in ["tcpTimeout", "tcpFinTimeout", "udpTimeout"] {
        ipvs.clone().duration(name)?;
    }
    top.peek("")?.duration("configSyncPeriod").map(|_| ())
}

/// A remark on each name that is left and set to something.
fn leftovers(path: &str, value: &Value, remarks: &mut Vec<String>) {
    if is_nothing(value) {
        return;
    }
    match value {
        Value::Object(fields)
            if path.is_empty() || MEANINGLESS.iter().all(|(name, _)| *name != path) || has_own(path) =>
        {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leftovers(&path, value, remarks);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !is_nothing(value)) {
                let path = format!("{path}.{name}");
                remarks.push(format!("{path}: {value} has no effect: {}", why(&path)));
            }
        }
        value => remarks.push(format!("{path}: {value} has no effect: {}", why(path))),
    }
}

/// Whether fields within a section have reasons of their own.
fn has_own(section: &str) -> bool {
    MEANINGLESS.iter().any(|(name, _)| name.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

/// The reason of the narrowest path.
fn why(path: &str) -> &'static str {
    let covers =
        |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let found = MEANINGLESS.iter().filter(|(name, _)| covers(name)).max_by_key(|(name, _)| name.len());
    found.map_or("there is no such field", |(_, why)| why)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => {
            matches!(&**text, "" | "0")
                || text.parse::<jiff::SignedDuration>().is_ok_and(|time| time.is_zero())
        }
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

fn not_an(text: &str, what: &str) -> String {
    format!("{text:?} is not an {what}").replace("an network", "a network")
}

#[cfg(test)]
#[path = "kube_proxy_tests.rs"]
mod tests;
