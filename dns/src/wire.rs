//! The numbers of the DNS message format, and reading and writing of them within bounds.

/// Bytes of a message's header (RFC 1035, 4.1.1).
pub(crate) const HEADER: usize = 12;
/// The most bytes a name takes, its final zero included (RFC 1035, 3.1).
pub(crate) const MAX_NAME: usize = 255;
/// The most bytes of a label.
pub(crate) const MAX_LABEL: usize = 63;
/// A compression pointer to the question's name.
pub(crate) const QUESTION_POINTER: u16 = 0xc000 | HEADER as u16;

/// Record types.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const RRSIG: u16 = 46;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// The Internet class.
pub(crate) const CLASS_IN: u16 = 1;

/// Response codes; those over 15 need EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    YxDomain = 6,
    BadVers = 16,
}

/// Header flags, as the 16 bits after the id.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const AD: u16 = 0x0020;
    pub(crate) const CD: u16 = 0x0010;
}

/// The 16 bits at an offset, if the message reaches that far.
pub(crate) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The 32 bits at an offset, if the message reaches that far.
pub(crate) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The offset after the name that starts at `at`, compressed or not; nothing is followed.
pub(crate) fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if usize::from(length) <= MAX_LABEL => at += 1 + usize::from(length),
            pointer if pointer & 0xc0 == 0xc0 => return (at + 2 <= message.len()).then_some(at + 2),
            _ => return None,
        }
        if at - start >= MAX_NAME {
            return None;
        }
    }
}

/// Where the parts of one record lie in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordAt {
    /// Its first byte.
    pub(crate) start: usize,
    /// Its type.
    pub(crate) rtype: u16,
    /// Its class.
    pub(crate) class: u16,
    /// The offset of its time to live.
    pub(crate) ttl_at: usize,
    /// The offset after it.
    pub(crate) end: usize,
}

/// The record that starts at `at`.
pub(crate) fn record_at(message: &[u8], at: usize) -> Option<RecordAt> {
    let fixed = skip_name(message, at)?;
    let rtype = u16_at(message, fixed)?;
    let class = u16_at(message, fixed + 2)?;
    let end = fixed + 10 + usize::from(u16_at(message, fixed + 8)?);
    (end <= message.len()).then_some(RecordAt { start: at, rtype, class, ttl_at: fixed + 4, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_skipped_within_bounds() {
        for (message, end) in [
            (&b"\x03web\x00rest"[..], Some(5)),
            (b"\x00", Some(1)),
            (b"\xc0\x0c", Some(2)),
            (b"\x03web\xc0\x0c", Some(6)),
            (b"\xc0", None),
            (b"\x03we", None),
            (b"\x40aaa", None),
            (b"", None),
        ] {
            assert_eq!(skip_name(message, 0), end, "{message:?}");
        }
        let endless = [1_u8; 600];
        assert_eq!(skip_name(&endless, 0), None);
    }
}
