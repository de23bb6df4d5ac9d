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
    /// `ENDPOINT_*`.
    pub flags: u32,
    /// The address of the pod's own end of the veth. It and the next field are what a frame to the pod begins
    /// with, and are copied as such.
    pub pod_mac: Mac,
    /// The address that packets come from, as the pod sees it: the bridge's.
    pub gateway_mac: Mac,
    /// Always 0.
    pub pad: u32,
}

/// [`Endpoint::flags`]: what is sent to the pod passes the queueing discipline of its host veth, which limits
/// the rate (the capability bandwidth), where the datapath would otherwise hand it to the pod directly.
pub const ENDPOINT_SHAPED: u32 = 1;
/// [`Endpoint::flags`]: the bridge has a say in who reaches the pod (isolated ports, VLANs): what is not translated is not
/// handed over past it.
pub const ENDPOINT_BRIDGED: u32 = 1 << 1;

/// Two link-layer addresses as a frame begins with them: destination, then source.
pub const fn mac_words(dst: &Mac, src: &Mac) -> [u16; 6] {
    const fn half(mac: &Mac, at: usize) -> u16 {
        u16::from_ne_bytes([mac[at], mac[at + 1]])
    }
    [half(dst, 0), half(dst, 2), half(dst, 4), half(src, 0), half(src, 2), half(src, 4)]
}

impl Endpoint {
    /// The link-layer addresses of a frame to the pod.
    #[inline(always)]
    pub const fn macs(&self) -> [u16; 6] {
        mac_words(&self.pod_mac, &self.gateway_mac)
    }
}

/// [`Network::flags`]: traffic to this network keeps the pod's source address (pod networks and what the
/// operator excepts from masquerade).
pub const NETWORK_NO_MASQUERADE: u32 = 1;
/// [`Network::flags`]: addresses of this network are pods of this node (row 7 of the behaviour table).
pub const NETWORK_LOCAL_PODS: u32 = 1 << 1;
/// [`Network::flags`]: pods of another node that are reached through the overlay. What the node itself, or somebody in its
/// name, sends there bears the node's address in the overlay ([`OVERLAY_UPLINK`]): the answer to another one
/// would come past the overlay, by a network that may not know pods.
pub const NETWORK_OVERLAY: u32 = 1 << 2;

/// Key of map `uplinks` that is no device's: the node's addresses in the overlay.
pub const OVERLAY_UPLINK: u32 = u32::MAX;

/// Value of map `networks`, a longest-prefix-match trie over [`Addr`] (an IPv4 prefix is 96 bits longer there
/// than it is written). Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `NETWORK_*`.
    pub flags: u32,
}

/// Value of map `node_addresses` (u32), keyed by an address of this node ([`Addr`]): node ports are served here
/// (row 11 of the behaviour table).
pub const NODE_ADDRESS_PORTS: u32 = 1;
/// Value of map `node_addresses`: other nodes and pods do not know the node by this address, so that what it
/// sends from there to a backend is masqueraded: the loopback addresses, and those of the cluster's DNS.
pub const NODE_ADDRESS_INNER: u32 = 1 << 1;

/// Value of map `uplinks`, keyed by an interface's index. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// The node's IPv4 address there; all zero if it has none.
    pub v4: Addr,
    /// The node's IPv6 address there; all zero if it has none.
    pub v6: Addr,
}
