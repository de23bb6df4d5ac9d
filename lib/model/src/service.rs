//! Services as the proxy and DNS see them.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::ObjectName;

/// The name of a service's or an endpoint's port; empty where the manifest gives none.
pub type PortName = Arc<str>;

/// A transport protocol that a service port may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, RFC 9293.
    Tcp,
    /// User Datagram Protocol, RFC 768.
    Udp,
    /// Stream Control Transmission Protocol, RFC 9260.
    Sctp,
}

impl Protocol {
    /// The protocol's number in an IP header (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A protocol that Kubernetes does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of TCP, UDP and SCTP")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            other => Err(UnknownProtocol(other.to_owned())),
        }
    }
}

/// An IP address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IP version 4.
    V4,
    /// IP version 6.
    V6,
}

impl IpFamily {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family an address belongs to.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reached inside the cluster only.
    #[default]
    ClusterIp,
    /// Reached on a port of every node as well.
    NodePort,
    /// Reached on a load balancer's addresses as well.
    LoadBalancer,
    /// A name for something outside; never proxied.
    ExternalName,
}

/// `externalTrafficPolicy` and `internalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any endpoint of the cluster.
    #[default]
    Cluster,
    /// This node's endpoints only.
    Local,
}

/// `targetPort` of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port; may differ from pod to pod.
    Name(Arc<str>),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Unique in the service; empty where there is only one port.
    pub name: PortName,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the service's addresses, host byte order.
    pub port: u16,
    /// Where endpoints listen (used only where Sluice itself makes the endpoints).
    pub target_port: TargetPort,
    /// The port on every node, where one is allocated.
    pub node_port: Option<u16>,
}

/// One entry of `status.loadBalancer.ingress` that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerIngress {
    /// The load balancer's address.
    pub address: IpAddr,
    /// `ipMode: Proxy`: the load balancer wants to see in-cluster traffic too, so it is not short-circuited.
    pub proxy_mode: bool,
}

/// A Service, trimmed to what Sluice uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `clusterIP: None`: endpoints are reached by name, not through the proxy.
    pub headless: bool,
    /// `spec.clusterIPs`, first family first; empty for headless and ExternalName services.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalName`, without a trailing dot; set for ExternalName services only.
    pub external_name: Option<Arc<str>>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; empty means that somebody else makes the endpoints.
    pub selector: BTreeMap<String, String>,
    /// `metadata.labels`; `None` where nobody asks for them: the labels of all services take memory.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// `spec.externalIPs`, valid addresses only.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress`, entries with an address only.
    pub load_balancer: Vec<LoadBalancerIngress>,
    /// `status.loadBalancer.ingress`, the names of entries without an address.
    pub load_balancer_names: Vec<Arc<str>>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<IpNet>,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: TrafficPolicy,
    /// `sessionAffinity: ClientIP` and its time-out.
    pub affinity: Option<Duration>,
    /// `spec.publishNotReadyAddresses` (used only where Sluice itself makes the endpoints).
    pub publish_not_ready_addresses: bool,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// The label `service.kubernetes.io/service-proxy-name` is present: another proxy's business.
    pub other_proxy: bool,
}

impl Service {
    /// A service of type ClusterIP without addresses, ports and options.
    pub fn new(name: ObjectName) -> Self {
        Self {
            name,
            kind: ServiceKind::ClusterIp,
            headless: false,
            cluster_ips: Vec::new(),
            external_name: None,
            ports: Vec::new(),
            selector: BTreeMap::new(),
            labels: None,
            external_ips: Vec::new(),
            load_balancer: Vec::new(),
            load_balancer_names: Vec::new(),
            source_ranges: Vec::new(),
            external_traffic_policy: TrafficPolicy::Cluster,
            internal_traffic_policy: TrafficPolicy::Cluster,
            affinity: None,
            publish_not_ready_addresses: false,
            health_check_node_port: None,
            other_proxy: false,
        }
    }

    /// Whether the proxy has anything to do for this service (row 2 of the behaviour table: services
    /// without a cluster address and ExternalName services are never proxied, whatever else they say).
    pub fn is_proxied(&self) -> bool {
        !self.headless
            && !self.other_proxy
            && self.kind != ServiceKind::ExternalName
            && !self.cluster_ips.is_empty()
    }
}
