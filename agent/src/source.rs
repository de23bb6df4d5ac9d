//! What every source of objects gives to the loop, whichever it is.

use sluice_model::{Object, ObjectKey};

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The object is there, and is this.
    Put(Object),
    /// The object is gone.
    Remove(ObjectKey),
}
