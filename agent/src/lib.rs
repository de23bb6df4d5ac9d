//! The node agent: sources, the loop, node routes, configuration, `/healthz` and `/metrics`.
//!
//! A library so that scenario tests can render a folder of manifests without a process; the binary `sluice`
//! is the only other user.

pub mod config;
pub mod convert;
pub mod endpoints;
pub mod folder;
pub mod node;
pub mod routes;
pub mod schedule;
pub mod source;
