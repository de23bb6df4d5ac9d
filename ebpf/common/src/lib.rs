//! The contract between the datapath and user space.
//!
//! Every key and value of every map, as plain old data: no padding that the compiler chooses, no Rust enum
//! in a value (a number read from a map may be anything), every multi-byte field's byte order in its type
//! or its comment. `tests/layout.rs` holds the sizes and offsets; a change there means a new [`LAYOUT`].
//!
//! Without the feature `user` this crate is `no_std` and free of dependencies: the BPF programs and the host's
//! tests compile the same arithmetic.

#![cfg_attr(not(any(feature = "user", test)), no_std)]

mod addr;
mod checksum;
mod crc;
mod drop;
mod endpoint;
mod flow;
mod map;
mod select;
mod service;
#[cfg(feature = "user")]
mod user;

pub use addr::{Addr, Be16};
pub use checksum::{csum_add, csum_fold, csum_replace_addr, csum_replace_u16};
pub use crc::{crc32c_multiply, crc32c_replace};
pub use drop::DropReason;
pub use endpoint::{
    ENDPOINT_BRIDGED, ENDPOINT_SHAPED, Endpoint, Mac, NETWORK_LOCAL_PODS, NETWORK_NO_MASQUERADE,
    NETWORK_OVERLAY, NODE_ADDRESS_INNER, NODE_ADDRESS_PORTS, Network, OVERLAY_UPLINK, Uplink, mac_words,
};
pub use flow::{
    FLOW_ANSWERED, FLOW_FIN, FLOW_MASQUERADE, FLOW_REPLY, FLOW_RST, FLOW_SERVICE, Flow, FlowKey, FragmentKey,
    FragmentPorts, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
};
pub use map::{LAYOUT, NODE_MAC, SERVICE_DEVICE, SERVICE_PEER_DEVICE, map_name, program_name};
pub use select::pick_slot;
pub use service::{
    Affinity, AffinityKey, Backend, FRONTEND_ADDRESS, FRONTEND_EXTERNAL, FRONTEND_LOCAL_INSIDE,
    FRONTEND_LOCAL_OUTSIDE, FRONTEND_LOCAL_SERVER, FRONTEND_SOURCE_RANGES, Frontend, FrontendKey,
    HOST_PORT_BACKEND, HOST_PORT_MASQUERADE, MemberKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP,
    PROTO_UDP, SERVICE_DROP_IF_EMPTY, SERVICE_FAST_PATH, Service, SlotKey, SourceRangeKey,
};
