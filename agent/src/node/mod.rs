//! The node's own set-up: the bridge, the device that service addresses are routed to, sysctls, uplinks.
//!
//! ```text
//! observe ─▶ Found ─┐
//! snapshot ─────────┼─ desired ─▶ Wanted ─ plan ─▶ NodeOps ─ apply
//! configuration ────┘  (pure)               (pure)
//! ```

mod apply;
mod desired;
mod found;
mod networks;
mod observe;
mod plan;

pub use apply::apply;
pub use desired::{Bridge, Facts, OverlayDevice, ServiceDevice, Wanted, facts, gateways, rivals, wanted};
pub use found::{Device, Found, FoundRoute, Peers, Tunnel, uplinks};
pub use observe::{observe, observe_devices};
pub use plan::{NodeOp, plan, remains};
