//! Domain names as they stand in messages: labels with their lengths before them, a zero at the end.

use std::{net::IpAddr, sync::Arc};

use crate::{
    query::QueryName,
    wire::{MAX_LABEL, MAX_NAME},
};

/// A complete name in wire form and lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WireName(Arc<[u8]>);

impl WireName {
    /// Reads a name with or without a final dot. `None` where a label is empty or too long, or the name is.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        if !text.is_empty() {
            for label in text.split('.') {
                push_label(&mut wire, label.as_bytes()).then_some(())?;
            }
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// Labels in wire form put before a name; `None` where that is too long.
    pub(crate) fn join(labels: &[u8], name: &[u8]) -> Option<Self> {
        (labels.len() + name.len() <= MAX_NAME).then(|| Self([labels, name].concat().into()))
    }

    /// The name without its first label; none of the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        let length = usize::from(*self.0.first()?);
        (length > 0).then(|| self.0.get(1 + length..)).flatten().map(|rest| Self(rest.into()))
    }

    /// Whether it is `other`, or below it.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        let name = QueryName::read(&self.0, 0);
        name.is_some_and(|(name, _)| name.labels_before(&other.0).is_some())
    }

    /// The bytes, final zero included.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for WireName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_name(&self.0, f)
    }
}

/// Prints a name in wire form with dots, a final one included.
pub(crate) fn write_name(wire: &[u8], f: &mut impl std::fmt::Write) -> std::fmt::Result {
    let mut rest = wire;
    if rest.first() == Some(&0) {
        return f.write_str(".");
    }
    while let Some((&length, after)) = rest.split_first() {
        let Some(label) = after.get(..usize::from(length)).filter(|l| !l.is_empty()) else { break };
        for byte in label {
            if byte.is_ascii_graphic() && *byte != b'.' {
                f.write_char(char::from(*byte))?;
            } else {
                write!(f, "\\{byte:03}")?;
            }
        }
        f.write_char('.')?;
        rest = &after[usize::from(length)..];
    }
    Ok(())
}

/// Appends a label in lower case; false, with nothing appended, where it is empty or too long.
pub(crate) fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> bool {
    let Some(length) = u8::try_from(label.len()).ok().filter(|l| (1..=MAX_LABEL).contains(&usize::from(*l)))
    else {
        return false;
    };
    wire.push(length);
    wire.extend(label.iter().map(u8::to_ascii_lowercase));
    true
}

/// The label by which an endpoint without a name of its own goes: its address with dashes. A dash at the
/// end, as of `fd00::`, is followed by a zero, for a label must not end with one.
pub(crate) fn dashed(address: IpAddr) -> String {
    let mut label = address.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

/// The address that a dashed label stands for.
pub(crate) fn undashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    if text.bytes().filter(|b| *b == b'-').count() == 3 && !text.contains("--") {
        return text.replace('-', ".").parse().ok().map(IpAddr::V4);
    }
    text.replace('-', ":").parse().ok().map(IpAddr::V6)
}

/// The labels of a reverse name, the rightmost first, without `arpa` and the one before it.
fn reverse_digits<'a>(labels: impl Iterator<Item = &'a [u8]>, most: usize) -> Option<Vec<&'a [u8]>> {
    let digits: Vec<_> = labels.take(most + 1).collect();
    (digits.len() == most).then_some(digits)
}

/// The address that a reverse name asks for; its labels come rightmost first, in lower case.
pub(crate) fn reverse_address<'a>(mut labels: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
    if labels.next()? != b"arpa" {
        return None;
    }
    match labels.next()? {
        b"in-addr" => {
            let mut octets = [0_u8; 4];
            for (octet, digits) in octets.iter_mut().zip(reverse_digits(labels, 4)?) {
                let text = std::str::from_utf8(digits).ok()?;
                let plain =
                    text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
                *octet = plain.then(|| text.parse().ok())??;
            }
            Some(IpAddr::from(octets))
        }
        b"ip6" => {
            let mut bits = 0_u128;
            for digit in reverse_digits(labels, 32)? {
                let &[digit] = digit else { return None };
                bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
            }
            Some(IpAddr::from(bits.to_be_bytes()))
        }
        _ => None,
    }
}

