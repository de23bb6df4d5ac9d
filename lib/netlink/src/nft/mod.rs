//! The kernel's own packet filter, where there is no datapath to do it: [`masquerade`], [`spoof`] and [`host_port`]; and, beside
//! it, host ports that only some may use ([`conditional`]).

pub mod conditional;
pub mod host_port;
pub mod masquerade;
pub mod spoof;
pub(crate) mod wire;
