//! What every source of objects gives to the loop, whichever it is.

use std::time::Instant;

use sluice_model::{Object, ObjectKey};

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost all are objects, and none is kept for long")]
pub enum Delta {
    /// The object is there, and is this.
    Put(Object),
    /// The object is gone.
    Remove(ObjectKey),
}

/// What a source has learned. The first update holds everything there is; before it, nothing is known and
/// nothing may be programmed (row 3 of the behaviour table).
#[derive(Clone, Debug)]
pub struct Update {
    /// What changed since the last update.
    pub deltas: Vec<Delta>,
    /// When the source learned of it.
    pub seen: Instant,
    /// How many inputs (files) cannot be used at present.
    pub faults: usize,
}
