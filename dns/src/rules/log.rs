//! What is written to the log of queries and their answers.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use super::{domains, is_among};
use crate::{
    AnswerClass, ConfigError, LogRule,
    config::{COMBINED, COMMON},
    handler::{Client, Transport},
    metrics::rcode_name,
    name::{WireName, write_name},
    query::Query,
    wire::{Rcode, flag, u16_at},
};

/// A rule, ready for use.
#[derive(Debug)]
pub(super) struct Rule {
    zones: Vec<WireName>,
    format: Vec<Part>,
    classes: Vec<AnswerClass>,
    slower_than: Option<Duration>,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Word(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Name,
    Type,
    Class,
    Protocol,
    Client,
    Port,
    Size,
    Duration,
    Rcode,
    AnswerSize,
    Flags,
    Buffer,
    DnssecOk,
    Id,
    Opcode,
}

const WORDS: [(&str, Word); 15] = [
    ("name", Word::Name),
    ("type", Word::Type),
    ("class", Word::Class),
    ("proto", Word::Protocol),
    ("remote", Word::Client),
    ("port", Word::Port),
    ("size", Word::Size),
    ("duration", Word::Duration),
    ("rcode", Word::Rcode),
    ("rsize", Word::AnswerSize),
    (">rflags", Word::Flags),
    (">bufsize", Word::Buffer),
    (">do", Word::DnssecOk),
    (">id", Word::Id),
    (">opcode", Word::Opcode),
];

const FLAGS: [(u16, &str); 7] = [
    (flag::QR, "qr"),
    (flag::AA, "aa"),
    (flag::TC, "tc"),
    (flag::RD, "rd"),
    (flag::RA, "ra"),
    (flag::AD, "ad"),
    (flag::CD, "cd"),
];

impl Rule {
    pub(super) fn new(rule: &LogRule) -> Result<Self, ConfigError> {
        let format = rule.format.replace("{common}", COMMON).replace("{combined}", COMBINED);
        Ok(Self {
            zones: domains(&rule.zones)?,
            format: parts(&format).ok_or_else(|| ConfigError::LogFormat(rule.format.clone()))?,
            classes: rule.classes.clone(),
            slower_than: rule.slower_than,
        })
    }

