//! Attributes: reading those of the kernel's answers, and writing those that the crates for it do not know.
//!
//! Only the attributes that we use are looked at. The kernel adds new ones with every release, and a list of
//! links must not fail because of a statistic that nobody asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;

use crate::MacAddress;

/// Why an answer could not be read.
#[derive(Debug)]
pub(crate) struct Malformed(pub(crate) String);

/// One attribute with its padding, for a message.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Calls `each` with the kind and the value of every attribute in `bytes`.
pub(crate) fn for_each(
    bytes: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for attribute in NlasIterator::new(bytes) {
        let attribute = attribute.map_err(|error| Malformed(error.to_string()))?;
        each(attribute.kind(), attribute.value())?;
    }
    Ok(())
}

/// Splits a fixed header of `length` bytes off a message.
pub(crate) fn split_header(bytes: &[u8], length: usize) -> Result<(&[u8], &[u8]), Malformed> {
    bytes
        .split_at_checked(length)
        .ok_or_else(|| Malformed(format!("a header of {length} bytes is cut short")))
}

fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed(format!("expected {N} bytes, found {}", value.len())))
}

pub(crate) fn u32(value: &[u8]) -> Result<u32, Malformed> {
    array(value).map(u32::from_ne_bytes)
}

pub(crate) fn u64(value: &[u8]) -> Result<u64, Malformed> {
    array(value).map(u64::from_ne_bytes)
}

pub(crate) fn i32(value: &[u8]) -> Result<i32, Malformed> {
    array(value).map(i32::from_ne_bytes)
}

pub(crate) fn u16(value: &[u8]) -> Result<u16, Malformed> {
    array(value).map(u16::from_ne_bytes)
}

pub(crate) fn u8(value: &[u8]) -> Result<u8, Malformed> {
    array::<1>(value).map(|[byte]| byte)
}

/// A text, up to its terminating zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An address of either family, told by its length.
pub(crate) fn address(value: &[u8]) -> Result<IpAddr, Malformed> {
    match value.len() {
        4 => array::<4>(value).map(|octets| Ipv4Addr::from(octets).into()),
        16 => array::<16>(value).map(|octets| Ipv6Addr::from(octets).into()),
        other => Err(Malformed(format!("an address of {other} bytes"))),
    }
}

/// A MAC address; `None` for link layers with addresses of other lengths.
pub(crate) fn mac(value: &[u8]) -> Option<MacAddress> {
    <[u8; 6]>::try_from(value).ok().map(MacAddress)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut seen = 0;
            let _ = for_each(&bytes, |_, value| {
                seen += value.len();
                let _ = (u32(value), i32(value), u16(value), u8(value), text(value), address(value), mac(value));
                Ok(())
            });
            prop_assert!(seen <= bytes.len());
        }
    }
}
