//! Cluster DNS on every node.
//!
//! ```text
//!  Snapshot + Changes ──▶ desired ──▶ zone ──▶ publish (one immutable value, swapped)
//!                         (pure)     (pure)        │
//!   UDP, TCP ──▶ query ──▶ handler ──────────────▶ answer ──▶ reply
//!                             └── resolve (names that are not ours: cache, forward) ──▶ upstreams
//! ```
//!
//! [`Server::bind`] takes the addresses, [`Publisher::publish`] gives the server what the cluster looks
//! like, [`Server::run`] answers until it is told to stop. Before the first publish the names of the
//! cluster get SERVFAIL, never NXDOMAIN, so that nobody remembers a wrong "no".

mod answer;
mod autopath;
mod cache;
mod chain;
mod clients;
mod config;
mod connection;
mod corefile;
mod desired;
mod dnssec;
mod error;
mod exchange;
mod external;
mod failures;
mod files;
mod forward;
pub mod fuzz;
mod handler;
mod listening;
mod looping;
mod master;
mod message;
mod metrics;
mod name;
mod publish;
mod query;
mod records;
mod reply;
mod resolv;
mod resolve;
mod routes;
mod rules;
mod saved;
mod server;
mod socket;
mod tcp;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod transfer;
mod udp;
mod upstream;
mod wire;
mod zone;

pub use config::{
    AclAction, AclRule, AnswerChange, AnswerClass, CacheConfig, Change, Dns64, DnsConfig, Dnssec, EdnsOption,
    Exposure, External, ForwardOptions, Hosts, InvalidSelector, LogRule, NameMatch, NamePattern,
    NextUpstreams, OptionChange, OptionData, OptionWhen, Order, OrderPolicy, PodRecords, Policy, Prefetch,
    Probe, Rewrite, Rules, Selector, ServeStale, StubDomain, Template, Tls, Transfer, Upstreams, WeightFile,
    ZoneFile,
};
pub use corefile::{Corefile, CorefileError, Devices, PageAt};
pub use dnssec::KeyError;
pub use error::{ConfigError, DnsError};
pub use master::MasterError;
pub use publish::Publisher;
pub use saved::{Saved, SavedError};
pub use server::{Configurator, Server};
pub use socket::Inherited;
