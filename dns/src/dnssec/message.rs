//! An answer as sets of records, and these in the form in which they are signed.

use crate::{
    query::QueryName,
    wire::{HEADER, MAX_LABEL, MAX_NAME, record_at, rtype, u16_at, u32_at},
};

/// The records of an owner and a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    /// Whose they are, as it was written.
    pub(super) owner: Vec<u8>,
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    /// Their data, no name in it compressed.
    pub(super) data: Vec<Vec<u8>>,
}

/// An answer that has been read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) question: QueryName,
    pub(super) qtype: u16,
    pub(super) rcode: u16,
    pub(super) is_truncated: bool,
    pub(super) answers: Vec<Set>,
    pub(super) authority: Vec<Set>,
    pub(super) additional: Vec<Set>,
}

impl Parsed {
    /// Reads an answer.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let flags = u16_at(message, 2)?;
        let (question, at) = QueryName::read(message, HEADER)?;
        let mut parsed = Self {
            question,
            qtype: u16_at(message, at)?,
            rcode: flags & 0xf,
            is_truncated: flags & crate::wire::flag::TC != 0,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        };
        let mut at = at + 4;
        let sections = [&mut parsed.answers, &mut parsed.authority, &mut parsed.additional];
        for (place, section) in sections.into_iter().enumerate() {
            for _ in 0..u16_at(message, 6 + 2 * place)? {
                let record = record_at(message, at)?;
                at = record.end;
                if record.rtype == rtype::OPT {
                    continue;
                }
                let (owner, _) = whole_name(message, record.start)?;
                let data = data(message, record.rtype, record.ttl_at + 6, record.end)?;
                let ttl = u32_at(message, record.ttl_at)?;
                let is_same =
                    |set: &&mut Set| set.rtype == record.rtype && set.owner.eq_ignore_ascii_case(&owner);
                match section.iter_mut().rev().find(is_same) {
                    Some(set) => {
                        set.ttl = set.ttl.min(ttl);
                        set.data.push(data);
                    }
                    None => section.push(Set { owner, rtype: record.rtype, ttl, data: vec![data] }),
                }
            }
        }
        Some(parsed)
    }

    /// Whether it is an answer without signatures that is whole, so that it can be given some.
    pub(super) fn is_bare(&self) -> bool {
        let mut sets = self.answers.iter().chain(&self.authority);
        !self.is_truncated && matches!(self.rcode, 0 | 3) && sets.all(|set| set.rtype != rtype::RRSIG)
    }
}

/// A name in full, pointers followed, as it is written; and the offset after it.
fn whole_name(message: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let mut name = Vec::new();
    let mut end = None;
    let mut at = at;
    // Each step leads to a label or back.
    for _ in 0..MAX_NAME {
        let length = usize::from(*message.get(at)?);
        if length & 0xc0 == 0xc0 {
            end.get_or_insert(at + 2);
            let target = usize::from(u16_at(message, at)? & 0x3fff);
            at = (target < at).then_some(target)?;
            continue;
        }
        if length > MAX_LABEL {
            return None;
        }
        name.extend(message.get(at..=at + length)?);
        at += length + 1;
        if length == 0 {
            return (name.len() <= MAX_NAME).then_some((name, end.unwrap_or(at)));
        }
    }
    None
}

/// How many names there are in data of a type, and after how many bytes (RFC 4034, 6.2); their letters are small where they are
/// signed.
fn names(rtype: u16, data: &[u8]) -> (usize, usize) {
    match rtype {
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => (0, 1),
        rtype::SOA | 17 => (0, 2),
        rtype::MX | 18 | 36 => (2, 1),
        rtype::SRV => (6, 1),
        // Two numbers and three texts.
        35 => {
            let mut at = 4;
            for _ in 0..3 {
                at += 1 + usize::from(data.get(at).copied().unwrap_or_default());
            }
            (at, 1)
        }
        _ => (0, 0),
    }
}

/// The data of a record without pointers.
fn data(message: &[u8], rtype: u16, start: usize, end: usize) -> Option<Vec<u8>> {
    let raw = message.get(start..end)?;
    let (skip, count) = names(rtype, raw);
    let mut out = raw.get(..skip)?.to_vec();
    let mut at = start + skip;
    for _ in 0..count {
        let (name, after) = whole_name(message, at)?;
        out.extend(name);
        at = after;
    }
    out.extend(message.get(at..end)?);
    Some(out)
}

/// A set in the form in which it is signed (RFC 4034, 3.1.8.1), what stands in the signature left aside.
pub(super) fn canonical(set: &Set) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = set.data.iter().map(|data| small(set.rtype, data)).collect();
    all.sort_unstable();
    all.dedup();
    let owner = set.owner.to_ascii_lowercase();
    let mut out = Vec::new();
    for data in all {
        out.extend(&owner);
        out.extend(set.rtype.to_be_bytes());
        out.extend(crate::wire::CLASS_IN.to_be_bytes());
        out.extend(set.ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out
}

/// Data with the letters of its names small.
fn small(rtype: u16, data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    let (mut at, count) = names(rtype, data);
    for _ in 0..count {
        let Some((name, end)) = whole_name(data, at) else { break };
        // No length is a letter.
        if let Some(place) = out.get_mut(at..end).filter(|place| place.len() == name.len()) {
            place.make_ascii_lowercase();
        }
        at = end;
    }
    out
}

/// How many labels a name has, the root and a wildcard not counted (RFC 4034, 3.1.3).
pub(super) fn labels(name: &[u8]) -> u8 {
    let Some((name, _)) = QueryName::read(name, 0) else { return 0 };
    let is_wildcard = name.count() > 0 && name.label(0) == b"*";
    (name.count() - usize::from(is_wildcard)) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_whole_and_loops_end() {
        let mut message = vec![0; HEADER];
        message.extend(b"\x03WWW\x04test\0");
        message.extend(b"\x01a\xc0\x0c\xc0\x1a\xff");
        assert_eq!(whole_name(&message, 22), Some((b"\x01a\x03WWW\x04test\0".to_vec(), 26)));
        assert_eq!(whole_name(&message, 26), None, "it leads to itself");
        assert_eq!(whole_name(&message, 28), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut message in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(parsed) = Parsed::read(&message) {
                parsed.answers.iter().for_each(|set| drop(canonical(set)));
            }
            // The same as an answer that has a question, and a record of a type with names.
            let head = *b"\0\0\x80\0\0\x01\0\x01\0\0\0\0\x01a\0\0\x23\0\x01\xc0\x0c\0\x23\0\x01\0\0\0\0\0";
            let length = message.len().min(255);
            message.splice(0..0, [length as u8]);
            message.splice(0..0, head);
            if let Some(parsed) = Parsed::read(&message) {
                parsed.answers.iter().for_each(|set| drop(canonical(set)));
            }
        }
    }

    #[test]
    fn sets_are_signed_in_order_and_small() {
        let data = vec![b"\0\x0a\x01B\0".to_vec(), b"\0\x05\x01a\0".to_vec(), b"\0\x05\x01A\0".to_vec()];
        let set = Set { owner: b"\x02Mx\0".to_vec(), rtype: rtype::MX, ttl: 5, data };
        let head = b"\x02mx\0\0\x0f\0\x01\0\0\0\x05\0\x05";
        assert_eq!(canonical(&set), [&head[..], b"\0\x05\x01a\0", head, b"\0\x0a\x01b\0"].concat());
        assert_eq!([&b"\x01*\x01a\0"[..], b"\x01a\0", b"\0"].map(labels), [1, 1, 0]);
    }
}
