//! Ranges of addresses: pure arithmetic.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// How many addresses of a range are handed out of themselves, at most: the first so many. Any address of the
/// range can be asked for by name. It bounds what an allocation has to look at, whatever the range.
pub const DYNAMIC_ADDRESSES: u32 = 1 << 16;

/// A range of addresses within one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    first: IpAddr,
    last: IpAddr,
    gateway: IpAddr,
    reserved: Vec<IpNet>,
}

/// A range that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    /// Host bits are set.
    #[error("subnet {0} has host bits set; did you mean {network}?", network = .0.trunc())]
    HostBits(IpNet),
    /// No room for a gateway and a pod.
    #[error("subnet {0} is too small for a gateway and a pod")]
    TooSmall(IpNet),
    /// An address does not belong to the network.
    #[error("{what} {address} is not in subnet {subnet}")]
    Outside {
        /// Which one.
        what: &'static str,
        /// The address.
        address: IpAddr,
        /// The network.
        subnet: IpNet,
    },
    /// It ends before it starts.
    #[error("rangeStart {first} is after rangeEnd {last}")]
    Backwards {
        /// The start.
        first: IpAddr,
        /// The end.
        last: IpAddr,
    },
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

impl Range {
    /// A range of `subnet`. Left out, `first` is the address after the network's, `last` the one before the
    /// broadcast address (IPv6: the last one), and `gateway` the first of the network.
    pub fn new(
        subnet: IpNet,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, InvalidRange> {
        if subnet.trunc() != subnet {
            return Err(InvalidRange::HostBits(subnet));
        }
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return Err(InvalidRange::TooSmall(subnet));
        }
        let v4 = subnet.addr().is_ipv4();
        let inside = |what, given: Option<IpAddr>, default: u128| match given {
            None => Ok(address(default, v4)),
            Some(given) if subnet.contains(&given) => Ok(given),
            Some(given) => Err(InvalidRange::Outside { what, address: given, subnet }),
        };
        let (network, end) = (number(subnet.network()), number(subnet.broadcast()));
        let first = inside("rangeStart", first, network + 1)?;
        let last = inside("rangeEnd", last, end - u128::from(v4))?;
        let gateway = inside("gateway", gateway, network + 1)?;
        if number(first) > number(last) {
            return Err(InvalidRange::Backwards { first, last });
        }
        Ok(Self { subnet, first, last, gateway, reserved: Vec::new() })
    }

    /// The same range, of which nobody gets what is in `reserved`.
    pub fn without(mut self, reserved: impl IntoIterator<Item = IpNet>) -> Self {
        self.reserved.extend(reserved);
        self
    }

    /// The network.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The gateway's address.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// How many addresses are handed out of themselves.
    pub(crate) fn size(&self) -> u32 {
        // Of all IPv6 addresses there is one more than a number can hold.
        let count = (number(self.last) - number(self.first)).saturating_add(1);
        u32::try_from(count).unwrap_or(u32::MAX).min(DYNAMIC_ADDRESSES)
    }

    /// The address with this index.
    pub(crate) fn at(&self, index: u32) -> IpAddr {
        address(number(self.first) + u128::from(index), self.first.is_ipv4())
    }

    /// The index of an address; `None` if it is not one of those that are handed out of themselves.
    pub(crate) fn index(&self, address: IpAddr) -> Option<u32> {
        let distance = number(address).checked_sub(number(self.first))?;
        let index = u32::try_from(distance).ok()?;
        (address.is_ipv4() == self.first.is_ipv4() && index < self.size()).then_some(index)
    }

    /// Whether a pod may have this address.
    pub(crate) fn offers(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(address))
            && !self.is_reserved(address)
    }

    /// The network's own addresses, the gateway's and what was reserved are nobody's.
    pub(crate) fn is_reserved(&self, address: IpAddr) -> bool {
        address == self.gateway
            || address == self.subnet.network()
            || (address.is_ipv4() && address == self.subnet.broadcast())
            || self.reserved.iter().any(|reserved| reserved.contains(&address))
    }

    /// An address of it with the length of the network's prefix.
    pub(crate) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.subnet.prefix_len()).unwrap_or_else(|_| address.into())
    }

    /// Whether two ranges share an address.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && number(self.first) <= number(other.last)
            && number(other.first) <= number(self.last)
    }

    /// The range described by `<first>-<last>`, for what only needs indices.
    pub(crate) fn parse_span(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
        let valid = first.is_ipv4() == last.is_ipv4() && number(first) <= number(last);
        let subnet = IpNet::new(first, 0).ok()?;
        valid.then_some(Self { subnet, first, last, gateway: first, reserved: Vec::new() })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(subnet: &str) -> Range {
        Range::new(subnet.parse().unwrap(), None, None, None).unwrap()
    }

    #[test]
    fn a_network_yields_all_but_its_own_addresses_and_the_gateway() {
        for (subnet, gateway, expected) in [
            ("10.1.0.0/29", "10.1.0.1", vec!["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]),
            ("fd00::/126", "fd00::1", vec!["fd00::2", "fd00::3"]),
        ] {
            let range = range(subnet);
            assert_eq!(range.gateway().to_string(), gateway);
            let offered: Vec<_> =
                (0..range.size()).map(|i| range.at(i)).filter(|a| range.offers(*a)).collect();
            let offered: Vec<_> = offered.into_iter().map(|address| address.to_string()).collect();
            assert_eq!(offered, expected, "{subnet}");
        }
    }

    #[test]
    fn senseless_ranges_are_refused_with_the_reason() {
        let new = |subnet: &str, first: Option<&str>, last: Option<&str>, gateway: Option<&str>| {
            let parse = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            Range::new(subnet.parse().unwrap(), parse(first), parse(last), parse(gateway))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            new("10.1.0.5/24", None, None, None),
            "subnet 10.1.0.5/24 has host bits set; did you mean 10.1.0.0/24?"
        );
        assert_eq!(
            new("10.1.0.0/31", None, None, None),
            "subnet 10.1.0.0/31 is too small for a gateway and a pod"
        );
        assert_eq!(
            new("10.1.0.0/24", Some("10.2.0.1"), None, None),
            "rangeStart 10.2.0.1 is not in subnet 10.1.0.0/24"
        );
        assert_eq!(
            new("10.1.0.0/24", None, None, Some("fd00::1")),
            "gateway fd00::1 is not in subnet 10.1.0.0/24"
        );
        assert_eq!(
            new("10.1.0.0/24", Some("10.1.0.9"), Some("10.1.0.8"), None),
            "rangeStart 10.1.0.9 is after rangeEnd 10.1.0.8"
        );
    }

    proptest! {
        #[test]
        fn index_and_address_are_inverse(base: u128, prefix in 0_u8..=126, index in 0..DYNAMIC_ADDRESSES) {
            let subnet = IpNet::new(Ipv6Addr::from(base).into(), prefix).unwrap().trunc();
            let range = Range::new(subnet, None, None, None).unwrap();
            let index = index % range.size();
            let address = range.at(index);
            prop_assert_eq!(range.index(address), Some(index));
            prop_assert!(subnet.contains(&address));
            prop_assert_eq!(Range::parse_span(&range.to_string()).unwrap().index(address), Some(index));
        }
    }
}
