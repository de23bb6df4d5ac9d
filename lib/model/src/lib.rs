//! Cluster facts as plain data.
//!
//! Everything that Sluice knows about a cluster passes through these types: the sources (`agent`) turn
//! Kubernetes objects or manifests into them once, trimmed and validated, and nothing further in sees a
//! Kubernetes client type again.
//!
//! ```text
//! API server ──┐                              ┌─ proxy: desired frontends and backends
//! manifests  ──┼─ agent/convert ─▶ Snapshot ──┼─ dns:   the zone
//! pod records ─┘      (validates)  + Changes  └─ agent: routes to other nodes
//! ```
//!
//! A [`Snapshot`] is one consistent view. [`Changes`] names the objects that differ from the view before,
//! so that a consumer can do work in proportion to what changed.

mod endpoint;
mod import;
mod name;
mod node;
mod pod;
mod service;
mod slices;
mod snapshot;

pub use endpoint::{Endpoint, EndpointPort, EndpointSlice, Hints};
pub use import::{Imported, ServiceImport};
pub use name::{InvalidName, ObjectName};
pub use node::{Node, NodeAddress, NodeAddressKind, ServiceCidr};
pub use pod::{ContainerPort, Namespace, Pod};
pub use service::{
    IpFamily, LoadBalancerIngress, PortName, Protocol, Service, ServiceKind, ServicePort, TargetPort,
    TrafficPolicy, UnknownProtocol,
};
pub use slices::Slices;
pub use snapshot::{Changes, Object, ObjectKey, Snapshot};
