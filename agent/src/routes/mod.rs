//! Routes that the agent makes: to the pods of other nodes, and of service addresses to the service device.

mod apply;
mod desired;
mod plan;

pub use apply::apply;
pub use desired::{RouteProblem, WantedRoute, desired};
pub use plan::{RouteOp, plan};
