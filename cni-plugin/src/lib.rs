//! The CNI plugin `sluice-cni`, and what the agent shares with it.
//!
//! The agent uses two modules: [`node`], to tell the plugin about the node, and [`store`], to learn which pods
//! are attached. The rest is the plugin itself.

pub mod node;
pub mod range;
pub mod store;
