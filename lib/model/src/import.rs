//! Services of a set of clusters, as this cluster sees them (KEP-1645, multi-cluster services).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{EndpointPort, ObjectName};

/// A ServiceImport, trimmed to what Sluice uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImport {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.type: Headless`: endpoints are reached by name; without, `spec.ips` are (`ClusterSetIP`).
    pub headless: bool,
    /// `spec.ips`; empty for headless ones, and as long as nobody has given any.
    pub ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<EndpointPort>,
    /// `metadata.labels`; `None` where nobody asks for them.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
}

/// What makes a slice one of an imported service's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The import it belongs to (label `multicluster.kubernetes.io/service-name`).
    pub service: ObjectName,
    /// The cluster that the endpoints are in (label `multicluster.kubernetes.io/source-cluster`); empty where that is not
    /// said.
    pub cluster: Arc<str>,
}
