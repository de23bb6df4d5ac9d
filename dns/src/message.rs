//! Answers of other servers: checked when they come, kept as they are, handed to a client with its own
//! question, time to live, EDNS and size.

mod arrange;
mod rotate;

pub(crate) use arrange::{Address, arrange, cut};
pub(crate) use rotate::rotate;

use crate::{
    query::Query,
    reply::{OPT, push_opt},
    wire::{HEADER, Rcode, flag, record_at, rtype, skip_name, u16_at, u32_at},
};

/// A question as it goes to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The name, type and class as in a message, the name in the case asked for.
    pub(crate) wire: Box<[u8]>,
    /// DNSSEC records are wanted.
    pub(crate) dnssec_ok: bool,
    /// The upstream shall not validate.
    pub(crate) checking_disabled: bool,
    /// The upstream shall ask others.
    pub(crate) recursion: bool,
    /// EDNS options that rules have given.
    pub(crate) options: Box<[u8]>,
}

impl Question {
    /// What a client asks.
    pub(crate) fn of(query: &Query<'_>) -> Self {
        Self {
            wire: query.message[HEADER..query.question_end].into(),
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query.flags & flag::CD != 0,
            recursion: true,
            options: query.options.into(),
        }
    }

    /// The same about another name (wire form).
    pub(crate) fn about(&self, name: &[u8]) -> Self {
        let fixed = self.wire.len() - 4;
        Self { wire: [name, &self.wire[fixed..]].concat().into(), ..self.clone() }
    }

    /// The query that asks it.
    pub(crate) fn message(&self, id: u16, edns: Option<u16>) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.wire.len() + OPT);
        out.extend(id.to_be_bytes());
        let flags =
            if self.recursion { flag::RD } else { 0 } | if self.checking_disabled { flag::CD } else { 0 };
        out.extend(flags.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
        out.extend(&self.wire);
        if let Some(size) = edns {
            push_opt(&mut out, size, 0, self.dnssec_ok);
            // The length of what is in it stands at its end.
            let at = out.len() - 2;
            out[at..].copy_from_slice(&(self.options.len() as u16).to_be_bytes());
            out.extend(&self.options);
        }
        out
    }

    /// The same name in whatever case, type and class.
    fn is_asked_by(&self, wire: &[u8]) -> bool {
        // The lengths between the labels are no letters, so they compare as they are.
        let fixed = self.wire.len() - 4;
        wire.len() == self.wire.len()
            && wire[..fixed].eq_ignore_ascii_case(&self.wire[..fixed])
            && wire[fixed..] == self.wire[fixed..]
    }
}

/// An upstream's answer, without its OPT record. One piece of memory, for a cache holds thousands of them.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The message, and after it the offsets of the records' times to live in it, in order, two bytes each.
    bytes: Box<[u8]>,
    length: u16,
    question_end: u16,
    rcode: u16,
}

/// What comes of a message that an upstream sent.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Not the answer to this question: somebody else's, forged or garbled.
    Foreign,
    /// Cut short: ask again over TCP. What is there of it, if those are whole records.
    Truncated(Option<Answer>),
    /// The upstream does not know EDNS: ask again without.
    NoEdns,
    /// The answer.
    Answer(Answer),
}

