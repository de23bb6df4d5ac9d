//! Pods and namespaces.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{ObjectName, Protocol};

/// A named or numbered port of a pod's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// The port's name; empty where it has none.
    pub name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port, host byte order.
    pub port: u16,
}

/// A Pod, trimmed to what Sluice uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `status.podIPs`, or in folder mode what the plugin's records say.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.hostname`, or the pod's name where a subdomain is given without one.
    pub hostname: Option<Arc<str>>,
    /// `spec.subdomain`: the headless service under which the host name is published.
    pub subdomain: Option<Arc<str>>,
    /// Ports of all containers.
    pub ports: Vec<ContainerPort>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// Its search path is another than that of its namespace: `spec.dnsPolicy` or `spec.dnsConfig.searches` say so.
    pub own_search: bool,
    /// Condition Ready; in folder mode true unless the manifest says otherwise.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The namespace's name.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}
