//! The kernel's own packet filter, where there is no datapath to do it: [`masquerade`], [`spoof`] and [`host_port`].

pub mod host_port;
pub mod masquerade;
pub mod spoof;
pub(crate) mod wire;