impl Answer {
    /// Checks a message against the question it should answer.
    pub(crate) fn read(mut message: Vec<u8>, id: u16, question: &Question, edns: bool) -> Reading {
        let parsed = Self::parse(&message, id, question);
        let Some((flags, records, opt)) = parsed else { return Reading::Foreign };
        let mut rcode = flags & 0xf;
        let is_truncated = flags & flag::TC != 0;
        if is_truncated && records.len() != records_in(&message) {
            return Reading::Truncated(None);
        }
        if edns && opt.is_none() && matches!(rcode, 1 | 4) {
            return Reading::NoEdns;
        }
        let mut ttls_at: Vec<u16> = records.iter().map(|at| *at as u16).collect();
        if let Some((start, end, place, extended)) = opt {
            rcode |= extended << 4;
            ttls_at.remove(place);
            // Pointers only lead backwards, and no name in or after an OPT is pointed to in practice; an
            // OPT that is not the last record is cut out all the same, for the offsets after it move alike.
            if end != message.len() && place < ttls_at.len() {
                for at in &mut ttls_at[place..] {
                    *at -= (end - start) as u16;
                }
            }
            message.drain(start..end);
            let additional = u16_at(&message, 10).unwrap_or(1) - 1;
            message[10..12].copy_from_slice(&additional.to_be_bytes());
        }
        // A message is never longer, and a question never half as long.
        let (length, question_end) = (message.len() as u16, (HEADER + question.wire.len()) as u16);
        message.reserve_exact(2 * ttls_at.len());
        message.extend(ttls_at.into_iter().flat_map(u16::to_be_bytes));
        let answer = Self { bytes: message.into(), length, question_end, rcode };
        if is_truncated { Reading::Truncated(Some(answer)) } else { Reading::Answer(answer) }
    }

    /// The flags, the offset of each record's time to live, and the OPT record: its start, its end, its
    /// place among the records, and the high bits of the response code.
    fn parse(
        message: &[u8],
        id: u16,
        question: &Question,
    ) -> Option<(u16, Vec<usize>, Option<(usize, usize, usize, u16)>)> {
        let flags = u16_at(message, 2)?;
        if u16_at(message, 0)? != id
            || flags & flag::QR == 0
            || flags & 0x7800 != 0
            || u16_at(message, 4)? != 1
        {
            return None;
        }
        let end = skip_name(message, HEADER)? + 4;
        if !question.is_asked_by(message.get(HEADER..end)?) {
            return None;
        }
        let total = records_in(message);
        let before = total - usize::from(u16_at(message, 10)?);
        let mut at = end;
        let mut ttls_at = Vec::with_capacity(total.min(64));
        let mut opt = None;
        for place in 0..total {
            let Some(record) = record_at(message, at) else {
                // A server that cuts an answer in the middle of a record says so.
                return (flags & flag::TC != 0).then_some((flags, ttls_at, None));
            };
            if record.rtype == rtype::OPT {
                if place < before || opt.is_some() {
                    return None;
                }
                let extended = u32_at(message, record.ttl_at)? >> 24;
                opt = Some((record.start, record.end, place, extended as u16));
            }
            ttls_at.push(record.ttl_at);
            at = record.end;
        }
        Some((flags, ttls_at, opt))
    }

    /// The response code, its high bits included.
    pub(crate) fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Whether it has no answer records.
    pub(crate) fn is_empty(&self) -> bool {
        u16_at(self.message(), 6) == Some(0)
    }

    /// Whether it is a part of what the upstream has to say.
    pub(crate) fn is_truncated(&self) -> bool {
        u16_at(self.message(), 2).is_some_and(|flags| flags & flag::TC != 0)
    }

    /// Whether it says that something is not there, or failed.
    pub(crate) fn is_denial(&self) -> bool {
        self.rcode != 0 || self.is_empty()
    }

    /// Whether it has what was asked for: a record of the type.
    pub(crate) fn is_positive(&self) -> bool {
        let message = self.message();
        let wanted = self.question().split_last_chunk::<4>().and_then(|(_, fixed)| u16_at(fixed, 0));
        let answers = usize::from(u16_at(message, 6).unwrap_or_default());
        let mut types = self.ttls_at().take(answers).map(|at| u16_at(message, at - 4));
        self.rcode == 0 && types.any(|rtype| rtype == wanted || wanted == Some(rtype::ANY))
    }

    /// The least time to live of its records; 0 without records.
    pub(crate) fn min_ttl(&self) -> u32 {
        self.ttls_at().filter_map(|at| u32_at(self.message(), at)).min().unwrap_or(0)
    }

