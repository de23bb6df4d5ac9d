//! The CNI plugin `sluice-cni`, and what the agent shares with it.
//!
//! The agent uses two modules: [`node`], to tell the plugin about the node, and [`store`], to learn which pods
//! are attached. The rest is the plugin itself:
//!
//! ```text
//! environment ┐
//! config      ├─▶ desired (pure) ─▶ add ─▶ bridge, store, pod, datapath ─▶ result
//! node.json   ┘                     del ◀─ store
//! ```
//!
//! ADD writes the attachment's record before it makes anything, and DEL removes it after everything else, so
//! that what a killed process leaves can always be found and taken apart.

mod add;
mod bpf;
mod bridge;
mod check;
mod command;
mod config;
mod datapath;
mod del;
mod delegate;
mod desired;
mod environment;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod gc;
mod help;
mod loopback;
pub mod node;
mod pod;
mod ports;
pub mod range;
mod result;
#[cfg(test)]
mod schema;
mod status;
pub mod store;
mod version;

pub use command::run;
