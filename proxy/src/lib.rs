//! The service proxy's user side.
//!
//! ```text
//! Snapshot ─▶ desired ─▶ plan(observed, desired) ─▶ MapOps in a safe order ─▶ maps
//!             (pure)      (pure)                                              (store)
//! ```
//!
//! [`Datapath`] is the part that loads, pins and attaches the programs and holds what is not a service: pods,
//! networks, addresses. [`Proxy`] keeps the services' maps as the cluster wants them.

mod attach;
mod batch;
mod counters;
mod datapath;
mod desired;
mod error;
mod flows;
mod health_ports;
mod load;
mod observed;
mod pin;
mod plan;
mod probe;
mod proxy;
mod store;
mod tables;

pub use attach::{AttachKind, Hook, remove_filters};
pub use counters::{MapUsage, ProgramRuns, WithoutLocal, count_runs, program_runs};
pub use datapath::{Datapath, DatapathConfig};
pub use desired::{DesiredService, NodeView, Scope, ServiceKey, desired_services};
pub use error::DatapathError;
pub use flows::{FlowCensus, FlowTimeouts};
pub use health_ports::{HealthPort, health_port};
pub use observed::{MapOp, Observed, SourceRange};
pub use pin::Pins;
pub use plan::{Ids, PlannedIds, plan_service};
pub use probe::{Feature, Features};
pub use proxy::{Proxy, ProxyConfig, SyncError, SyncReport};
pub use store::{MapStore, PinnedStore, StoreError};
