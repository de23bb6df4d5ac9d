//! By what answers are told apart.

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
        bytes[at + 2] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        let end = at + 3 + options.len().min(MAX_OPTIONS);
        bytes[at + 3..end].copy_from_slice(&options[..end - at - 3]);
        Self { bytes, length: end }
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
