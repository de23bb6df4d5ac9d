//! Kubernetes objects to the model: trimmed to what Sluice uses, validated once.
//!
//! The only place (with the folder's reader of manifests) that knows Kubernetes client types. An object that
//! cannot be right is refused as a whole, with an error that names the object and the field; nothing is
//! guessed.

mod error;
mod field;
mod import;
mod node;
mod pod;
mod service;
mod slice;

pub use error::{ConvertError, Problem};
pub use import::{KubeImport, import};
pub use node::{namespace, node, service_cidr};
pub use pod::{Readiness, pod};
pub use service::{service, service_families};
pub use slice::slice;

#[cfg(test)]
mod tests;
