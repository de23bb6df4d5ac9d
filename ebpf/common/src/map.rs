//! Names that both sides agree on: maps, programs, devices, the place of the pins.
//!
//! ```text
//! <bpffs>/v1/maps/<map_name::*>
//! <bpffs>/v1/programs/<program_name::*>
//! <bpffs>/v1/links/<program>-<device>       one for each attachment, e.g. from_pod-sluice1a2b3c4d
//! ```

/// The version of everything in this crate, and the folder below the bpffs directory that holds the pins.
/// A map whose keys or values change their meaning gets a new layout; nothing is reused across layouts.
pub const LAYOUT: &str = "v1";

/// The device that service addresses are routed to. One end of a veth pair without addresses; the node's
/// own packets to services are translated on its egress, and replies come back through it.
pub const SERVICE_DEVICE: &str = "sluice-svc";
/// The other end of [`SERVICE_DEVICE`], there only to give it a carrier.
pub const SERVICE_PEER_DEVICE: &str = "sluice-svp";
/// The link-layer address of [`SERVICE_DEVICE`]: locally administered, spelling "sluic". Fixed, so that the
/// datapath can address packets to the node without being told.
pub const NODE_MAC: crate::Mac = [0x02, b's', b'l', b'u', b'i', b'c'];

/// Names of maps, at most 15 bytes, as the kernel (and aya) cut longer ones.
pub mod map_name {
    /// `FrontendKey` to `Frontend`, hash.
    pub const FRONTENDS: &str = "frontends";
    /// u32 to `Service`, hash.
    pub const SERVICES: &str = "services";
    /// `SlotKey` to the backend's id (u32), hash.
    pub const SLOTS: &str = "slots";
    /// u32 to `Backend`, hash.
    pub const BACKENDS: &str = "backends";
    /// Next free ids, array of u64: 0 services, 1 backends. Written by the proxy only.
    pub const IDS: &str = "ids";
    /// `FlowKey` to `Flow`, LRU hash.
    pub const FLOWS: &str = "flows";
    /// `Addr` to `Endpoint`, hash.
    pub const ENDPOINTS: &str = "endpoints";
    /// `Addr` prefix to `Network`, LPM trie.
    pub const NETWORKS: &str = "networks";
    /// `Addr` of the node to u32 (`NODE_ADDRESS_*`), hash.
    pub const NODE_ADDRESSES: &str = "node_addresses";
    /// Interface index (u32) to `Uplink`, hash.
    pub const UPLINKS: &str = "uplinks";
    /// `DropReason` to u64, per-CPU array.
    pub const DROPS: &str = "drops";
    /// Socket cookie (u64) to `FrontendKey`, LRU hash: what a connected socket's peer was before the fast path.
    pub const PEERS: &str = "peers";
    /// `AffinityKey` to `Affinity`, LRU hash.
    pub const AFFINITIES: &str = "affinities";
    /// `MemberKey` to the backend's id (u32), hash.
    pub const MEMBERS: &str = "members";
    /// `SourceRangeKey` prefix to u32 (0), LPM trie.
    pub const SOURCE_RANGES: &str = "source_ranges";
    /// `FrontendKey` to `Backend` (whose service is 0), hash: host ports.
    pub const HOST_PORTS: &str = "host_ports";
    /// `FragmentKey` to `FragmentPorts`, LRU hash.
    pub const FRAGMENTS: &str = "fragments";
    /// `DropReason` to `FlowKey`, array: the last packet that began no connection for want of room.
    pub const REFUSED: &str = "refused";
    /// All of them.
    pub const ALL: [&str; 18] = [
        FRONTENDS,
        SERVICES,
        SLOTS,
        BACKENDS,
        IDS,
        FLOWS,
        ENDPOINTS,
        NETWORKS,
        NODE_ADDRESSES,
        UPLINKS,
        DROPS,
        PEERS,
        AFFINITIES,
        MEMBERS,
        SOURCE_RANGES,
        HOST_PORTS,
        FRAGMENTS,
        REFUSED,
    ];
}

/// Names of programs.
pub mod program_name {
    /// TCX ingress of a pod's host veth.
    pub const FROM_POD: &str = "from_pod";
    /// TCX ingress of an uplink.
    pub const FROM_WIRE: &str = "from_wire";
    /// TCX egress of an uplink.
    pub const TO_WIRE: &str = "to_wire";
    /// TCX egress of the service device, the loopback device and the bridge.
    pub const FROM_HOST: &str = "from_host";
    /// cgroup connect4.
    pub const CONNECT4: &str = "connect4";
    /// cgroup connect6.
    pub const CONNECT6: &str = "connect6";
    /// cgroup getpeername4.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// cgroup getpeername6.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// All of them.
    pub const ALL: [&str; 8] =
        [FROM_POD, FROM_WIRE, TO_WIRE, FROM_HOST, CONNECT4, CONNECT6, GETPEERNAME4, GETPEERNAME6];
}