    /// The line about an answer, if there is to be one.
    pub(super) fn line(
        &self,
        query: &Query<'_>,
        client: Client,
        answer: &[u8],
        took: Duration,
    ) -> Option<String> {
        if !is_among(&query.name, &self.zones) {
            return None;
        }
        let is_wanted = self.classes.is_empty()
            || self.classes.contains(&class_of(answer))
            || self.slower_than.is_some_and(|least| took > least);
        is_wanted.then(|| {
            let mut line = String::new();
            for part in &self.format {
                // A text grows without fail.
                let _ = part.write(query, client, answer, took, &mut line);
            }
            line
        })
    }
}

fn class_of(answer: &[u8]) -> AnswerClass {
    match (rcode(answer), u16_at(answer, 6)) {
        (0, Some(1..)) => AnswerClass::Success,
        (0, _) | (3, _) => AnswerClass::Denial,
        _ => AnswerClass::Error,
    }
}

fn rcode(answer: &[u8]) -> u16 {
    u16_at(answer, 2).map_or(Rcode::ServFail as u16, |flags| flags & 0xf)
}

fn parts(mut text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((before, after)) = text.split_once('{') {
        let (word, rest) = after.split_once('}')?;
        let (_, word) = WORDS.iter().find(|(name, _)| *name == word)?;
        parts.extend([Part::Text(before.to_owned()), Part::Word(*word)]);
        text = rest;
    }
    parts.push(Part::Text(text.to_owned()));
    Some(parts)
}

impl Part {
    fn write(
        &self,
        query: &Query<'_>,
        client: Client,
        answer: &[u8],
        took: Duration,
        line: &mut String,
    ) -> std::fmt::Result {
        let word = match self {
            Self::Text(text) => return line.write_str(text),
            Self::Word(word) => word,
        };
        match word {
            Word::Name => write_name(query.name.as_bytes(), line),
            Word::Type => write!(line, "{}", hickory_proto::rr::RecordType::from(query.qtype)),
            Word::Class => write!(line, "{}", hickory_proto::rr::DNSClass::from(query.qclass)),
            Word::Protocol => line.write_str(match client.transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            }),
            Word::Client => match client.address {
                IpAddr::V4(v4) => write!(line, "{v4}"),
                IpAddr::V6(v6) => write!(line, "[{v6}]"),
            },
            Word::Port => write!(line, "{}", client.port),
            Word::Size => write!(line, "{}", query.message.len()),
            Word::Duration => write!(line, "{:.9}s", took.as_secs_f64()),
            Word::Rcode => line.write_str(rcode_name(rcode(answer))),
            Word::AnswerSize => write!(line, "{}", answer.len()),
            Word::Flags => {
                let flags = u16_at(answer, 2).unwrap_or_default();
                let set: Vec<_> =
                    FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
                line.write_str(&set.join(","))
            }
            Word::Buffer => write!(line, "{}", query.edns.map_or(512, |edns| edns.udp_size)),
            Word::DnssecOk => write!(line, "{}", query.edns.is_some_and(|edns| edns.dnssec_ok)),
            Word::Id => write!(line, "{}", u16_at(query.message, 0).unwrap_or_default()),
            Word::Opcode => write!(line, "{}", u16_at(query.message, 2).unwrap_or_default() >> 11 & 0xf),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;
    use crate::{
        testing::{UDP, question},
        wire::HEADER,
    };

    /// The line of an answer of this code with so many records.
    fn told(rule: LogRule, name: &str, code: u8, records: u8) -> Option<String> {
        let message = question(name, RecordType::A);
        let query = Query::read(&message).unwrap();
        let mut answer = message.clone();
        answer[2] |= 0x84;
        answer[3] = code;
        answer[7] = records;
        assert!(answer.len() > HEADER);
        Rule::new(&rule).unwrap().line(&query, UDP, &answer, Duration::from_micros(37))
    }

    #[test]
    fn lines_are_as_coredns_writes_them() {
        assert_eq!(
            told(LogRule::default(), "www.example.org.", 0, 1).unwrap(),
            "127.0.0.1:4096 - 4660 \"A IN www.example.org. udp 33 false 512\" NOERROR qr,aa,rd 33 0.000037000s"
        );
        let own = LogRule { format: "{proto} Request: {name} {type} {>id}".to_owned(), ..LogRule::default() };
        assert_eq!(told(own, "a.test.", 3, 0).unwrap(), "udp Request: a.test. A 4660");
        let combined = LogRule { format: "{combined}".to_owned(), ..LogRule::default() };
        assert!(told(combined, "a.test.", 2, 0).unwrap().ends_with("SERVFAIL qr,aa,rd 24 0.000037000s 0"));
        let unknown = LogRule { format: "{local}".to_owned(), ..LogRule::default() };
        assert!(Rule::new(&unknown).is_err());
    }

    #[test]
    fn only_what_is_wanted_is_written() {
        use AnswerClass::{Denial, Error, Success};
        for (classes, code, records, wanted) in [
            (&[][..], 0, 1, true),
            (&[Success], 0, 1, true),
            (&[Success], 0, 0, false),
            (&[Denial], 0, 0, true),
            (&[Denial, Error], 3, 0, true),
            (&[Error], 3, 0, false),
            (&[Error], 5, 0, true),
        ] {
            let rule = LogRule { classes: classes.to_vec(), ..LogRule::default() };
            assert_eq!(
                told(rule, "a.test.", code, records).is_some(),
                wanted,
                "{classes:?} {code} {records}"
            );
        }
        let slow = |micros| LogRule {
            classes: vec![Error],
            slower_than: Some(Duration::from_micros(micros)),
            ..LogRule::default()
        };
        assert!(told(slow(10), "a.test.", 0, 1).is_some() && told(slow(100), "a.test.", 0, 1).is_none());
        let other = LogRule { zones: vec!["example.org".to_owned()], ..LogRule::default() };
        assert_eq!(told(other, "a.test.", 0, 1), None);
    }
}
