//! Errors as the CNI specification wants them: a number that a runtime can act on, and words for people.

use std::fmt;

use serde_json::json;

use crate::{node::NodeError, range::InvalidRange, store::StoreError};

/// The number of an error. Below 100 the specification's, from 100 on ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    /// The configuration's version is not one we speak.
    IncompatibleVersion = 1,
    /// A field's value is not one we support; the message names both.
    UnsupportedField = 2,
    /// The container is not known; its DEL may be left out.
    UnknownContainer = 3,
    /// A variable of the environment is missing or wrong; the message names it.
    InvalidEnvironment = 4,
    /// A file could not be read or written.
    Io = 5,
    /// The configuration is not JSON of the right shape.
    Decode = 6,
    /// The configuration says something that cannot be.
    InvalidConfig = 7,
    /// The network namespace is none, or the node's own.
    InvalidNamespace = 8,
    /// It may work in a moment.
    TryLater = 11,
    /// STATUS: ADD would fail.
    Unavailable = 50,
    /// STATUS: ADD would fail, and containers that are there are cut off in part.
    Limited = 51,
    /// The kernel refused.
    Kernel = 100,
    /// The container has this interface already.
    Duplicate = 101,
    /// No address is free, or the one that was asked for is taken.
    NoAddress = 102,
    /// CHECK: something is not as ADD left it.
    Damaged = 103,
    /// The datapath is not there, or refused.
    Datapath = 104,
    /// The plugin that gives out the addresses failed.
    Delegate = 105,
    /// A host port is another container's.
    PortTaken = 106,
}

/// An error to report to the runtime.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) code: Code,
    pub(crate) msg: String,
    pub(crate) details: Vec<String>,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: Vec::new() }
    }

    pub(crate) fn config(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, msg)
    }

    pub(crate) fn unsupported(key: &str, value: impl fmt::Display) -> Self {
        Self::new(Code::UnsupportedField, format!("{key}: {value} is not supported"))
    }

    pub(crate) fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.details.push(detail.to_string());
        self
    }

    /// The error as it goes to the runtime.
    pub(crate) fn to_json(&self, cni_version: &str) -> serde_json::Value {
        let mut json = json!({ "cniVersion": cni_version, "code": self.code as u32, "msg": self.msg });
        if !self.details.is_empty() {
            json["details"] = self.details.join("; ").into();
        }
        json
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        for detail in &self.details {
            write!(f, "; {detail}")?;
        }
        Ok(())
    }
}

impl From<sluice_netlink::Error> for Error {
    fn from(error: sluice_netlink::Error) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}

impl From<InvalidRange> for Error {
    fn from(error: InvalidRange) -> Self {
        Self::config(error.to_string())
    }
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        Self::new(Code::Io, error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Io { .. } | StoreError::Damaged { .. } | StoreError::TooNew { .. } => Code::Io,
            StoreError::Duplicate { .. } => Code::Duplicate,
            StoreError::Busy { .. } => Code::TryLater,
            StoreError::Exhausted { .. } | StoreError::Taken { .. } => Code::NoAddress,
            StoreError::PortTaken { .. } => Code::PortTaken,
            StoreError::NotOffered { .. } => Code::InvalidConfig,
        };
        Self::new(code, error.to_string())
    }
}
