//! Reads a query: as much of a message as decides the answer, and not a byte beyond its end.

use crate::wire::{self, HEADER, MAX_LABEL, MAX_NAME, Rcode, flag, rtype, u16_at};

/// The name asked for: in lower case for looking it up, and where its labels are.
#[derive(Clone)]
pub(crate) struct QueryName {
    wire: [u8; MAX_NAME],
    length: u8,
    starts: [u8; 127],
    labels: u8,
}

impl QueryName {
    /// Reads an uncompressed name at `at` of `message`; with it the offset after it.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self { wire: [0; MAX_NAME], length: 0, starts: [0; 127], labels: 0 };
        let mut end = 0;
        loop {
            let length = usize::from(*message.get(at + end)?);
            if length == 0 {
                break;
            }
            let label = (length <= MAX_LABEL).then(|| message.get(at + end + 1..at + end + 1 + length))??;
            let to = name.wire.get_mut(end + 1..end + 1 + length)?;
            for (to, from) in to.iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
            }
            name.wire[end] = length as u8;
            *name.starts.get_mut(usize::from(name.labels))? = end as u8;
            name.labels += 1;
            end += 1 + length;
        }
        (end < MAX_NAME).then(|| name.length = end as u8 + 1)?;
        Some((name, at + end + 1))
    }

    /// The whole name in wire form, lower case.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.wire[..usize::from(self.length)]
    }

    /// How many labels it has, the root not counted.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.labels)
    }

    /// The `n`th label from the left, without its length.
    pub(crate) fn label(&self, n: usize) -> &[u8] {
        let start = usize::from(self.starts[n]);
        &self.wire[start + 1..start + 1 + usize::from(self.wire[start])]
    }

    /// The name that the labels from the `n`th on make.
    pub(crate) fn from(&self, n: usize) -> &[u8] {
        &self.wire[self.start(n)..usize::from(self.length)]
    }

    /// The labels from the `n`th up to the `end`th, without a final zero.
    pub(crate) fn labels(&self, n: usize, end: usize) -> &[u8] {
        &self.wire[self.start(n)..self.start(end)]
    }

    /// Where the `n`th label starts within the name; the final zero for the number of labels.
    pub(crate) fn start(&self, n: usize) -> usize {
        if n < self.count() { usize::from(self.starts[n]) } else { usize::from(self.length) - 1 }
    }

    /// The labels from the right to the left.
    pub(crate) fn rev_labels(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count()).rev().map(|n| self.label(n))
    }

    /// How many labels stand before `suffix` (wire form, lower case), if the name ends with it.
    pub(crate) fn labels_before(&self, suffix: &[u8]) -> Option<usize> {
        let start = usize::from(self.length).checked_sub(suffix.len())?;
        if self.as_bytes()[start..] != *suffix {
            return None;
        }
        (0..=self.count()).find(|n| self.start(*n) == start)
    }
}

impl std::fmt::Debug for QueryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::name::write_name(self.as_bytes(), f)
    }
}

/// What the client said of itself in an OPT record (RFC 6891).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edns {
    /// The largest UDP message it takes.
    pub(crate) udp_size: u16,
    /// It wants DNSSEC records.
    pub(crate) dnssec_ok: bool,
}

/// A well-formed query.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    /// The message.
    pub(crate) message: &'a [u8],
    /// Its header flags.
    pub(crate) flags: u16,
    /// The name asked for.
    pub(crate) name: QueryName,
    /// The type asked for.
    pub(crate) qtype: u16,
    /// The class asked for.
    pub(crate) qclass: u16,
    /// The offset after the question.
    pub(crate) question_end: usize,
    /// EDNS, where the client speaks it.
    pub(crate) edns: Option<Edns>,
    /// The client's EDNS options, as they stand in the message.
    pub(crate) client_options: &'a [u8],
    /// EDNS options for upstreams, which rules have given.
    pub(crate) options: &'a [u8],
}

