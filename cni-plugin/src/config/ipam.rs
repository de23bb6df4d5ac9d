//! Where addresses, routes and name servers come from.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use sluice_netlink::TABLE_MAIN;

use super::or_default;

/// Where addresses come from.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ipam {
    /// Whether there is such an object.
    #[serde(skip)]
    written: bool,
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    /// One address is taken from each of these; the ranges within one are alternatives.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ranges: Vec<Vec<RangeConfig>>,
    // The short form of one range. Not a flattened `RangeConfig`: a mistake in it would read as its absence.
    #[serde(default)]
    subnet: Option<IpNet>,
    #[serde(default)]
    range_start: Option<IpAddr>,
    #[serde(default)]
    range_end: Option<IpAddr>,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    pub(crate) routes: Option<Vec<RouteConfig>>,
    /// Where `host-local` keeps what it has given out.
    #[serde(default)]
    pub(super) data_dir: Option<PathBuf>,
    /// A file of name servers for the container, as in `/etc/resolv.conf`.
    #[serde(default)]
    pub(super) resolv_conf: Option<PathBuf>,
    /// Addresses and networks that nobody gets.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) reserved: Vec<Block>,
}

/// Reads the object, if there is one.
pub(super) fn if_written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipam, D::Error> {
    let ipam = Option::<Ipam>::deserialize(deserializer)?;
    Ok(ipam.map_or_else(Ipam::default, |ipam| Ipam { written: true, ..ipam }))
}

impl Ipam {
    /// Whether it is there and says nothing: the container is to have no address.
    pub(super) fn is_none(&self) -> bool {
        let Self { written, kind, ranges, routes, data_dir, resolv_conf, reserved, .. } = self;
        let Self { subnet, range_start, range_end, gateway, .. } = self;
        *written
            && kind.as_deref().is_none_or(str::is_empty)
            && ranges.is_empty()
            && (subnet, range_start, range_end, gateway) == (&None, &None, &None, &None)
            && routes.as_ref().is_none_or(Vec::is_empty)
            && (data_dir, resolv_conf) == (&None, &None)
            && reserved.is_empty()
    }

    /// A field of the short form that says nothing, as there is no subnet.
    pub(super) fn stray(&self) -> Option<&'static str> {
        let Self { subnet, range_start, range_end, gateway, .. } = self;
        let fields = [("rangeStart", range_start), ("rangeEnd", range_end), ("gateway", gateway)];
        fields.into_iter().find(|(_, address)| address.is_some() && subnet.is_none()).map(|(name, _)| name)
    }

    /// The range in the short form, if there is one.
    pub(crate) fn single(&self) -> Option<RangeConfig> {
        let Self { subnet, range_start, range_end, gateway, .. } = self;
        subnet.map(|subnet| RangeConfig {
            subnet,
            range_start: *range_start,
            range_end: *range_end,
            gateway: *gateway,
        })
    }
}

/// An address, or a network of them.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Block(IpNet);

impl TryFrom<String> for Block {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("{text:?} is no address and no network"))
    }
}

impl From<Block> for IpNet {
    fn from(block: Block) -> Self {
        block.0
    }
}

/// A range of addresses, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RangeConfig {
    pub(crate) subnet: IpNet,
    #[serde(default)]
    pub(crate) range_start: Option<IpAddr>,
    #[serde(default)]
    pub(crate) range_end: Option<IpAddr>,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
}

/// A route for the container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct RouteConfig {
    pub(crate) dst: IpNet,
    #[serde(default)]
    pub(crate) gw: Option<IpAddr>,
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
    #[serde(default)]
    pub(crate) advmss: Option<u32>,
    #[serde(default)]
    pub(crate) priority: Option<u32>,
    /// The main one, if it is left out.
    #[serde(default)]
    pub(crate) table: Option<u32>,
    #[serde(default)]
    pub(crate) scope: Option<u8>,
}

impl RouteConfig {
    /// A route that says no more than where it leads.
    pub(crate) fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// The number of its table.
    pub(crate) fn table(&self) -> u32 {
        self.table.unwrap_or(TABLE_MAIN)
    }
}

/// Name servers that the runtime is to write into the container.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
pub(crate) struct Dns {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

impl Dns {
    /// Reads the form of `/etc/resolv.conf`.
    pub(super) fn parse(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => dns.nameservers.extend(words.next()),
                Some("domain") => dns.domain = words.next(),
                // The last line of its kind counts.
                Some("search") => dns.search = words.collect(),
                Some("options") => dns.options.extend(words),
                _ => {}
            }
        }
        dns
    }
}
