//! The network configuration on standard input.
//!
//! `docs/cni.md` explains the fields to users. Fields that are not here are passed over, as the specification
//! wants it: a runtime and other plugins of a chain put their own into the same object.

mod bandwidth;
pub(crate) mod conditions;
mod ipam;
mod list;
mod place;
mod portmap;
mod ports;
mod runtime;
mod vlan;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sluice_netlink::{MacAddress, owned};

pub(crate) use self::{
    bandwidth::{Bandwidth, Limit},
    ipam::{Dns, Ipam, RangeConfig, RouteConfig},
    runtime::{ConfigArgs, RuntimeConfig, ValidAttachment},
    vlan::Vlans,
};
#[cfg(test)]
pub(crate) use self::{
    ports::PortMapping,
    runtime::{CniArgs, RuntimeDns},
    vlan::TrunkRange,
};
use crate::{
    environment::is_name,
    error::{Code, Error, Result},
    store::{HostLocal, HostPort},
    version::Version,
};

/// The state directory where the configuration names none.
pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/sluice";
/// The directory of the pins where neither the configuration nor the node names one.
pub(crate) const DEFAULT_BPFFS: &str = "/sys/fs/bpf/sluice";
/// The plugin's name in configurations.
pub(crate) const TYPE: &str = "sluice-cni";

/// A network configuration, as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) cni_version: Option<String>,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) bridge: Option<String>,
    #[serde(default)]
    is_gateway: Option<bool>,
    #[serde(default)]
    is_default_gateway: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) force_address: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ip_masq: bool,
    #[serde(default)]
    ip_masq_backend: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) hairpin_mode: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) promisc_mode: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) macspoofchk: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port_isolation: bool,
    #[serde(default)]
    vlan: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    vlan_trunk: Vec<vlan::TrunkRange>,
    #[serde(default, deserialize_with = "or_default")]
    preserve_default_vlan: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) enabledad: bool,
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) disable_container_interface: bool,
    /// Settings of the container's namespace, as the plugin `tuning` takes them.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sysctl: BTreeMap<String, String>,
    #[serde(default, rename = "txQLen")]
    pub(crate) tx_queue_len: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) promisc: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) allmulti: bool,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default, deserialize_with = "ipam::if_written")]
    pub(crate) ipam: Ipam,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) dns: Dns,
    #[serde(default, deserialize_with = "runtime::in_any_case")]
    pub(crate) runtime_config: RuntimeConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) args: ConfigArgs,
    #[serde(default)]
    pub(crate) state_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) bpffs: Option<PathBuf>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) require_datapath: bool,
    /// Limits where the runtime gives none.
    #[serde(default)]
    bandwidth: Option<Bandwidth>,
    // The same, in the places where the plugin `bandwidth` has them.
    #[serde(default)]
    ingress_rate: Option<u64>,
    #[serde(default)]
    ingress_burst: Option<u64>,
    #[serde(default)]
    egress_rate: Option<u64>,
    #[serde(default)]
    egress_burst: Option<u64>,
    #[serde(default)]
    shaped_subnets: Option<Vec<String>>,
    #[serde(default, alias = "nonShapedSubnets")]
    unshaped_subnets: Option<Vec<String>>,
    // Options of the plugin `portmap`.
    #[serde(default)]
    backend: Option<String>,
    #[serde(default)]
    snat: Option<bool>,
    #[serde(default)]
    masq_all: Option<bool>,
    #[serde(default)]
    mark_masq_bit: Option<i64>,
    #[serde(default)]
    external_set_mark_chain: Option<String>,
    #[serde(default, rename = "conditionsV4")]
    conditions_v4: Option<Vec<String>>,
    #[serde(default, rename = "conditionsV6")]
    conditions_v6: Option<Vec<String>>,
    /// What a runtime that hands us its whole list should have heeded.
    #[serde(default, deserialize_with = "list::flag")]
    pub(crate) disable_check: bool,
    #[serde(default, rename = "disableGC", deserialize_with = "list::flag")]
    pub(crate) disable_gc: bool,
    #[serde(default)]
    pub(crate) prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub(crate) valid_attachments: Option<Vec<ValidAttachment>>,
    #[serde(default, rename = "cni.dev/attachments")]
    pub(crate) legacy_valid_attachments: Option<Vec<ValidAttachment>>,

    /// All of it as it came, for a plugin that we run.
    #[serde(skip)]
    pub(crate) raw: Vec<u8>,
}

