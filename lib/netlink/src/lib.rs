//! The few netlink verbs that Sluice needs, network namespaces, and the names by which we know what is ours.
//!
//! This is the only user of rtnetlink and of `setns` in Sluice. It is synchronous on purpose: the kernel
//! answers before `send` returns, the plugin must start in a millisecond, and an async caller wraps what it
//! needs in a blocking task.
//!
//! ```no_run
//! use sluice_netlink::{LinkChange, Netlink, VethEnd};
//! # fn main() -> sluice_netlink::Result<()> {
//! let mut netlink = Netlink::open()?;
//! netlink.create_veth(&VethEnd::new("left"), &VethEnd::new("right"))?;
//! let left = netlink.link("left")?;
//! netlink.change_link(left.index, &LinkChange::new().up(true).mtu(1400))?;
//! # Ok(())
//! # }
//! ```
//!
//! What callers may rely on:
//!
//! - A list is whole. A dump that the kernel marks as interrupted is repeated; one that stays interrupted, or
//!   that cannot be read, is an error and never a shorter list.
//! - An error names the verb, the object, the kernel's errno and, where it gave one, the kernel's own words.
//! - A [`Netlink`] belongs to the namespace it was opened in, whatever its thread does afterwards.
//!
//! Not here: anything that decides. Verbs do what they say and no more.

mod address;
mod attributes;
mod batch;
mod bury;
mod change;
pub mod conntrack;
mod create;
mod elsewhere;
mod error;
mod filter;
mod link;
mod mac;
mod neighbour;
pub mod netns;
mod nft;
pub mod owned;
mod port;
mod route;
mod select;
mod shape;
mod socket;
pub mod sysctl;
mod vlan;
mod vxlan;
mod watch;

pub use address::{Address, AddressFlags};
pub use batch::Request;
pub use change::LinkChange;
pub use create::{BridgeSpec, VethEnd, VethPair};
pub use error::{Error, Result};
pub use filter::{Direction, ProgramFilter};
pub use link::{Link, LinkFlags, OperState};
pub use mac::{InvalidMac, MacAddress};
pub use neighbour::{Forwarding, Neighbour};
pub use netns::Namespace;
pub use nft::{conditional, host_port, masquerade, spoof, wire::PacketFilter};
pub use port::BridgePort;
pub use route::{Route, RouteFilter, RouteKind, RouteScope, TABLE_MAIN};
pub use select::{End, Selection};
pub use shape::{Shape, Shaped};
pub use socket::Netlink;
pub use vlan::PortVlans;
pub use vxlan::Vxlan;
pub use watch::{Event, Topic, Watch};