/// A message that is not answered by looking something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No answer at all: too short, or itself an answer.
    Silence,
    /// An answer that only carries a code.
    Code(Rcode),
}

impl<'a> Query<'a> {
    /// Reads a message.
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let (Some(flags), true) = (u16_at(message, 2), message.len() >= HEADER) else {
            return Err(Refusal::Silence);
        };
        if flags & flag::QR != 0 {
            return Err(Refusal::Silence);
        }
        if flags & 0x7800 != 0 {
            return Err(Refusal::Code(Rcode::NotImp));
        }
        Self::read_sections(message, flags).ok_or(Refusal::Code(Rcode::FormErr))?
    }

    /// The part after the header; `None` where it is malformed.
    fn read_sections(message: &'a [u8], flags: u16) -> Option<Result<Self, Refusal>> {
        let count = |at| u16_at(message, at);
        let (questions, answers, authority, additional) = (count(4)?, count(6)?, count(8)?, count(10)?);
        // One question and nothing told; an IXFR's or a NOTIFY's records never get here. Two additional
        // records are an OPT and a signature.
        if questions != 1 || answers != 0 || authority > 1 || additional > 2 {
            return None;
        }
        let (name, at) = QueryName::read(message, HEADER)?;
        let (qtype, qclass, question_end) = (u16_at(message, at)?, u16_at(message, at + 2)?, at + 4);
        let mut edns = None;
        let mut client_options = &[][..];
        let mut version = 0;
        let mut at = question_end;
        for n in 0..authority + additional {
            let record = wire::record_at(message, at)?;
            if record.rtype == rtype::OPT && n >= authority {
                // A second OPT, or one with an owner, is malformed (RFC 6891, 6.1.1 and 6.1.2).
                if edns.is_some() || message[record.start] != 0 {
                    return None;
                }
                let bits = wire::u32_at(message, record.ttl_at)?;
                version = bits >> 16 & 0xff;
                client_options = message.get(record.ttl_at + 6..record.end)?;
                edns = Some(Edns { udp_size: record.class, dnssec_ok: bits & 0x8000 != 0 });
            }
            at = record.end;
        }
        if version != 0 {
            return Some(Err(Refusal::Code(Rcode::BadVers)));
        }
        let options = &[];
        Some(Ok(Self { message, flags, name, qtype, qclass, question_end, edns, client_options, options }))
    }

    /// Whether the client has said something in an option of this code.
    pub(crate) fn has_option(&self, code: u16) -> bool {
        let mut rest = self.client_options;
        while let Some((&[a, b, c, d], after)) = rest.split_first_chunk() {
            if u16::from_be_bytes([a, b]) == code {
                return true;
            }
            rest = after.get(usize::from(u16::from_be_bytes([c, d]))..).unwrap_or_default();
        }
        false
    }

    /// The largest answer the client takes over UDP.
    pub(crate) fn udp_limit(&self, ours: u16) -> usize {
        usize::from(self.edns.map_or(512, |edns| edns.udp_size.max(512)).min(ours.max(512)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query with the given counts and the bytes after the header.
    fn message(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34];
        message.extend(flags.to_be_bytes());
        message.extend(counts.into_iter().flat_map(u16::to_be_bytes));
        message.extend(rest);
        message
    }

    const QUESTION: &[u8] = b"\x03WeB\x05local\0\0\x01\0\x01";

    #[test]
    fn a_plain_query_is_read() {
        let message = message(flag::RD, [1, 0, 0, 0], QUESTION);
        let query = Query::read(&message).unwrap();
        assert_eq!(query.name.as_bytes(), b"\x03web\x05local\0");
        assert_eq!((query.qtype, query.qclass, query.question_end), (rtype::A, 1, message.len()));
        assert_eq!(query.name.label(0), b"web");
        assert_eq!(query.name.labels_before(b"\x05local\0"), Some(1));
        assert_eq!(query.name.labels_before(b"\x03cal\0"), None);
        assert_eq!(query.udp_limit(1232), 512);
    }

    #[test]
    fn edns_says_how_much_fits() {
        for (size, limit) in [(0_u16, 512), (512, 512), (1000, 1000), (4096, 1232)] {
            let mut rest = QUESTION.to_vec();
            rest.extend([0, 0, 41]);
            rest.extend(size.to_be_bytes());
            rest.extend([0, 0, 0x80, 0, 0, 0]);
            let message = message(0, [1, 0, 0, 1], &rest);
            let query = Query::read(&message).unwrap();
            assert!(query.edns.unwrap().dnssec_ok);
            assert_eq!(query.udp_limit(1232), limit);
        }
    }

    #[test]
    fn what_is_not_a_query_gets_the_code_the_rfcs_name() {
        let with = |rest: &[u8]| [QUESTION, rest].concat();
        let opt = b"\0\0\x29\x10\0\0\0\0\0\0\0";
        let long_name = [&[63_u8; 256][..], b"\0\0\x01\0\x01"].concat();
        for (what, message, refusal) in [
            ("empty", Vec::new(), Refusal::Silence),
            ("cut header", vec![0; 11], Refusal::Silence),
            ("an answer", message(flag::QR, [1, 0, 0, 0], QUESTION), Refusal::Silence),
            ("notify", message(0x2000, [1, 0, 0, 0], QUESTION), Refusal::Code(Rcode::NotImp)),
            ("update", message(0x2800, [1, 0, 0, 0], QUESTION), Refusal::Code(Rcode::NotImp)),
            ("status", message(0x1000, [1, 0, 0, 0], QUESTION), Refusal::Code(Rcode::NotImp)),
            ("no question", message(0, [0, 0, 0, 0], b""), Refusal::Code(Rcode::FormErr)),
            ("two questions", message(0, [2, 0, 0, 0], &with(QUESTION)), Refusal::Code(Rcode::FormErr)),
            ("cut question", message(0, [1, 0, 0, 0], &QUESTION[..6]), Refusal::Code(Rcode::FormErr)),
            ("cut class", message(0, [1, 0, 0, 0], &QUESTION[..14]), Refusal::Code(Rcode::FormErr)),
            ("answers", message(0, [1, 1, 0, 0], QUESTION), Refusal::Code(Rcode::FormErr)),
            ("missing OPT", message(0, [1, 0, 0, 1], QUESTION), Refusal::Code(Rcode::FormErr)),
            (
                "two OPTs",
                message(0, [1, 0, 0, 2], &with(&[&opt[..], opt].concat())),
                Refusal::Code(Rcode::FormErr),
            ),
            (
                "named OPT",
                message(0, [1, 0, 0, 1], &with(b"\x01a\0\0\x29\x10\0\0\0\0\0\0\0")),
                Refusal::Code(Rcode::FormErr),
            ),
            (
                "EDNS 1",
                message(0, [1, 0, 0, 1], &with(b"\0\0\x29\x10\0\0\x01\0\0\0\0")),
                Refusal::Code(Rcode::BadVers),
            ),
            ("pointer", message(0, [1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01"), Refusal::Code(Rcode::FormErr)),
            ("long name", message(0, [1, 0, 0, 0], &long_name), Refusal::Code(Rcode::FormErr)),
        ] {
            assert_eq!(Query::read(&message).err(), Some(refusal), "{what}");
        }
    }

    #[test]
    fn the_longest_name_is_read() {
        let mut rest: Vec<u8> = [1, b'a'].repeat(127);
        rest.extend(b"\0\0\x01\0\x01");
        let message = message(0, [1, 0, 0, 0], &rest);
        let query = Query::read(&message).unwrap();
        assert_eq!((query.name.count(), query.name.as_bytes().len()), (127, 255));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(message in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Query::read(&message);
        }

        #[test]
        fn no_bytes_after_a_good_header_panic(rest in proptest::collection::vec(any::<u8>(), 0..400), extra in 0_u16..3) {
            let _ = Query::read(&message(0, [1, 0, 0, extra], &rest));
        }
    }
}
