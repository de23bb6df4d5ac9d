//! What addresses point to. Every endpoint of a cluster is here, so an entry is small: one name stands in the tree itself.

use std::{net::IpAddr, slice, sync::Arc};

use imbl::{GenericOrdMap, shared_ptr::DefaultSharedPtr};
use ipnet::IpNet;

/// What an address's reverse name points to. Cluster addresses sort first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    /// The label before the service's name, its length before it; none for the service itself.
    pub(crate) host: Option<Arc<[u8]>>,
    /// The service's key.
    pub(crate) service: Arc<[u8]>,
}

/// Names by address. Persistent: a copy that differs in one address shares everything else with the original.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reverse(GenericOrdMap<Key, Pointers, DefaultSharedPtr>);

/// An address, of IPv4 as IPv6 writes it.
type Key = [u64; 2];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pointers {
    One(Pointer),
    /// In ascending order.
    Many(Arc<[Pointer]>),
}

impl Pointers {
    fn as_slice(&self) -> &[Pointer] {
        match self {
            Self::One(pointer) => slice::from_ref(pointer),
            Self::Many(pointers) => pointers,
        }
    }
}

impl Reverse {
    /// What an address points to, in ascending order.
    pub(crate) fn get(&self, address: IpAddr) -> Option<&[Pointer]> {
        self.0.get(&key(address)).map(Pointers::as_slice)
    }

    /// Whether an address of a network points to anything.
    pub(crate) fn has_any(&self, net: IpNet) -> bool {
        self.0.range(key(net.network())..=key(net.broadcast())).next().is_some()
    }

    /// Lets an address point to a name.
    pub(crate) fn add(&mut self, address: IpAddr, pointer: Pointer) {
        let held = self.get(address).unwrap_or_default();
        let Err(place) = held.binary_search(&pointer) else { return };
        let mut all = held.to_vec();
        all.insert(place, pointer);
        self.set(address, all);
    }

    /// Lets it point to that name no more.
    pub(crate) fn remove(&mut self, address: IpAddr, pointer: &Pointer) {
        let held = self.get(address).unwrap_or_default();
        self.set(address, held.iter().filter(|held| *held != pointer).cloned().collect());
    }

    fn set(&mut self, address: IpAddr, mut all: Vec<Pointer>) {
        let pointers = match all.len() {
            0 | 1 => all.pop().map(Pointers::One),
            _ => Some(Pointers::Many(all.into())),
        };
        match pointers {
            Some(pointers) => drop(self.0.insert(key(address), pointers)),
            None => drop(self.0.remove(&key(address))),
        }
    }
}

fn key(address: IpAddr) -> Key {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_points_to_whoever_has_it() {
        let pointer = |host: Option<&[u8]>, service: &[u8]| Pointer {
            host: host.map(Arc::from),
            service: service.into(),
        };
        let (own, first, second) =
            (pointer(None, b"\x01s"), pointer(Some(b"\x01a"), b"\x01s"), pointer(Some(b"\x01b"), b"\x01s"));
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let mut reverse = Reverse::default();
        for pointer in [&second, &own, &first, &own] {
            reverse.add(address, pointer.clone());
        }
        assert_eq!(reverse.get(address).unwrap(), [own.clone(), first.clone(), second.clone()]);
        let before = reverse.clone();
        reverse.remove(address, &own);
        reverse.remove(address, &own);
        reverse.remove(address, &second);
        assert_eq!(reverse.get(address).unwrap(), std::slice::from_ref(&first));
        reverse.remove(address, &first);
        assert_eq!((reverse.get(address), &reverse), (None, &Reverse::default()));
        assert_eq!(before.get(address).map(<[_]>::len), Some(3), "a copy stays as it was");
    }
}
