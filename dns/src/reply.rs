//! Writes an answer: the question as it was asked, records as far as they fit, EDNS where it was spoken.

use hickory_proto::{
    rr::Record,
    serialize::binary::{BinEncodable, BinEncoder},
};

use crate::{
    query::{Edns, Query},
    records::AddressSet,
    wire::{HEADER, QUESTION_POINTER, Rcode, flag},
};

/// Bytes of our OPT record.
pub(crate) const OPT: usize = 11;

/// The part of a message that a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// An answer being written. The question's name keeps the case in which it was asked, and so do the owners
/// that point to it.
pub(crate) struct Reply<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
    edns: Option<Edns>,
    udp_payload: u16,
    flags: u16,
    counts: [u16; 3],
    /// EDNS options of ours.
    options: Vec<u8>,
}

/// The option that explains an answer (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

impl<'o> Reply<'o> {
    /// Starts an answer of at most `limit` bytes. `flags` are added to those that follow from the query;
    /// `udp_payload` is what we say we take.
    pub(crate) fn new(
        query: &Query<'_>,
        out: &'o mut Vec<u8>,
        limit: usize,
        udp_payload: u16,
        flags: u16,
    ) -> Self {
        out.clear();
        out.extend(&query.message[..2]);
        out.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(&query.message[HEADER..query.question_end]);
        let flags = flag::QR | query.flags & (flag::RD | flag::CD) | flags;
        let limit = if query.edns.is_some() { limit - OPT } else { limit };
        Self { out, limit, edns: query.edns, udp_payload, flags, counts: [0; 3], options: Vec::new() }
    }

    /// A compression pointer to what will stand `ahead` bytes after the end; none where pointers do not reach.
    pub(crate) fn pointer(&self, ahead: usize) -> Option<u16> {
        u16::try_from(self.out.len() + ahead).ok().filter(|at| *at < 0x4000).map(|at| 0xc000 | at)
    }

    /// Whether a record of this length fits.
    pub(crate) fn fits(&self, length: usize) -> bool {
        self.out.len() + length <= self.limit
    }

    /// Explains the answer to clients that speak EDNS, before anything else is added; what does not fit is left out.
    pub(crate) fn explain(&mut self, code: u16, text: &str) {
        let length = 4 + 2 + text.len();
        if self.edns.is_none() || !self.fits(length) {
            return;
        }
        self.limit -= length;
        for number in [EXTENDED_ERROR, 2 + text.len() as u16, code] {
            self.options.extend(number.to_be_bytes());
        }
        self.options.extend(text.as_bytes());
    }

    /// Adds one record, which `write` appends whole. False where it does not fit: then the answer is marked
    /// truncated, unless it is only additional.
    pub(crate) fn record(&mut self, section: Section, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.try_record(section, |out| {
            write(out);
            true
        })
    }

    /// Adds one record that may be left out of any section, and is where it does not fit.
    pub(crate) fn extra(&mut self, section: Section, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let flags = self.flags;
        let written = self.record(section, write);
        self.flags = flags;
        written
    }

    /// Takes a flag back.
    pub(crate) fn clear(&mut self, flag: u16) {
        self.flags &= !flag;
    }

    /// Adds one record of another server. False where it does not fit or cannot be written.
    pub(crate) fn foreign(&mut self, section: Section, record: &Record) -> bool {
        self.try_record(section, |out| {
            // From here on, so that names point into this message.
            let start = out.len() as u32;
            record.emit(&mut BinEncoder::with_offset(out, start)).is_ok()
        })
    }

    fn try_record(&mut self, section: Section, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.out.len();
        if !write(self.out) || self.out.len() > self.limit {
            self.out.truncate(start);
            if section != Section::Additional {
                self.flags |= flag::TC;
            }
            return false;
        }
        self.counts[section as usize] += 1;
        true
    }

    /// Adds address records as answers, from the `first`th on, as many as fit; their owner is the name that
    /// `owner` points to.
    pub(crate) fn addresses(&mut self, set: &AddressSet, owner: u16, first: usize) {
        if owner == QUESTION_POINTER && set.as_bytes().len() + self.out.len() <= self.limit {
            // The common case: all of them, as they stand.
            let start = self.out.len();
            self.out.extend(set.as_bytes());
            let middle = first * set.as_bytes().len() / set.count().max(1);
            self.out[start..].rotate_left(middle);
            self.counts[0] += set.count() as u16;
            return;
        }
        for record in set.rotated(first) {
            let written = self.record(Section::Answer, |out| {
                out.extend(owner.to_be_bytes());
                out.extend(&record[2..]);
            });
            if !written {
                break;
            }
        }
    }

    /// Ends the answer with a response code.
    pub(crate) fn finish(mut self, rcode: Rcode) {
        if let Some(edns) = self.edns {
            push_opt(self.out, self.udp_payload, rcode as u16, edns.dnssec_ok);
            // The length of what is in it stands at its end.
            let at = self.out.len() - 2;
            self.out[at..].copy_from_slice(&(self.options.len() as u16).to_be_bytes());
            self.out.extend(&self.options);
        }
        self.flags |= rcode as u16 & 0xf;
        self.out[2..4].copy_from_slice(&self.flags.to_be_bytes());
        let [answers, authority, additional] = self.counts;
        let additional = additional + u16::from(self.edns.is_some());
        for (at, count) in [(6, answers), (8, authority), (10, additional)] {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// Appends an OPT record of ours.
pub(crate) fn push_opt(out: &mut Vec<u8>, udp_payload: u16, rcode: u16, dnssec_ok: bool) {
    out.extend([0, 0, 41]);
    out.extend(udp_payload.to_be_bytes());
    out.extend([(rcode >> 4) as u8, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
}

/// Writes an answer to a message that was not understood: its id, what of its flags may be told back, and
/// its question where it has one that can be read.
pub(crate) fn bare(message: &[u8], rcode: Rcode, udp_payload: u16, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = message.get(..HEADER) else { return };
    let question_end = crate::query::QueryName::read(message, HEADER)
        .map(|(_, at)| at + 4)
        .filter(|end| *end <= message.len() && header[4..6] == [0, 1]);
    out.extend(&header[..2]);
    // The opcode, RD and CD are the client's.
    let asked = u16::from_be_bytes([header[2], header[3]]);
    let flags = flag::QR | asked & (0x7800 | flag::RD | flag::CD) | rcode as u16 & 0xf;
    out.extend(flags.to_be_bytes());
    out.extend([0, u8::from(question_end.is_some()), 0, 0, 0, 0, 0, 0]);
    if let Some(end) = question_end {
        out.extend(&message[HEADER..end]);
    }
    if rcode as u16 > 15 {
        out[11] = 1;
        push_opt(out, udp_payload, rcode as u16, false);
    }
}
