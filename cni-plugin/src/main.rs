//! The plugin's process; all of it is in the library.

mod heap;

use std::process::ExitCode;

/// For this program alone: the agent, which uses the same library, runs for weeks.
#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

fn main() -> ExitCode {
    sluice_cni::run()
}
