//! Addresses and ports in network byte order.

/// A 128-bit address as it stands in a packet, as two words in memory order. An IPv4 address is held in its
/// IPv4-mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), so that one map serves both families.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u64; 2]);

/// Bytes 8 to 11 of an IPv4-mapped address, as a word in memory order.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Puts two halves into one word, the first at the lower address.
#[inline(always)]
const fn word(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

impl Addr {
    /// The wildcard address of IPv4, `0.0.0.0`: the key of what holds for every address of the node.
    pub const ANY_V4: Self = Self::from_v4_word(0);
    /// The wildcard address of IPv6, `::`.
    pub const ANY_V6: Self = Self([0; 2]);

    /// An IPv4 address from its word as it stands in the packet (network byte order in memory).
    #[inline(always)]
    pub const fn from_v4_word(v4: u32) -> Self {
        Self([0, word(MAPPED, v4)])
    }

    /// An address from its four words as they stand in a packet.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self([word(words[0], words[1]), word(words[2], words[3])])
    }

    /// The four words as they stand in a packet.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let [a, b] = self.0;
        if cfg!(target_endian = "little") {
            [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
        } else {
            [(a >> 32) as u32, a as u32, (b >> 32) as u32, b as u32]
        }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.words()[2] == MAPPED
    }

    /// The IPv4 word as it stands in a packet; meaningful if [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words()[3]
    }

    /// The wildcard of a family.
    #[inline(always)]
    pub const fn any(v4: bool) -> Self {
        Self([0, if v4 { word(MAPPED, 0) } else { 0 }])
    }

    /// Whether this is `::1`.
    #[inline(always)]
    pub const fn is_v6_loopback(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 1_u64.to_be()
    }

    /// Whether this is a link-local (`fe80::/10`), unspecified or multicast IPv6 address: neighbour
    /// discovery and its like, which the datapath leaves to the kernel.
    #[inline(always)]
    pub const fn is_v6_link_scope(&self) -> bool {
        let top = u32::from_be(self.words()[0]);
        (top >> 22) == 0x3fa || (top >> 24) == 0xff || (self.0[0] == 0 && self.0[1] == 0)
    }
}

/// A 16-bit number in network byte order: a port as it stands in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Be16(pub u16);

impl Be16 {
    /// From host byte order.
    #[inline(always)]
    pub const fn from_host(port: u16) -> Self {
        Self(port.to_be())
    }

    /// To host byte order.
    #[inline(always)]
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }
}
