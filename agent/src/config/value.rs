//! Values of settings that have a form of their own.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};
use sluice_model::{InvalidName, ObjectName};

/// A length of time such as `30s` or `2m`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

/// A text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time such as 30s, 500ms or 2m")]
pub struct InvalidPeriod(String);

/// A length of time that may be none: `0s`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Grace(pub Duration);

impl FromStr for Grace {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let parsed: Option<jiff::SignedDuration> = text.parse().ok();
        let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
        duration.map(Self).ok_or_else(|| InvalidPeriod(text.to_owned()))
    }
}

impl TryFrom<String> for Grace {
    type Error = InvalidPeriod;

    fn try_from(text: String) -> Result<Self, InvalidPeriod> {
        text.parse()
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let parsed: Option<jiff::SignedDuration> = text.parse().ok();
        let positive = parsed.and_then(|duration| Duration::try_from(duration).ok()).filter(|d| !d.is_zero());
        positive.map(Self).ok_or_else(|| InvalidPeriod(text.to_owned()))
    }
}

impl TryFrom<String> for Period {
    type Error = InvalidPeriod;

    fn try_from(text: String) -> Result<Self, InvalidPeriod> {
        text.parse()
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:#}", jiff::SignedDuration::try_from(self.0).unwrap_or_default()))
    }
}

impl Serialize for Grace {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Period(self.0).serialize(to)
    }
}

/// The name of a service, `namespace/name`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct ServiceName(pub ObjectName);

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// Which of the node's addresses serve node ports (row 11 of the behaviour table).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum NodePortAddress {
    /// The first internal address of each family that the Node object lists.
    Primary,
    /// The loopback addresses.
    Localhost,
    /// Every address, those of the loopback device too.
    All,
    /// The addresses in a network.
    Network(IpNet),
}

/// A text that is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network such as 192.0.2.0/24, nor primary, localhost or all")]
pub struct InvalidNodePortAddress(String);

impl FromStr for NodePortAddress {
    type Err = InvalidNodePortAddress;

    fn from_str(text: &str) -> Result<Self, InvalidNodePortAddress> {
        match text {
            "primary" => Ok(Self::Primary),
            "localhost" => Ok(Self::Localhost),
            "all" => Ok(Self::All),
            network => match network.parse::<IpNet>() {
                Ok(network) => Ok(Self::Network(network.trunc())),
                Err(_) => Err(InvalidNodePortAddress(text.to_owned())),
            },
        }
    }
}

impl TryFrom<String> for NodePortAddress {
    type Error = InvalidNodePortAddress;

    fn try_from(text: String) -> Result<Self, InvalidNodePortAddress> {
        text.parse()
    }
}

impl Serialize for NodePortAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Primary => to.serialize_str("primary"),
            Self::Localhost => to.serialize_str("localhost"),
            Self::All => to.serialize_str("all"),
            Self::Network(network) => to.collect_str(network),
        }
    }
}

/// A setting of nf_conntrack, `/proc/sys/net/netfilter/nf_conntrack_*` (nf_conntrack-sysctl of the kernel's
/// documentation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConntrackName {
    /// How many connections there is room for, in all network namespaces together.
    Max,
    /// How long an open TCP connection is remembered, in seconds.
    TcpTimeoutEstablished,
    /// How long one is that one side has closed.
    TcpTimeoutCloseWait,
    /// Whether segments outside of the window belong to their connection: 1 or 0.
    TcpBeLiberal,
    /// How long datagrams are remembered that nobody has answered, in seconds.
    UdpTimeout,
    /// How long datagrams are remembered.
    UdpTimeoutStream,
}

impl ConntrackName {
    const ALL: [Self; 6] = [
        Self::Max,
        Self::TcpTimeoutEstablished,
        Self::TcpTimeoutCloseWait,
        Self::TcpBeLiberal,
        Self::UdpTimeout,
        Self::UdpTimeoutStream,
    ];

    /// The name, without what all have in common.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::TcpTimeoutEstablished => "tcp_timeout_established",
            Self::TcpTimeoutCloseWait => "tcp_timeout_close_wait",
            Self::TcpBeLiberal => "tcp_be_liberal",
            Self::UdpTimeout => "udp_timeout",
            Self::UdpTimeoutStream => "udp_timeout_stream",
        }
    }
}

/// Settings of nf_conntrack and their values: `max=131072,udp_timeout=30`, or `none`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct NfConntrack(pub BTreeMap<ConntrackName, u64>);

/// A text that is no such list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither none nor a list such as max=131072,udp_timeout=30 (of max, tcp_timeout_established, tcp_timeout_close_wait, tcp_be_liberal, udp_timeout, udp_timeout_stream)"
)]
pub struct InvalidNfConntrack(String);

impl FromStr for NfConntrack {
    type Err = InvalidNfConntrack;

    fn from_str(text: &str) -> Result<Self, InvalidNfConntrack> {
        if text == "none" {
            return Ok(Self::default());
        }
        let part = |part: &str| {
            let (name, value) = part.trim().split_once('=')?;
            let name = ConntrackName::ALL.into_iter().find(|known| known.as_str() == name)?;
            Some((name, value.parse().ok()?))
        };
        let parts: Option<BTreeMap<_, _>> = text.split(',').map(part).collect();
        parts.map(Self).ok_or_else(|| InvalidNfConntrack(text.to_owned()))
    }
}

impl TryFrom<String> for NfConntrack {
    type Error = InvalidNfConntrack;

    fn try_from(text: String) -> Result<Self, InvalidNfConntrack> {
        text.parse()
    }
}

impl fmt::Display for NfConntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}={value}", name.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for NfConntrack {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
