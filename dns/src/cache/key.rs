//! By what answers are told apart.

use super::Entry;
use crate::{
    message::Question,
    query::Query,
    rules::MAX_OPTIONS,
    wire::{MAX_NAME, flag},
};

/// What tells answers apart: name, type, whether DNSSEC records and no validation were asked for, and the options that
/// rules have given. The class is always IN.
#[derive(Clone)]
pub(crate) struct Key {
    bytes: [u8; MAX_NAME + 3 + MAX_OPTIONS],
    length: usize,
}

/// What a key has beside name and type.
#[derive(Debug)]
pub(super) struct KeyTail {
    bits: u8,
    options: Box<[u8]>,
}

impl KeyTail {
    pub(super) fn of(question: &Question) -> Self {
        let bits = bits(question.dnssec_ok, question.checking_disabled);
        Self { bits, options: question.options.clone() }
    }
}

fn bits(dnssec_ok: bool, checking_disabled: bool) -> u8 {
    u8::from(dnssec_ok) | u8::from(checking_disabled) << 1
}

impl Key {
    /// The key of a client's question.
    pub(crate) fn of(query: &Query<'_>) -> Self {
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let qtype = query.qtype.to_be_bytes();
        Self::new(query.name.as_bytes(), qtype, dnssec_ok, query.flags & flag::CD != 0, query.options)
    }

    /// The key of a question to an upstream.
    pub(crate) fn of_question(question: &Question) -> Self {
        let (name, fixed) = question.wire.split_at(question.wire.len() - 4);
        let (dnssec_ok, checking_disabled) = (question.dnssec_ok, question.checking_disabled);
        let mut key = Self::new(name, [fixed[0], fixed[1]], dnssec_ok, checking_disabled, &question.options);
        // Lengths are below the letters, so nothing but letters changes.
        key.bytes[..name.len()].make_ascii_lowercase();
        key
    }

    fn new(name: &[u8], qtype: [u8; 2], dnssec_ok: bool, checking_disabled: bool, options: &[u8]) -> Self {
        let mut bytes = [0; MAX_NAME + 3 + MAX_OPTIONS];
        let at = name.len().min(MAX_NAME);
        bytes[..at].copy_from_slice(&name[..at]);
        bytes[at..at + 2].copy_from_slice(&qtype);
        bytes[at + 2] = bits(dnssec_ok, checking_disabled);
        let end = at + 3 + options.len().min(MAX_OPTIONS);
        bytes[at + 3..end].copy_from_slice(&options[..end - at - 3]);
        Self { bytes, length: end }
    }

    /// Whether it is the key of an entry.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        // Name, type and class in the question; name, type, and the tail here.
        let Some((name_and_type, _)) = entry.answer.question().split_last_chunk::<2>() else { return false };
        let Some((mine, tail)) = self.as_bytes().split_at_checked(name_and_type.len()) else { return false };
        let fixed = mine.len().saturating_sub(2);
        // Lengths are below the letters, so they compare as they are.
        mine[..fixed].eq_ignore_ascii_case(&name_and_type[..fixed])
            && mine[fixed..] == name_and_type[fixed..]
            && tail.split_first() == Some((&entry.tail.bits, &*entry.tail.options))
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