/// The network that a reverse name, complete or not, stands for: the bits it gives, and how many.
pub(crate) fn reverse_prefix<'a>(mut labels: impl Iterator<Item = &'a [u8]>) -> Option<ipnet::IpNet> {
    if labels.next()? != b"arpa" {
        return None;
    }
    match labels.next()? {
        b"in-addr" => {
            let mut octets = [0_u8; 4];
            let mut count = 0;
            for (octet, label) in octets.iter_mut().zip(labels) {
                *octet = std::str::from_utf8(label).ok()?.parse().ok()?;
                count += 8;
            }
            ipnet::IpNet::new(octets.into(), count).ok()
        }
        b"ip6" => {
            let mut bits = 0_u128;
            let mut count = 0_u8;
            for label in labels.take(32) {
                let &[digit] = label else { return None };
                count += 4;
                bits |= u128::from(char::from(digit).to_digit(16)?) << (128 - u32::from(count));
            }
            ipnet::IpNet::new(bits.to_be_bytes().into(), count).ok()
        }
        _ => None,
    }
}

/// The reverse name of an address, in wire form.
#[cfg(test)]
pub(crate) fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", u128::from(v6));
            let mut name: String = digits.chars().rev().flat_map(|c| [c, '.']).collect();
            name.push_str("ip6.arpa.");
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> impl Iterator<Item = &[u8]> {
        name.trim_end_matches('.').rsplit('.').map(str::as_bytes)
    }

    #[test]
    fn addresses_survive_dashes_and_reverse_names() {
        for text in ["10.0.0.1", "0.0.0.0", "fd00::1", "fd00::", "::1", "2001:db8:1:2:3:4:5:6"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(undashed(dashed(address).as_bytes()), Some(address), "{text}");
            assert_eq!(reverse_address(labels(&reverse_name(address))), Some(address), "{text}");
        }
        assert_eq!(dashed("fd00::".parse().unwrap()), "fd00--0");
    }

    #[test]
    fn what_is_no_reverse_name_gives_no_address() {
        for name in [
            "1.0.0.in-addr.arpa.",
            "1.1.0.0.10.in-addr.arpa.",
            "256.0.0.10.in-addr.arpa.",
            "01.0.0.10.in-addr.arpa.",
            "x.ip6.arpa.",
            "1.0.0.10.in-addr.example.",
            "in-addr.arpa.",
            "arpa.",
        ] {
            assert_eq!(reverse_address(labels(name)), None, "{name}");
        }
    }

    #[test]
    fn prefixes_of_reverse_names() {
        for (name, net) in [
            ("in-addr.arpa.", "0.0.0.0/0"),
            ("96.10.in-addr.arpa.", "10.96.0.0/16"),
            ("7.0.96.10.in-addr.arpa.", "10.96.0.7/32"),
            ("0.0.d.f.ip6.arpa.", "fd00::/16"),
        ] {
            assert_eq!(reverse_prefix(labels(name)), Some(net.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn names_parse_and_print() {
        assert_eq!(WireName::parse("Cluster.Local").unwrap().as_bytes(), b"\x07cluster\x05local\0");
        assert_eq!(WireName::parse("cluster.local.").unwrap().to_string(), "cluster.local.");
        assert_eq!(WireName::parse(".").unwrap().as_bytes(), b"\0");
        assert_eq!(WireName::parse(".").unwrap().to_string(), ".");
        for bad in ["a..b", &"a".repeat(64), &"abc.".repeat(70)] {
            assert_eq!(WireName::parse(bad), None, "{bad}");
        }
    }
}
