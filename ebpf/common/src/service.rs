//! Services: what the proxy writes and the datapath reads.
//!
//! ```text
//! frontends  (address, port, protocol) ─▶ Frontend { service }
//! services   service ────────────────────▶ Service  { count }
//! slots      (service, 0..count) ────────▶ backend
//! backends   backend ────────────────────▶ Backend  { address, port }
//! ```
//!
//! A frontend whose traffic policy is Local names a second service, the one of this node's endpoints alone.
//!
//! Several frontends (cluster address, node port, external address) name one service; a change of the
//! endpoints touches the service and its slots, however many frontends there are. Ids are handed out in
//! rising order and never again (the counter is kept in the map `ids`), so that the absence of a backend's
//! id is the proof that the backend is gone: a flow needs no second look at what the id means now.

use crate::{Addr, Be16};

/// IANA protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// IANA protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const PROTO_UDP: u8 = 17;
/// IANA protocol number of ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;

/// IANA protocol number of SCTP (RFC 9260).
pub const PROTO_SCTP: u8 = 132;

/// Key of map `frontends`: where clients send. The address is [`Addr::any`] for node ports, which hold for
/// every address of the node. Written by the proxy, read by every program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Destination address, or the wildcard.
    pub addr: Addr,
    /// Destination port, network byte order.
    pub port: Be16,
    /// IANA protocol number, host byte order.
    pub proto: u16,
    /// Always 0.
    pub pad: u32,
}

/// [`Frontend::flags`]: reached from outside the cluster (node port, load balancer, external address):
/// the source becomes the node's, so that replies come back this way.
pub const FRONTEND_EXTERNAL: u32 = 1;
/// [`Frontend::flags`]: `internalTrafficPolicy: Local`: everybody is served by this node's endpoints.
pub const FRONTEND_LOCAL_INSIDE: u32 = 1 << 2;
/// [`Frontend::flags`]: `externalTrafficPolicy: Local`: clients outside the node are served by this node's
/// endpoints, and keep their address.
pub const FRONTEND_LOCAL_OUTSIDE: u32 = 1 << 3;
/// [`Frontend::flags`]: `loadBalancerSourceRanges`: only clients in map `source_ranges` are served.
pub const FRONTEND_SOURCE_RANGES: u32 = 1 << 4;
/// [`Frontend::flags`]: no port, but a cluster address as a whole (the key's port and protocol are 0): what is
/// sent there and meets no port is refused, not dropped (row 21 of the behaviour table).
pub const FRONTEND_ADDRESS: u32 = 1 << 5;
/// [`Frontend::flags`]: a server on this node holds the address itself (cluster DNS); the packet is the
/// node's own, untranslated. While no socket is bound there, the service's endpoints take its place.
pub const FRONTEND_LOCAL_SERVER: u32 = 1 << 1;

/// Value of map `frontends`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Key into `services`: the endpoints of the cluster.
    pub service: u32,
    /// Key into `services`: this node's endpoints, where a flag says that they count; otherwise 0.
    pub local: u32,
    /// `FRONTEND_*`.
    pub flags: u32,
}

/// [`Service::flags`]: connect() to its cluster address may become a connection to the backend at once.
pub const SERVICE_FAST_PATH: u32 = 1;
/// [`Service::flags`]: without a slot, packets are dropped silently: there are endpoints, but none where the
/// traffic policy wants them (rows 18 and 19 of the behaviour table).
pub const SERVICE_DROP_IF_EMPTY: u32 = 1 << 1;

/// Value of map `services`, keyed by the service's id (u32, host byte order).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// How many slots there are; 0 means that connections are refused.
    pub count: u32,
    /// `SERVICE_*`.
    pub flags: u32,
    /// `sessionAffinity: ClientIP`: for how many seconds a client stays with its endpoint; 0 for not at all.
    pub affinity: u32,
    /// The service under whose id clients are remembered: the same for the cluster's and this node's
    /// endpoints, so that a client meets the same one through every address (row 25 of the behaviour table).
    pub affinity_id: u32,
}

/// Key of map `slots`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// Key into `services`.
    pub service: u32,
    /// 0 to the service's count, exclusive.
    pub index: u32,
}

/// Value of map `backends`, keyed by the backend's id (u32, host byte order; never 0).
///
/// Ids belong to one service each: an endpoint that two services share is two backends, so that leaving one
/// service is seen by that service's flows alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Where it listens.
    pub addr: Addr,
    /// The port, network byte order.
    pub port: Be16,
    /// Always 0.
    pub pad: u16,
    /// Key into `services`; of a host port, see [`HOST_PORT_BACKEND`].
    pub service: u32,
}

/// The backend's id in the flows of a host port: no id of map `backends`. Map `host_ports`, keyed by a
/// [`FrontendKey`] (address [`Addr::any`] for every address of the node, as with node ports, or one host address),
/// holds a [`Backend`]: the pod and its port, and in the place of its service 0 or [`HOST_PORT_MASQUERADE`]. Written by the plugin when it makes a pod, and
/// kept in line with the plugin's records by the agent. Services go before host ports where both want a port.
pub const HOST_PORT_BACKEND: u32 = u32::MAX;

/// In the service of a host port's [`Backend`]: whoever comes by this port, the pod sees the node's address, as with
/// the reference plugin's `masqAll`.
pub const HOST_PORT_MASQUERADE: u32 = 1;

/// Key of map `affinities`: who is remembered, and for what.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// The client's address.
    pub client: Addr,
    /// [`Service::affinity_id`].
    pub service: u32,
    /// Always 0.
    pub pad: u32,
}

/// Value of map `affinities`. It names the endpoint by its address, which survives the agent and every change
/// of ids. Written by the datapath.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Where the client went last.
    pub addr: Addr,
    /// The port, network byte order.
    pub port: Be16,
    /// Always 0.
    pub pad: u16,
    /// When it last began a connection, in seconds of the monotonic clock.
    pub seen: u32,
}

/// Key of map `members`: an endpoint that takes new connections of a service; the value is its backend's id.
/// Written by the proxy, for services with affinity only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey {
    /// Key into `services`.
    pub service: u32,
    /// The port, network byte order.
    pub port: Be16,
    /// Always 0.
    pub pad: u16,
    /// Where it listens.
    pub addr: Addr,
}

/// Key of map `source_ranges`, a longest-prefix-match trie: a client that may use a load balancer's address.
/// The first 32 bits are always matched whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRangeKey {
    /// Key into `services`, network byte order (a trie matches from the first byte on).
    pub service: u32,
    /// The client's address, as the four words of [`Addr::words`]: the trie's key has no room for padding.
    pub client: [u32; 4],
}