    /// How long a denial may be kept (RFC 2308, 5): by its SOA record; 0 without.
    pub(crate) fn negative_ttl(&self) -> u32 {
        let message = self.message();
        let soa = self.ttls_at().find(|at| u16_at(message, at - 4) == Some(rtype::SOA));
        let ttls = soa.and_then(|at| {
            let end = at + 6 + usize::from(u16_at(message, at + 4)?);
            Some(u32_at(message, at)?.min(u32_at(message, end.checked_sub(4)?)?))
        });
        ttls.unwrap_or(0)
    }

    /// The message, without OPT, as the upstream sent it.
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Its question, in the case in which it was asked first.
    pub(crate) fn question(&self) -> &[u8] {
        &self.bytes[HEADER..usize::from(self.question_end)]
    }

    /// The offsets of the records' times to live, in order.
    fn ttls_at(&self) -> impl Iterator<Item = usize> + '_ {
        let offsets = self.bytes[usize::from(self.length)..].chunks_exact(2);
        offsets.map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])))
    }

    /// The memory it takes, roughly.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Writes it for a client: at most `limit` bytes, all times to live as given, if they are.
    pub(crate) fn write(
        &self,
        query: &Query<'_>,
        ttl: Option<u32>,
        limit: usize,
        udp_payload: u16,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let message = self.message();
        let after_question = &message[usize::from(self.question_end)..];
        let theirs = u16_at(message, 2).unwrap_or_default();
        let wants_ad = query.flags & flag::AD != 0 || query.edns.is_some_and(|edns| edns.dnssec_ok);
        let rcode = match (self.rcode, query.edns) {
            (code, None) if code > 15 => Rcode::ServFail as u16,
            (code, _) => code,
        };
        let mut flags = flag::QR | flag::RA | query.flags & (flag::RD | flag::CD) | rcode & 0xf;
        flags |= theirs & flag::TC;
        if wants_ad {
            flags |= theirs & flag::AD;
        }
        out.extend(&query.message[..2]);
        out.extend([0; 2]);
        out.extend(&message[4..HEADER]);
        out.extend(&query.message[HEADER..query.question_end]);
        let limit = if query.edns.is_some() { limit - OPT } else { limit };
        if out.len() + after_question.len() <= limit {
            out.extend(after_question);
        } else {
            flags |= self.write_part(limit, out);
        }
        if let Some(ttl) = ttl {
            for at in self.ttls_at() {
                if let Some(place) = out.get_mut(at..at + 4) {
                    place.copy_from_slice(&ttl.to_be_bytes());
                }
            }
        }
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        if let Some(edns) = query.edns {
            let additional = u16_at(out, 10).unwrap_or_default() + 1;
            out[10..12].copy_from_slice(&additional.to_be_bytes());
            push_opt(out, udp_payload, rcode, edns.dnssec_ok);
        }
    }

    /// Writes the records that fit and their counts; gives TC where one of the answers or of the authority
    /// is missing.
    fn write_part(&self, limit: usize, out: &mut Vec<u8>) -> u16 {
        let message = self.message();
        let question_end = usize::from(self.question_end);
        let mut at = question_end;
        let mut missing = 0;
        for (n, count_at) in [6, 8, 10].into_iter().enumerate() {
            let wanted = u16_at(message, count_at).unwrap_or_default();
            let mut written = 0_u16;
            while written < wanted && missing == 0 {
                match record_at(message, at).filter(|record| record.end <= limit) {
                    Some(record) => at = record.end,
                    None => break,
                }
                written += 1;
            }
            if written < wanted && n < 2 {
                missing = flag::TC;
            }
            out[count_at..count_at + 2].copy_from_slice(&written.to_be_bytes());
        }
        out.extend(&message[question_end..at]);
        missing
    }
}

/// How many records a message says it has.
fn records_in(message: &[u8]) -> usize {
    [6, 8, 10].into_iter().filter_map(|at| u16_at(message, at)).map(usize::from).sum()
}

#[cfg(test)]
mod tests;
