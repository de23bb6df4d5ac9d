//! Values of settings that have a form of their own.

use std::{str::FromStr, time::Duration};

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
