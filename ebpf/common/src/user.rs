//! User space only: conversions, and the marks that let aya copy our types in and out of maps.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    Addr, Backend, Be16, Endpoint, Flow, FlowKey, Frontend, FrontendKey, Network, Service, SlotKey, Uplink,
};
use crate::{Affinity, AffinityKey, MemberKey, SourceRangeKey};

/// Marks types as plain old data.
macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` (or transparent) integers and arrays of them, without padding: every byte is
            // initialised and every bit pattern is a value. `tests/layout.rs` holds sizes and offsets.
            #[expect(unsafe_code, reason = "aya::Pod is the promise that these types are plain old data")]
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pod!(Addr, Backend, Endpoint, Flow, FlowKey, Frontend, FrontendKey, Network, Service, SlotKey, Uplink);
pod!(Affinity, AffinityKey, MemberKey, SourceRangeKey);

impl From<Ipv4Addr> for Addr {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(address: Ipv6Addr) -> Self {
        let o = address.octets();
        Self::from_words([0, 4, 8, 12].map(|i| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]])))
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() {
            return Self::V4(Ipv4Addr::from(addr.v4_word().to_ne_bytes()));
        }
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.words()) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::V6(Ipv6Addr::from(octets))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Display for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_host().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.96.0.10", "0.0.0.0", "fd00:10:96::a", "::", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(address)), address, "{text}");
        }
        assert_eq!(Addr::from(Ipv4Addr::UNSPECIFIED), Addr::ANY_V4);
        assert!(Addr::from("fe80::1".parse::<Ipv6Addr>().unwrap()).is_v6_link_scope());
        assert!(!Addr::from("fd00::1".parse::<Ipv6Addr>().unwrap()).is_v6_link_scope());
        assert_eq!(Be16::from_host(80).to_string(), "80");
    }
}
