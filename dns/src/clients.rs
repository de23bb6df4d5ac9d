//! Which clients are answered: networks, as ranges that a search halves.

use std::net::IpAddr;

use ipnet::IpNet;

/// The clients that are answered. A cluster has a network for each node, so they are not gone through one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clients {
    /// Everybody is answered.
    everybody: bool,
    /// First and last addresses, in ascending order, none of which touch.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Clients {
    /// The clients of these networks; without any, everybody.
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in IpNet::aggregate(&networks.to_vec()) {
            match network {
                IpNet::V4(net) => v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { everybody: networks.is_empty(), v4: v4.into(), v6: v6.into() }
    }

    /// Whether a client is one of them.
    pub(crate) fn contain(&self, client: IpAddr) -> bool {
        self.everybody
            || match client {
                IpAddr::V4(client) => holds(&self.v4, client.into()),
                IpAddr::V6(client) => holds(&self.v6, client.into()),
            }
    }
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|at| ranges[at].1 >= address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_networks_everybody_is_answered() {
        assert!(Clients::new(&[]).contain("192.0.2.1".parse().unwrap()));
        let only = Clients::new(&["10.0.0.0/8".parse().unwrap()]);
        assert!(!only.contain("fd00::1".parse().unwrap()), "a family without networks is not answered");
    }

    proptest! {
        #[test]
        fn the_search_finds_what_going_through_all_would(
            networks in prop::collection::vec((any::<u32>(), 0_u8..=32, any::<bool>()), 1..20),
            clients in prop::collection::vec(any::<u32>(), 20),
        ) {
            let address = |bits: u32, v6| -> IpAddr {
                if v6 { std::net::Ipv6Addr::from(u128::from(bits) << 96).into() } else { std::net::Ipv4Addr::from(bits).into() }
            };
            let networks: Vec<_> =
                networks.iter().map(|(bits, length, v6)| IpNet::new(address(*bits, *v6), *length).unwrap()).collect();
            let all = Clients::new(&networks);
            for (bits, v6) in clients.iter().flat_map(|bits| [(*bits, false), (*bits, true)]) {
                let client = address(bits, v6);
                prop_assert_eq!(all.contain(client), networks.iter().any(|net| net.contains(&client)));
            }
            for net in networks {
                prop_assert!(all.contain(net.network()) && all.contain(net.broadcast()));
            }
        }
    }
}
