//! Connections: one NAT engine for service translation, hairpin, node ports and masquerade.
//!
//! A translated connection is two entries in map `flows`, one for each direction, each saying what the
//! packet's tuple becomes:
//!
//! ```text
//! forward   client ─▶ frontend      becomes   source ─▶ backend
//! reply     backend ─▶ source       becomes   frontend ─▶ client
//! ```
//!
//! The reply's key is the inverse of what the forward entry makes, and the forward key is the inverse of what
//! the reply entry makes; so either finds the other. The reply entry carries the frontend: two
//! services that share a backend cannot be confused, because their reply keys must differ.

use crate::{Addr, Be16};

/// Key of map `flows`: a packet's tuple as it comes in. For ICMP echo both ports are the identifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, network byte order.
    pub sport: Be16,
    /// Destination port, network byte order.
    pub dport: Be16,
    /// IANA protocol number, host byte order; a whole word, so that no byte of the key is padding.
    pub proto: u32,
}

impl FlowKey {
    /// The tuple of a packet in the other direction.
    #[inline(always)]
    pub const fn inverse(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }
}

/// [`Flow::flags`]: the entry of the replies.
pub const FLOW_REPLY: u16 = 1;
/// [`Flow::flags`]: the destination was chosen from a service's backends.
pub const FLOW_SERVICE: u16 = 1 << 1;
/// [`Flow::flags`]: the source was changed to the node's.
pub const FLOW_MASQUERADE: u16 = 1 << 2;
/// [`Flow::flags`]: a FIN was seen in this direction.
pub const FLOW_FIN: u16 = 1 << 3;
/// [`Flow::flags`]: a RST was seen in either direction.
pub const FLOW_RST: u16 = 1 << 4;
/// [`Flow::flags`]: a packet of this direction was seen; of the replies' entry only, which is made before there
/// is any.
pub const FLOW_ANSWERED: u16 = 1 << 5;

/// Value of map `flows`. Written and read by the datapath; expired entries are removed by the agent, and
/// the oldest make room when the map (an LRU) is full.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Source address that the packet gets.
    pub src: Addr,
    /// Destination address that the packet gets.
    pub dst: Addr,
    /// Source port that the packet gets, network byte order.
    pub sport: Be16,
    /// Destination port that the packet gets, network byte order.
    pub dport: Be16,
    /// `FLOW_*`.
    pub flags: u16,
    /// Always 0.
    pub pad: u16,
    /// The backend's id where `FLOW_SERVICE` is set, otherwise 0.
    pub backend: u32,
    /// The service's id where `FLOW_SERVICE` is set, otherwise 0.
    pub service: u32,
    /// When the last packet passed: seconds of the monotonic clock, kept to the second so that a busy flow
    /// writes its cache line once a second.
    pub seen: u32,
    /// Always 0.
    pub pad2: u32,
}

impl Flow {
    /// The tuple that a packet of this flow leaves with.
    #[inline(always)]
    pub const fn tuple(&self, proto: u32) -> FlowKey {
        FlowKey { src: self.src, dst: self.dst, sport: self.sport, dport: self.dport, proto }
    }

    /// An entry that makes a packet leave with this tuple.
    #[inline(always)]
    pub const fn to(tuple: &FlowKey, flags: u16, seen: u32) -> Self {
        Self {
            src: tuple.src,
            dst: tuple.dst,
            sport: tuple.sport,
            dport: tuple.dport,
            flags,
            pad: 0,
            backend: 0,
            service: 0,
            seen,
            pad2: 0,
        }
    }
}

/// Key of map `fragments`: what the fragments of one packet have in common (RFC 791 section 3.2, RFC 8200
/// section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// The identification, as it stands in the packet.
    pub id: u32,
    /// IANA protocol number, host byte order.
    pub proto: u32,
}

/// Value of map `fragments`: what stands in the first fragment only. Written and read by the datapath.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, network byte order.
    pub sport: Be16,
    /// Destination port, network byte order.
    pub dport: Be16,
}

/// TCP header flag FIN (RFC 9293 section 3.1).
pub const TCP_FIN: u8 = 0x01;
/// TCP header flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP header flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP header flag ACK.
pub const TCP_ACK: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_entry_of_a_connection_finds_the_other() {
        let forward = FlowKey {
            src: Addr::from_v4_word(1),
            dst: Addr::from_v4_word(2),
            sport: Be16(3),
            dport: Be16(4),
            proto: 6,
        };
        let leaves = FlowKey { dst: Addr::from_v4_word(9), dport: Be16(8), ..forward };
        let entry = Flow::to(&leaves, FLOW_SERVICE, 0);
        let reply_key = entry.tuple(6).inverse();
        let reply = Flow::to(&forward.inverse(), FLOW_REPLY, 0);
        assert_eq!(reply_key.src, Addr::from_v4_word(9));
        assert_eq!(reply.tuple(6).inverse(), forward);
    }
}
