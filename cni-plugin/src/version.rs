//! Versions of the CNI specification.

use std::fmt;

use crate::error::{Code, Error, Result};

/// A version of the CNI specification that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Version {
    pub(crate) const V0_3_0: Self = Self(0, 3, 0);
    pub(crate) const V0_4_0: Self = Self(0, 4, 0);
    pub(crate) const V1_0_0: Self = Self(1, 0, 0);
    pub(crate) const V1_1_0: Self = Self(1, 1, 0);
    /// All that we speak, oldest first.
    pub(crate) const SUPPORTED: [Self; 7] =
        [Self(0, 1, 0), Self(0, 2, 0), Self::V0_3_0, Self(0, 3, 1), Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The version that a configuration names; one without a version is of the first.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::SUPPORTED[0]) };
        Self::SUPPORTED.into_iter().find(|version| version.to_string() == text).ok_or_else(|| {
            let known = Self::SUPPORTED.map(|version| version.to_string()).join(", ");
            Error::new(Code::IncompatibleVersion, format!("cniVersion {text:?} is not one of {known}"))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
