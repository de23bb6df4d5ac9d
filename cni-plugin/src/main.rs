//! The plugin's process; all that it does is in the library.
//!
//! It begins at the C library's entry point. What the standard library prepares before its own, for a process that
//! lives longer, took a thirtieth of an ADD's CPU time; what of that matters here is in `start`.

#![cfg_attr(not(test), no_main)]

mod heap;
#[cfg(not(test))]
mod start;

/// For this program alone: the agent, which uses the same library, runs for weeks.
#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();
