//! EndpointSlices: where a service's traffic may go.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use crate::{Imported, IpFamily, ObjectName, PortName, Protocol};

/// One port that every endpoint of a slice listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Matches [`crate::ServicePort::name`].
    pub name: PortName,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that the endpoints listen on, host byte order; never 0.
    pub port: u16,
}

/// `hints` of an endpoint: who should use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones[].name`.
    pub zones: Vec<Arc<str>>,
    /// `forNodes[].name`.
    pub nodes: Vec<Arc<str>>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// All addresses; the proxy uses the first only, as kube-proxy does.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, nil meaning true.
    pub ready: bool,
    /// `conditions.serving`, nil meaning true.
    pub serving: bool,
    /// `conditions.terminating`, nil meaning false.
    pub terminating: bool,
    /// `hostname`: gives the endpoint a DNS name of its own below its service.
    pub hostname: Option<Arc<str>>,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `hints`.
    pub hints: Hints,
    /// The pod behind it, where `targetRef` is one.
    pub pod: Option<ObjectName>,
}

/// An EndpointSlice, trimmed to what Sluice uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub name: ObjectName,
    /// The service it belongs to (label `kubernetes.io/service-name`); a slice of an imported service need have none.
    pub service: Option<ObjectName>,
    /// What makes it a slice of an imported service; `None` where it is none, or nobody asks for those.
    pub imported: Option<Box<Imported>>,
    /// The label `service.kubernetes.io/headless` is present: for DNS only, whatever the service says by now.
    pub headless: bool,
    /// `addressType`.
    pub family: IpFamily,
    /// Ports; those without a number are left out.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`.
    pub last_change: Option<SystemTime>,
}
