//! Where addresses are: pods of this node, networks and uplinks.

use crate::Addr;

/// A link-layer address, as it stands in a packet.
pub type Mac = [u8; 6];

/// Value of map `endpoints`, keyed by the pod's address ([`Addr`]). Written by the plugin when it makes a pod
/// (and by the agent when it adopts one), read by every packet program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Index of the pod's host veth.
    pub ifindex: u32,
    /// Always 0.
    pub flags: u32,
    /// The address of the pod's own end of the veth.
    pub pod_mac: Mac,
    /// The address that packets come from, as the pod sees it: the bridge's.
    pub gateway_mac: Mac,
    /// Always 0.
    pub pad: u32,
}

/// Key of map `networks`, a longest-prefix-match trie (`struct bpf_lpm_trie_key`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkKey {
    /// Prefix length in bits of the 128-bit form (an IPv4 prefix is 96 longer), host byte order.
    pub prefix: u32,
    /// The network's address.
    pub addr: Addr,
}

/// [`Network::flags`]: traffic to this network keeps the pod's source address (pod networks and what the
/// operator excepts from masquerade).
pub const NETWORK_NO_MASQUERADE: u32 = 1;
/// [`Network::flags`]: addresses of this network are pods of this node (row 7 of the behaviour table).
pub const NETWORK_LOCAL_PODS: u32 = 1 << 1;

/// Value of map `networks`. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `NETWORK_*`.
    pub flags: u32,
}

/// Value of map `node_addresses`, keyed by an address of this node ([`Addr`]), and of map `uplinks`, keyed
/// by an interface's index. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// The node's IPv4 address there; all zero if it has none.
    pub v4: Addr,
    /// The node's IPv6 address there; all zero if it has none.
    pub v6: Addr,
}
