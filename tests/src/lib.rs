//! The testbed: nodes, pods, wires and outside hosts as network namespaces on one kernel.
//!
//! ```text
//!   host ---- switch ---- node1 ---- pod, pod       each box a namespace, visible to `ip netns`
//!                  \----- node2 ---- pod
//! ```
//!
//! Tests, demo and benchmarks share it. Everything is a guard: dropped, it is gone; and where nothing is dropped,
//! because the process was killed, a reaper removes the bed all the same (see [`reaper`]). Beds have unique names and
//! touch neither the machine's own namespace nor each other, so any number of them live side by side.
//!
//! Wires are made with `ip`, servers and clients are the distribution's own programs, and the plugin and the
//! agent are the built binaries: what is tested does not test itself.

pub mod apiserver;
pub mod bed;
pub mod cluster;
mod command;
pub mod datagram;
pub mod datapath;
pub mod enter;
mod error;
pub mod iperf;
pub mod names_load;
pub mod packet;
pub mod programs;
pub mod reaper;
pub mod service_manager;
pub mod stream;
mod test_run;
pub mod upstream;

pub use bed::Testbed;
pub use cluster::Cluster;
pub use command::{Output, Running, run, wait_for};
pub use error::{Error, Result};
