//! Finds a target by its name, once.

use std::sync::OnceLock;

use sluice_fuzz::{TARGETS, Target};

/// Runs the target of this name; a process has one.
pub fn run(name: &str, data: &[u8]) {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| TARGETS.iter().find(|target| target.name == name).expect("a known name"));
    (target.run)(data);
}
