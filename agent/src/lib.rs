//! The node agent: sources, the loop, node routes, configuration, `/healthz` and `/metrics`.
//!
//! ```text
//! api, folder ─ convert ─┐
//! records ──────────┼─▶ run (the loop) ─▶ agent (a pass) ─┬─ node      devices, addresses, settings
//! links ────────────┘        schedule                     ├─ services  the datapath
//!                                                         ├─ routes
//!                                                         └─ names     DNS
//! ```
//!
//! A library so that scenario tests can render a folder of manifests without a process; the binary `sluice`
//! is the only other user.

pub mod agent;
pub mod api;
pub mod capabilities;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod conflist;
pub mod convert;
pub mod ending;
pub mod endpoints;
pub mod failure;
pub mod folder;
pub mod foreign;
pub mod handover;
pub mod health;
pub mod health_ports;
pub mod http;
pub mod install;
pub mod links;
pub mod lock;
pub mod manager;
pub mod metrics;
pub mod names;
pub mod nf_conntrack;
pub mod node;
pub mod node_ports;
pub mod notice;
pub mod pages;
pub mod records;
pub mod routes;
pub mod run;
pub mod schedule;
pub mod services;
pub mod socket_store;
pub mod source;
pub mod start;
pub mod status;
pub mod sweep;
