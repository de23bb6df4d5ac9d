//! What may be wrong with an object, said so that its author finds the place.

use std::{fmt, net::AddrParseError};

use sluice_model::UnknownProtocol;

/// An object that was refused: which one, which of its fields, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct ConvertError {
    /// Kind and name, as `Service default/web`.
    pub object: String,
    /// Path of the field, as `spec.ports[0].port`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The field must be there.
    #[error("is missing")]
    Missing,
    /// Not an IP address.
    #[error("{text:?} is not an IP address: {cause}")]
    Address {
        /// What the field says.
        text: String,
        /// What the parser says.
        cause: AddrParseError,
    },
    /// Not a network in CIDR notation.
    #[error("{0:?} is not a network of the form address/prefix")]
    Network(String),
    /// Not a port number.
    #[error("{0} is not a port (1 to 65535)")]
    Port(i32),
    /// Not a transport protocol.
    #[error(transparent)]
    Protocol(#[from] UnknownProtocol),
    /// Not one of the values that the field may have.
    #[error("{text:?} is not one of {allowed}")]
    Choice {
        /// What the field says.
        text: String,
        /// What it may say.
        allowed: &'static str,
    },
    /// Not a name that Kubernetes accepts.
    #[error("{0:?} is not a valid name (lower-case letters, digits, '-' and '.', at most 253 characters)")]
    Name(String),
    /// Not a label that DNS accepts.
    #[error("{0:?} is not a valid DNS label (lower-case letters, digits and '-', at most 63 characters)")]
    Label(String),
    /// The same thing twice in a list.
    #[error("{0} is there twice")]
    Duplicate(String),
    /// A single and a plural field that say different things.
    #[error("{text:?} contradicts {other}")]
    Contradiction {
        /// What the field says.
        text: String,
        /// The field that says something else.
        other: &'static str,
    },
    /// An address of the wrong family.
    #[error("{0} is not of the family that addressType names")]
    Family(std::net::IpAddr),
    /// A number of seconds that is out of range.
    #[error("{0} is not a time-out in seconds (1 to 86400)")]
    Seconds(i32),
}

/// Names the object that is being converted, and puts its name into errors.
pub(super) struct Subject {
    object: String,
}

impl Subject {
    pub(super) fn new(kind: &str, name: impl fmt::Display) -> Self {
        Self { object: format!("{kind} {name}") }
    }

    pub(super) fn error(&self, field: impl Into<String>, problem: impl Into<Problem>) -> ConvertError {
        ConvertError { object: self.object.clone(), field: field.into(), problem: problem.into() }
    }
}
