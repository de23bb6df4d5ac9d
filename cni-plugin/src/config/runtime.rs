//! What the runtime puts into a configuration for one attachment.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{Bandwidth, RangeConfig, or_default, place, ports::PortMapping};
use crate::error::{Error, Result};

/// What the runtime adds for one attachment, by the capabilities that the configuration claims.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuntimeConfig {
    #[serde(default)]
    pub(crate) mac: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ips: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ip_ranges: Vec<Vec<RangeConfig>>,
    #[serde(default)]
    pub(crate) dns: Option<RuntimeDns>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) port_mappings: Vec<PortMapping>,
    #[serde(default)]
    pub(super) bandwidth: Option<Bandwidth>,
    /// Names by which others want to find the attachment.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) aliases: Vec<String>,
}

impl RuntimeConfig {
    /// Refuses aliases that no DNS name can be.
    pub(super) fn check_aliases(&self) -> Result<()> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        for (index, alias) in self.aliases.iter().enumerate() {
            if alias.len() > 253 || !alias.split('.').all(is_label) {
                return Err(Error::config(format!(
                    "runtimeConfig.aliases[{index}]: {alias:?} is not a name"
                )));
            }
        }
        Ok(())
    }
}

/// The names in what runtimes add. Runtimes written in Go may write them with other capitals (containerd has
/// `HostPort` where CRI-O has `hostPort`), and the reference plugins, in Go as well, do not see a difference.
const NAMES: [&str; 24] = [
    "mac",
    "ips",
    "ipRanges",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "dns",
    "servers",
    "searches",
    "options",
    "portMappings",
    "hostPort",
    "containerPort",
    "protocol",
    "hostIP",
    "bandwidth",
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "shapedSubnets",
    "unshapedSubnets",
    "nonShapedSubnets",
];

/// What the runtime adds, whatever capitals it has its names in.
pub(super) fn in_any_case<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> core::result::Result<RuntimeConfig, D::Error> {
    let value = canonical(Value::deserialize(deserializer)?);
    Option::<RuntimeConfig>::deserialize(&value).map(Option::unwrap_or_default).map_err(|error| {
        // Once more, to learn which field it is.
        let whole = serde_json::json!({ "runtimeConfig": value }).to_string();
        let named = place::read::<BTreeMap<String, Option<RuntimeConfig>>>(whole.as_bytes()).err();
        let named = named.unwrap_or_else(|| error.to_string());
        // The place is one in another text.
        D::Error::custom(named.split(" at line ").next().unwrap_or_default())
    })
}

fn canonical(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(canonical).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let known = NAMES.iter().find(|known| known.eq_ignore_ascii_case(&name));
                (known.map_or(name, ToString::to_string), canonical(value))
            })
            .collect(),
        other => other,
    }
}

/// The `dns` capability, which spells its fields its own way.
#[derive(Debug, Deserialize)]
pub(crate) struct RuntimeDns {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) servers: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) searches: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Vec<String>,
}

/// `args` of the configuration.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ConfigArgs {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) cni: CniArgs,
}

/// `args.cni`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CniArgs {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ips: Vec<String>,
    #[serde(default)]
    pub(crate) mac: Option<String>,
    // What the plugin `tuning` takes from here.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) sysctl: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) mtu: Option<u32>,
    #[serde(default, rename = "txQLen")]
    pub(super) tx_queue_len: Option<u32>,
    #[serde(default)]
    pub(super) promisc: Option<bool>,
    #[serde(default)]
    pub(super) allmulti: Option<bool>,
}

/// An attachment that GC is to leave alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}
