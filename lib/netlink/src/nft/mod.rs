//! The kernel's own packet filter, where there is no datapath to do it: [`masquerade`] and [`spoof`].

pub mod masquerade;
pub mod spoof;
mod wire;
