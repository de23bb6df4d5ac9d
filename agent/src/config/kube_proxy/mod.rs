//! kube-proxy's own configuration, `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1` (row 44 of the behaviour
//! table): what of it has a meaning here as settings, and a remark by name on all else that it sets.
//!
//! A name that is set to nothing (`""`, `0`, `0s`, `false`, `null`, an empty list) is as good as absent: kubeadm writes
//! them all. What kube-proxy refuses is refused, with the field.

mod command;
mod conntrack;
mod defaults;
mod flags;
mod remarks;
mod table;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;
use sluice_model::IpFamily;

pub use command::{Invocation, InvocationError, invocation};
pub(super) use conntrack::usual as usual_nf_conntrack;
pub use flags::FlagError;

use super::{
    LogFormat, NodePortAddress, cores,
    fields::Fields,
    settings::{DetectLocal, Listen, PodNetwork, Settings},
    value::Period,
};
use conntrack::conntrack;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";
const HEALTHZ_PORT: u16 = 10_256;
const METRICS_PORT: u16 = 10_249;
/// How little the kernel likes to end kube-proxy where memory is short, if nothing is said.
const OOM_SCORE: i32 = -999;

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

/// What a configuration depends on besides what it says.
pub(super) struct Around<'a> {
    /// The number of the machine's processors.
    pub(super) cores: u32,
    /// The bridge that pods are attached to, if it is not the usual one.
    pub(super) bridge: Option<&'a str>,
    /// Another plugin attaches the pods.
    pub(super) foreign: bool,
}

impl<'a> Around<'a> {
    /// This machine, and what of its own settings Sluice has.
    pub(super) fn of(settings: &'a Settings) -> Self {
        let foreign = settings.pod_network == Some(PodNetwork::Foreign);
        Self { cores: cores(), bridge: settings.bridge.as_deref(), foreign }
    }
}

/// Reads a configuration.
pub(super) fn translate(text: &str, around: &Around<'_>) -> Result<Translated, KubeProxyError> {
    translate_value(read(text)?, around)
}

/// The fields as they stand in a file.
fn read(text: &str) -> Result<Value, KubeProxyError> {
    Ok(serde_saphyr::from_str(text).map_err(Box::new)?)
}

/// What the fields mean.
fn translate_value(value: Value, around: &Around<'_>) -> Result<Translated, KubeProxyError> {
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
    detect_local(&mut top, &mut settings, &mut remarks, around)?;
    conntrack(&mut top, &mut settings, around.cores)?;
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
    settings.log_level = match logging.number("verbosity")? {
        None | Some(i64::MIN..4) => None,
        Some(4..8) => Some("debug".to_owned()),
        Some(_) => Some("trace".to_owned()),
    };
    top.put_back("logging", logging);
    let score = top.number("oomScoreAdj")?.unwrap_or(i64::from(OOM_SCORE));
    let score = i32::try_from(score).ok().filter(|score| (-1000..=1000).contains(score));
    settings.oom_score_adj =
        Some(score.ok_or_else(|| top.wrong("oomScoreAdj", "is not between -1000 and 1000"))?);
    check_ranges(&mut top)?;
    remarks::leftovers("", &Value::Object(top.fields), &mut remarks);
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
    around: &Around<'_>,
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
            let ours = around.bridge.unwrap_or(sluice_netlink::owned::DEFAULT_BRIDGE);
            let (field, name) = match mode {
                "BridgeInterface" => ("bridgeInterface", interface("bridgeInterface")?),
                _ => ("interfaceNamePrefix", interface("interfaceNamePrefix")?),
            };
            let means_ours = match field {
                // Whoever has attached them, pods are known by their devices.
                _ if around.foreign => true,
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

/// What kube-proxy refuses of what has no meaning here.
fn check_ranges(top: &mut Fields) -> Result<(), KubeProxyError> {
    let outside = |number: Option<i64>, low: i64, high: i64| number.filter(|n| !(low..=high).contains(n));
    for name in ["iptables", "nftables"] {
        let section = top.peek(name)?;
        if let Some(bit) = outside(section.peek_number("masqueradeBit")?, 0, 31) {
            return Err(section.wrong("masqueradeBit", format!("{bit} is not between 0 and 31")));
        }
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

fn not_an(text: &str, what: &str) -> String {
    format!("{text:?} is not an {what}").replace("an network", "a network")
}

#[cfg(test)]
mod tests;
