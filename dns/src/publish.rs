//! Hands the server what the cluster looks like.

use sluice_model::{Changes, Snapshot};

/// The side of the server that the agent's loop feeds. Cheap to clone; all clones feed one server.
#[derive(Clone, Debug, Default)]
pub struct Publisher {}

impl Publisher {
    /// Makes the answers agree with `snapshot`, at a cost in proportion to `changes` (what differs from the
    /// snapshot published before). Queries under way see the state before or the state after, nothing between.
    pub fn publish(&self, snapshot: &Snapshot, changes: &Changes) {
        let _ = (snapshot, changes);
    }

    /// Whether anything has been published: the server's part of readiness.
    pub fn is_ready(&self) -> bool {
        false
    }
}