/// What is missing where there is `null`: so Go writes a list or an object that was never made.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Config {
    /// Parses a single configuration, or picks ours from a list.
    pub(crate) fn parse(stdin: &[u8]) -> Result<Self> {
        let decode = |error: String| {
            Error::new(Code::Decode, format!("the network configuration is not understood: {error}"))
        };
        // An array would be read as the fields in their order.
        if stdin.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(Error::new(Code::Decode, "the network configuration is not a JSON object"));
        }
        let picked = if list::is_likely(stdin) {
            list::pick(place::read(stdin).map_err(decode)?)?.to_string().into_bytes()
        } else {
            stdin.to_vec()
        };
        let mut config: Self = place::read(&picked).map_err(decode)?;
        config.raw = picked;
        config.heed_args();
        config.check()?;
        Ok(config)
    }

    /// The version it is in.
    pub(crate) fn version(&self) -> Result<Version> {
        Version::parse(self.cni_version.as_deref())
    }

    /// The bridge's name.
    pub(crate) fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or(owned::DEFAULT_BRIDGE)
    }

    /// The state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR))
    }

    fn check(&self) -> Result<()> {
        self.version()?;
        if !is_name(&self.name) {
            return Err(Error::config(format!(
                "name {:?} must start with a letter or digit and hold only these, '_', '.' and '-'",
                self.name
            )));
        }
        if self.name.len() > 200 {
            // It becomes a file's name.
            return Err(Error::config(format!("name {:?} is longer than 200 bytes", self.name)));
        }
        if self.prev_result.as_ref().is_some_and(|previous| !previous.is_object()) {
            return Err(Error::new(Code::Decode, "prevResult is not an object"));
        }
        let bridge = self.bridge();
        if bridge.is_empty() || bridge.len() > 15 || bridge.contains(|c: char| c == '/' || c.is_whitespace())
        {
            return Err(Error::config(format!("bridge {bridge:?} is not a name that a device can have")));
        }
        if self.hairpin_mode && self.promisc_mode {
            return Err(Error::config("hairpinMode and promiscMode exclude each other"));
        }
        if let Some(device) = self.vlan_gateway()?.filter(|device| device.len() > 14) {
            return Err(Error::config(format!(
                "bridge {bridge:?} and vlan make the device {device:?}, whose name is too long"
            )));
        }
        self.host_ports()?;
        self.runtime_config.check_aliases()?;
        if let Some(field) = self.ipam.stray().filter(|_| self.delegated_ipam().is_none()) {
            return Err(Error::config(format!("ipam.{field} stands without ipam.subnet")));
        }
        self.check_bandwidth()?;
        portmap::check(self)?;
        // Who asks for masquerade gets it, whichever tool's rules he has in mind.
        let known = |backend: &str| matches!(backend, "" | "iptables" | "nftables");
        if let Some(other) = self.ip_masq_backend.as_deref().filter(|backend| !known(backend)) {
            return Err(Error::unsupported("ipMasqBackend", format_args!("{other:?}")));
        }
        for name in self.sysctl.keys() {
            sysctl_path(name, "eth0")?;
        }
        if self.disable_container_interface && !(self.ipam.ranges.is_empty() && self.ipam.single().is_none())
        {
            return Err(Error::config("disableContainerInterface and addresses in ipam exclude each other"));
        }
        Ok(())
    }

    /// What `args.cni` says stands before what the configuration says, as with the plugin `tuning`.
    fn heed_args(&mut self) {
        let args = &mut self.args.cni;
        self.sysctl.append(&mut args.sysctl);
        self.mtu = args.mtu.or(self.mtu);
        self.tx_queue_len = args.tx_queue_len.or(self.tx_queue_len);
        self.promisc = args.promisc.unwrap_or(self.promisc);
        self.allmulti = args.allmulti.unwrap_or(self.allmulti);
    }

    fn check_bandwidth(&self) -> Result<()> {
        let own = self.own_bandwidth();
        if own.is_said() && self.bandwidth.is_some() {
            return Err(Error::config("bandwidth and its fields beside it exclude each other"));
        }
        own.check("")?;
        for (place, bandwidth) in
            [("bandwidth.", &self.bandwidth), ("runtimeConfig.bandwidth.", &self.runtime_config.bandwidth)]
        {
            bandwidth.as_ref().map_or(Ok(()), |bandwidth| bandwidth.check(place))?;
        }
        Ok(())
    }

    /// The limits that stand where the plugin `bandwidth` has them.
    fn own_bandwidth(&self) -> Bandwidth {
        Bandwidth {
            ingress_rate: self.ingress_rate,
            ingress_burst: self.ingress_burst,
            egress_rate: self.egress_rate,
            egress_burst: self.egress_burst,
            shaped_subnets: self.shaped_subnets.clone(),
            unshaped_subnets: self.unshaped_subnets.clone(),
        }
    }

    /// Whether the container's interface is up and has no address: `"ipam": {}`.
    pub(crate) fn is_bare(&self) -> bool {
        self.ipam.is_none() && self.runtime_config.ip_ranges.is_empty()
    }

    /// Who may use host ports of a family, in the words of iptables or nft; empty, where everybody may.
    pub(crate) fn conditions(&self, v4: bool) -> &[String] {
        let words = if v4 { &self.conditions_v4 } else { &self.conditions_v6 };
        let words = words.as_deref().unwrap_or_default();
        if conditions::Style::of(words).is_some() { words } else { &[] }
    }

    /// Whether there are host ports that not everybody may use.
    pub(crate) fn has_conditions(&self) -> bool {
        [true, false].iter().any(|v4| !self.conditions(*v4).is_empty())
    }

    /// Whether everybody who comes by a host port is masqueraded.
    pub(crate) fn masquerades_host_ports(&self) -> bool {
        self.masq_all == Some(true) && self.snat != Some(false)
    }

    /// The VLANs of the container's port, if it is told any.
    pub(crate) fn vlans(&self) -> Result<Option<Vlans>> {
        vlan::vlans(self.vlan, &self.vlan_trunk, self.preserve_default_vlan)
    }

    /// The device that has the gateway's addresses, where that is not the bridge itself.
    pub(crate) fn vlan_gateway(&self) -> Result<Option<String>> {
        let access =
            self.vlans()?.and_then(|vlans| vlans.access).filter(|_| self.is_gateway() && !self.is_bare());
        Ok(access.map(|number| format!("{}.{number}", self.bridge())))
    }

    /// The options about VLANs as they are written, for an error.
    pub(crate) fn vlan_option(&self) -> (&'static str, String) {
        match self.vlan {
            Some(number @ 1..) => ("vlan", number.to_string()),
            _ => ("vlanTrunk", format!("{} entries", self.vlan_trunk.len())),
        }
    }

    /// The plugin that is to give out the addresses, if that is not us.
    pub(crate) fn delegated_ipam(&self) -> Option<&str> {
        match self.ipam.kind.as_deref() {
            // The configuration of `host-local` means the same to us, and its work is what we do ourselves.
            None | Some("" | "sluice" | TYPE | "host-local") => None,
            Some(other) => Some(other),
        }
    }

    /// The ports of the node that lead to the attachment.
    pub(crate) fn host_ports(&self) -> Result<Vec<HostPort>> {
        ports::host_ports(&self.runtime_config.port_mappings)
    }

    /// The limits of the attachment's rates, if it has any. What the network says stands before what a container asks
    /// for.
    pub(crate) fn bandwidth(&self) -> Bandwidth {
        let own = self.bandwidth.clone().unwrap_or_else(|| self.own_bandwidth());
        own.or(self.runtime_config.bandwidth.as_ref())
    }

    /// Whether the node has the gateways' addresses. Whoever asks for a default route by the gateway asks for that, too.
    pub(crate) fn is_gateway(&self) -> bool {
        self.is_default_gateway == Some(true) || self.is_gateway.unwrap_or(true)
    }

    /// Whether the container's default route leads to the gateway.
    pub(crate) fn is_default_gateway(&self) -> bool {
        self.is_gateway() && self.is_default_gateway.unwrap_or(true)
    }

    /// The addresses that the attachment must have, from wherever they were asked for.
    pub(crate) fn requested_addresses(&self) -> Result<Vec<IpAddr>> {
        let all = self.runtime_config.ips.iter().chain(&self.args.cni.ips);
        all.map(|text| {
            let bare = text.split('/').next().unwrap_or(text);
            bare.parse().map_err(|_| Error::config(format!("ips: {text:?} is not an address")))
        })
        .collect()
    }

    /// The link-layer address that the container's interface must have.
    pub(crate) fn requested_mac(&self, from_environment: Option<&str>) -> Result<Option<MacAddress>> {
        let text = self.runtime_config.mac.as_deref().or(self.args.cni.mac.as_deref()).or(from_environment);
        let text = text.filter(|text| !text.is_empty()).or(self.mac.as_deref());
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        let mac: MacAddress = text.parse().map_err(|error| Error::config(format!("mac: {error}")))?;
        if mac.is_unicast() {
            Ok(Some(mac))
        } else {
            Err(Error::config(format!("mac: {mac} is not a device's own address")))
        }
    }

    /// Where `host-local` keeps this network's addresses, if it may have served it.
    pub(crate) fn host_local(&self) -> Option<HostLocal> {
        let data_dir = self.ipam.data_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/cni/networks"));
        (self.ipam.kind.as_deref() == Some("host-local")).then(|| HostLocal::new(data_dir.join(&self.name)))
    }

    /// The name servers for the container: the runtime's, else ours, else those of `ipam.resolvConf`.
    pub(crate) fn dns(&self) -> Result<Dns> {
        Ok(match (&self.runtime_config.dns, &self.ipam.resolv_conf) {
            (None, Some(path)) if self.dns == Dns::default() => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::new(Code::Io, format!("cannot read {}: {error}", path.display()))
                })?;
                Dns::parse(&text)
            }
            (None, _) => self.dns.clone(),
            (Some(runtime), _) => Dns {
                nameservers: runtime.servers.clone(),
                domain: None,
                search: runtime.searches.clone(),
                options: runtime.options.clone(),
            },
        })
    }

    /// The attachments that GC leaves alone; `None` if the runtime named none, not even an empty list.
    pub(crate) fn valid_attachments(&self) -> Option<&[ValidAttachment]> {
        self.valid_attachments.as_deref().or(self.legacy_valid_attachments.as_deref())
    }
}

/// The path below `/proc/sys` of a setting, written with dots or slashes; `IFNAME` in it stands for the
/// container's interface. Only settings of the network are the container's own; others would be the node's.
pub(crate) fn sysctl_path(name: &str, ifname: &str) -> Result<String> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !path.starts_with("net/") || !plain {
        return Err(Error::config(format!("sysctl {name:?} is not a setting of the container's network")));
    }
    Ok(path.replace("IFNAME", ifname))
}

#[cfg(test)]
mod tests;
