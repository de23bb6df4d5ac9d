//! What may fail in a pass, and how it is told.

use std::{error::Error, fmt};

use sluice_cni::node::NodeError;
use sluice_dns::DnsError;
use sluice_model::IpFamily;
use sluice_proxy::{DatapathError, StoreError, SyncError};

use crate::{
    conflist::ConflistError,
    health_ports::HealthPortError,
    names::DoorError,
    notice::{About, Notice},
};

/// Something that failed in a pass. It is told, counted and tried again; the rest of the pass goes on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Reading what is on the node.
    #[error("cannot read the state of the node")]
    Observe(#[source] sluice_netlink::Error),
    /// An operation on devices, addresses, settings or routes.
    #[error("cannot {operation}")]
    Node {
        /// The operation.
        operation: String,
        /// Why.
        source: sluice_netlink::Error,
    },
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The services' maps.
    #[error("cannot read the services' maps")]
    Store(#[from] StoreError),
    /// The plugin's records.
    #[error("cannot read the plugin's records; what is known of pods stays")]
    Records(#[source] sluice_cni::store::StoreError),
    /// A service.
    #[error(transparent)]
    Sync(Box<SyncError>),
    /// A service's health check port.
    #[error(transparent)]
    HealthPort(#[from] HealthPortError),
    /// Node ports that others have.
    #[error("cannot see to it that node ports are nobody else's")]
    NodePorts(#[source] std::io::Error),
    /// DNS.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// What is told of DNS over HTTP.
    #[error(transparent)]
    Door(DoorError),
    /// What the plugin is told of the node.
    #[error(transparent)]
    NodeFile(#[from] NodeError),
    /// The container runtime's network configuration.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// An uplink that is configured and not there.
    #[error("uplink {0} is not there")]
    NoUplink(String),
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        Self::Sync(Box::new(error))
    }
}

impl Failure {
    /// The part that failed, as the metric's label.
    pub fn part(&self) -> &'static str {
        match self {
            Self::Observe(_) | Self::Node { .. } | Self::NoUplink(_) | Self::NodePorts(_) => "node",
            Self::Datapath(_) => "datapath",
            Self::Store(_) | Self::Sync(_) => "services",
            Self::HealthPort(_) => "health",
            Self::Dns(_) | Self::Door(_) => "dns",
            Self::NodeFile(_) | Self::Records(_) | Self::Conflist(_) => "plugin",
        }
    }
}

impl Failure {
    /// Whether the services of a family are not as the cluster wants them because of this. Two services that want
    /// one address do not count: no further try makes that better.
    pub fn keeps_back(&self, family: IpFamily) -> bool {
        match self {
            Self::Sync(error) => match &**error {
                SyncError::Store { service, .. } => service.family == family,
                SyncError::Conflict { .. } => false,
                SyncError::Dump(_) => true,
            },
            Self::Store(_) => true,
            _ => false,
        }
    }

    /// What the owner of an object should be told of this.
    pub fn notice(&self, node: &str) -> Option<Notice> {
        match self {
            Self::HealthPort(error) => Some(Notice {
                about: About::Service(error.service.clone()),
                reason: "FailedToStartServiceHealthcheck",
                action: "Listen",
                note: format!(
                    "node {node} failed to start healthcheck {:?} on port {}: {}",
                    error.service.to_string(),
                    error.port,
                    error.source
                ),
            }),
            _ => None,
        }
    }
}

/// An error with all that led to it, in one line. Some errors repeat their cause in their own words: it is told
/// once.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !told.contains(&text) {
                write!(f, ": {text}")?;
                told.push_str(&text);
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the roof leaks")]
    struct Leak(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no sleep: {0}")]
    struct NoSleep(#[source] Leak);

    #[test]
    fn causes_are_told_once() {
        let error = NoSleep(Leak(std::io::Error::other("rain")));
        assert_eq!(Chain(&error).to_string(), "no sleep: the roof leaks: rain");
    }
}
