//! The endpoints controller of folder mode: Services with selectors and labelled Pods are enough, as with an
//! API server, where kube-controller-manager makes the EndpointSlices.

mod desired;

pub use desired::{desired, selects};

#[cfg(test)]
mod tests;
