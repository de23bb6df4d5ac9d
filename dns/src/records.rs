//! Address records in the form in which they go into answers, encoded once when the zone is built.

use std::net::IpAddr;

use crate::wire::{CLASS_IN, QUESTION_POINTER, rtype, u16_at};

/// The bytes before the data of a record whose owner is a pointer.
pub(crate) const RECORD_HEAD: usize = 12;

/// A set of A or of AAAA records: all of one length, each with the question's name for owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressSet(Box<[u8]>);

impl AddressSet {
    /// Encodes the addresses, which are of one family; each is there once, in ascending order.
    pub(crate) fn new(mut addresses: Vec<IpAddr>, ttl: u32) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        let mut bytes = Vec::with_capacity(addresses.len() * (RECORD_HEAD + 16));
        for address in addresses {
            push_address(&mut bytes, QUESTION_POINTER, address, ttl);
        }
        Self(bytes.into_boxed_slice())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The length of each record.
    fn stride(&self) -> usize {
        RECORD_HEAD + u16_at(&self.0, RECORD_HEAD - 2).map_or(0, usize::from)
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        if self.is_empty() { 0 } else { self.0.len() / self.stride() }
    }

    /// The records, from the `first`th on and round to the one before it.
    pub(crate) fn rotated(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let (head, tail) = self.0.split_at(first.min(self.count()) * self.stride());
        tail.chunks_exact(self.stride()).chain(head.chunks_exact(self.stride()))
    }

    /// All the records, one after the other.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.chunks_exact(self.stride()).filter_map(|record| {
            let data = &record[RECORD_HEAD..];
            <[u8; 4]>::try_from(data)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from))
                .ok()
        })
    }
}

/// The type of the record that holds an address.
pub(crate) fn address_type(address: IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}

/// Appends an address record whose owner is a pointer.
pub(crate) fn push_address(out: &mut Vec<u8>, owner: u16, address: IpAddr, ttl: u32) {
    push_head(out, owner, address_type(address), ttl);
    match address {
        IpAddr::V4(v4) => {
            out.extend(4_u16.to_be_bytes());
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.extend(16_u16.to_be_bytes());
            out.extend(v6.octets());
        }
    }
}

/// Appends a record's owner, type, class and time to live.
pub(crate) fn push_head(out: &mut Vec<u8>, owner: u16, rtype: u16, ttl: u32) {
    out.extend(owner.to_be_bytes());
    out.extend(rtype.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out.extend(ttl.to_be_bytes());
}

/// Appends a set of types as NSEC records have it (RFC 4034, 4.1.2).
pub(crate) fn push_types(out: &mut Vec<u8>, mut types: Vec<u16>) {
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        for number in window.iter().map(|rtype| usize::from(rtype & 0xff)) {
            bits[number / 8] |= 0x80 >> (number % 8);
        }
        let length = bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        out.extend([(window[0] >> 8) as u8, length as u8]);
        out.extend(&bits[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_back_what_it_was_made_of() {
        for addresses in [vec!["10.0.0.2", "10.0.0.1", "10.0.0.2"], vec!["fd00::1", "fd00::2"], vec![]] {
            let addresses: Vec<IpAddr> = addresses.into_iter().map(|a| a.parse().unwrap()).collect();
            let mut wanted = addresses.clone();
            wanted.sort();
            wanted.dedup();
            let set = AddressSet::new(addresses, 30);
            assert_eq!(set.addresses().collect::<Vec<_>>(), wanted);
            assert_eq!(set.count(), wanted.len());
            for first in 0..wanted.len() {
                let mut records: Vec<_> = set.rotated(first).map(<[u8]>::to_vec).collect();
                records.rotate_right(first);
                assert_eq!(records.concat(), set.as_bytes());
            }
        }
    }
}
