//! By what answers are told apart.

use crate::{
    message::Question,
    query::Query,
    wire::{MAX_NAME, flag},
};

/// What tells answers apart: name, type, and whether DNSSEC records and no validation were asked for. The
/// class is always IN.
#[derive(Clone)]
pub(crate) struct Key {
    bytes: [u8; MAX_NAME + 3],
    length: usize,
}

impl Key {
    /// The key of a client's question.
    pub(crate) fn of(query: &Query<'_>) -> Self {
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        Self::new(query.name.as_bytes(), query.qtype.to_be_bytes(), dnssec_ok, query.flags & flag::CD != 0)
    }

    /// The key of a question to an upstream.
    pub(crate) fn of_question(question: &Question) -> Self {
        let (name, fixed) = question.wire.split_at(question.wire.len() - 4);
        let mut key = Self::new(name, [fixed[0], fixed[1]], question.dnssec_ok, question.checking_disabled);
        // Lengths are below the letters, so nothing but letters changes.
        key.bytes[..name.len()].make_ascii_lowercase();
        key
    }

    fn new(name: &[u8], qtype: [u8; 2], dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut bytes = [0; MAX_NAME + 3];
        let at = name.len().min(MAX_NAME);
        bytes[..at].copy_from_slice(&name[..at]);
        bytes[at..at + 2].copy_from_slice(&qtype);
        bytes[at + 2] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        Self { bytes, length: at + 3 }
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
