//! Routes that the agent makes: to the pods of other nodes, and of service addresses to the service device.
//!
//! `ways` decides how the pods of each node are reached; `desired` makes routes of that, and `node` the overlay's device.

mod apply;
mod desired;
mod plan;
mod ways;

pub use apply::apply;
pub use desired::{RouteProblem, WantedRoute, desired};
pub use plan::{RouteOp, carried_out, plan};
pub use ways::{OVERLAY_DEVICES, Overlay, OverlayPeer, Way, Ways, overlay_device, ways};
