//! Answers made by a pattern.

use std::net::IpAddr;

use hickory_proto::{
    rr::{Name, RData, Record, RecordType},
    serialize::txt::Parser,
};
use regex::{Captures, Regex};

use super::{domains, is_below, regex};
use crate::{
    ConfigError, Template,
    metrics::RuleMetrics,
    name::{WireName, write_name},
    query::Query,
    reply::{Reply, Section},
    wire::{self, Rcode},
};

/// The templates of a domain, ready for use.
#[derive(Debug)]
pub(super) struct Templates {
    all: Vec<Made>,
    metrics: RuleMetrics,
}

#[derive(Debug)]
struct Made {
    qtype: Option<u16>,
    zones: Vec<WireName>,
    matches: Vec<Regex>,
    records: Vec<Line>,
    rcode: Rcode,
    error: Option<(u16, String)>,
    fallthrough: Option<Vec<WireName>>,
}

/// A record's text.
#[derive(Debug)]
struct Line {
    section: Section,
    text: String,
    parts: Vec<Part>,
}

/// A piece of a record's text.
#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Name,
    Zone,
    Type,
    Client,
    Match(usize),
    Group(String),
    /// What another piece is to this base, of so many bits at the most.
    Number(Box<Part>, u32, u32),
}

/// What of a query stands in records.
struct Matched<'q> {
    qtype: u16,
    name: &'q str,
    zone: String,
    client: IpAddr,
    found: Option<Captures<'q>>,
}

/// What a template says of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The answer is complete, with this code.
    Complete(Rcode),
    /// It ends with an alias of this name, whose records are to be added.
    Alias(WireName),
}

impl Templates {
    pub(super) fn new(templates: &[Template], metrics: &RuleMetrics) -> Result<Self, ConfigError> {
        let all = templates.iter().map(Made::new).collect::<Result<_, _>>()?;
        Ok(Self { all, metrics: metrics.clone() })
    }

    /// Writes what the first template that matches says; `None` where none does. `is_counted`: the query is.
    pub(super) fn write(
        &self,
        query: &Query<'_>,
        scope: &WireName,
        client: IpAddr,
        is_counted: bool,
        reply: &mut Reply<'_>,
    ) -> Option<Said> {
        let mut name = String::new();
        for made in &self.all {
            let zone = if made.zones.is_empty() {
                scope
            } else {
                let Some(zone) = made.zones.iter().find(|zone| is_below(&query.name, zone)) else { continue };
                zone
            };
            if made.qtype.is_some_and(|qtype| qtype != query.qtype) {
                continue;
            }
            if name.is_empty() {
                write_name(query.name.as_bytes(), &mut name).ok()?;
            }
            let found = made.matches.iter().find_map(|regex| regex.captures(&name));
            if found.is_none() && !made.matches.is_empty() {
                let zones = made.fallthrough.as_ref();
                if zones.is_some_and(|zones| super::is_among(&query.name, zones)) {
                    continue;
                }
                return Some(Said::Complete(Rcode::ServFail));
            }
            let matched = Matched { qtype: query.qtype, name: &name, zone: zone.to_string(), client, found };
            if is_counted {
                self.metrics.matched(&matched.zone, &matched.qtype());
            }
            return Some(made.write(query, &matched, &self.metrics, reply));
        }
        None
    }
}

impl Made {
    fn new(template: &Template) -> Result<Self, ConfigError> {
        let texts = [
            (Section::Answer, &template.answer),
            (Section::Authority, &template.authority),
            (Section::Additional, &template.additional),
        ];
        let records = texts
            .into_iter()
            .flat_map(|(section, texts)| texts.iter().map(move |text| (section, text)))
            .map(|(section, text)| Ok(Line { section, text: text.clone(), parts: parts(text)? }))
            .collect::<Result<_, ConfigError>>()?;
        let rcode = match template.rcode {
            0 => Rcode::NoError,
            1 => Rcode::FormErr,
            2 => Rcode::ServFail,
            3 => Rcode::NxDomain,
            4 => Rcode::NotImp,
            5 => Rcode::Refused,
            other => return Err(ConfigError::Rcode(other)),
        };
        Ok(Self {
            qtype: template.qtype.filter(|qtype| *qtype != wire::rtype::ANY),
            zones: domains(&template.zones)?,
            matches: template.matches.iter().map(|text| regex(text)).collect::<Result<_, _>>()?,
            records,
            rcode,
            error: template.error.clone(),
            fallthrough: template.fallthrough.as_ref().map(|zones| domains(zones)).transpose()?,
        })
    }

    fn write(
        &self,
        query: &Query<'_>,
        matched: &Matched<'_>,
        metrics: &RuleMetrics,
        reply: &mut Reply<'_>,
    ) -> Said {
        if let Some((code, text)) = &self.error {
            reply.explain(*code, text);
        }
        let mut alias = None;
        let mut asked = String::new();
        let asked = write_name(&query.message[wire::HEADER..query.question_end - 4], &mut asked)
            .ok()
            .and_then(|()| Name::from_ascii(&asked).ok());
        for line in &self.records {
            let text: Option<String> = line.parts.iter().map(|part| matched.fill(part)).collect();
            let Some(mut record) = text.as_ref().and_then(|text| record(text)) else {
                tracing::warn!(
                    record = text,
                    template = line.text,
                    name = matched.name,
                    "the template gives no record"
                );
                let section = match line.section {
                    Section::Answer => "answer",
                    Section::Authority => "authority",
                    Section::Additional => "additional",
                };
                metrics.bad_record(&matched.zone, &matched.qtype(), section, &line.text);
                return Said::Complete(Rcode::ServFail);
            };
            // In the case asked for.
            if let Some(asked) = asked.as_ref().filter(|asked| record.name == **asked) {
                record.name = asked.clone();
            }
            if !reply.foreign(line.section, &record) {
                break;
            }
            if let (Section::Answer, RData::CNAME(target)) = (line.section, &record.data) {
                alias = WireName::parse(&target.0.to_ascii()).filter(|_| query.qtype != wire::rtype::CNAME);
            }
        }
        alias.map_or(Said::Complete(self.rcode), Said::Alias)
    }
}

impl Matched<'_> {
    fn qtype(&self) -> String {
        RecordType::from(self.qtype).to_string()
    }

    /// What stands in the place of a piece; none where it is not the number that it should be.
    fn fill(&self, part: &Part) -> Option<String> {
        let found = self.found.as_ref();
        let group = |group: Option<regex::Match<'_>>| group.map_or("", |group| group.as_str()).to_owned();
        Some(match part {
            Part::Text(text) => text.clone(),
            Part::Name => self.name.to_owned(),
            Part::Zone => self.zone.clone(),
            Part::Type => self.qtype(),
            Part::Client => self.client.to_string(),
            // Without an expression, the whole name is the match.
            Part::Match(0) if found.is_none() => self.name.to_owned(),
            Part::Match(n) => group(found.and_then(|found| found.get(*n))),
            Part::Group(name) => group(found.and_then(|found| found.name(name))),
            Part::Number(part, base, bits) => {
                let number = u64::from_str_radix(&self.fill(part)?, *base).ok()?;
                (*bits == 0 || number >> (bits - 1) >> 1 == 0).then(|| number.to_string())?
            }
        })
    }
}

/// Reads a record's text, whose expressions stand in `{{ }}`.
fn parts(text: &str) -> Result<Vec<Part>, ConfigError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let unknown = || ConfigError::Template(text.to_owned());
        let (expression, after) = after.split_once("}}").ok_or_else(unknown)?;
        parts.push(Part::Text(before.to_owned()));
        let words: Vec<_> = expression.trim_matches('-').split_whitespace().collect();
        parts.push(part(&words).ok_or_else(unknown)?);
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// The words of an expression.
fn part(words: &[&str]) -> Option<Part> {
    Some(match words {
        [".Name"] => Part::Name,
        [".Zone"] => Part::Zone,
        [".Class"] => Part::Text("IN".to_owned()),
        [".Type"] => Part::Type,
        [".Remote"] => Part::Client,
        ["index", ".Match", n] => Part::Match(n.parse().ok()?),
        ["parseInt", of @ .., base, bits] => {
            // As in a shell, an expression of several words stands in parentheses.
            let of: Vec<_> = of.iter().map(|word| word.trim_matches(['(', ')'])).collect();
            let base = base.parse().ok().filter(|base| (2..=36).contains(base))?;
            Part::Number(Box::new(part(&of)?), base, bits.parse().ok().filter(|bits| *bits <= 64)?)
        }
        [group] => Part::Group(group.strip_prefix(".Group.")?.to_owned()),
        _ => return None,
    })
}

/// The one record of a zone file's line.
fn record(text: &str) -> Option<Record> {
    let (_, records) = Parser::new(format!("{text}\n"), None, Some(Name::root())).parse().ok()?;
    let mut all = records.values().flat_map(|set| set.records_without_rrsigs());
    let record = all.next()?.clone();
    all.next().is_none().then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_what_is_unknown_is_an_error() {
        assert_eq!(
            parts("{{ .Name }} 60 IN A 10.{{.Group.b}}.{{ index .Match 2 }}").unwrap()[1..],
            [
                Part::Name,
                Part::Text(" 60 IN A 10.".to_owned()),
                Part::Group("b".to_owned()),
                Part::Text(".".to_owned()),
                Part::Match(2),
                Part::Text(String::new())
            ]
        );
        assert_eq!(
            parts("{{ parseInt (index .Match 1) 16 8 }}").unwrap()[1],
            Part::Number(Box::new(Part::Match(1)), 16, 8)
        );
        for bad in [
            "{{ .Message }}",
            "{{ parseInt .Group.a 1 8 }}",
            "{{ parseInt .Group.a 16 }}",
            "{{ .Name",
            "{{ index .Match x }}",
            "{{ }}",
        ] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_to_their_base_and_bound() {
        let number = |text: &str, base, bits| {
            let matched = Matched {
                qtype: 1,
                name: text,
                zone: String::new(),
                client: [127, 0, 0, 1].into(),
                found: None,
            };
            matched.fill(&Part::Number(Box::new(Part::Name), base, bits))
        };
        assert_eq!(number("ff", 16, 8).as_deref(), Some("255"));
        assert_eq!(number("100", 16, 8), None);
        assert_eq!(number("100", 16, 0).as_deref(), Some("256"));
        assert_eq!(number("ffffffffffffffff", 16, 64).as_deref(), Some("18446744073709551615"));
        assert_eq!(number("x", 10, 8), None);
    }

    #[test]
    fn records_are_read_as_a_zone_file_has_them() {
        for (text, read) in [
            ("a.test. 60 IN A 192.0.2.1", Some("a.test. 60 IN A 192.0.2.1")),
            ("a.test 60 A 192.0.2.1", Some("a.test. 60 IN A 192.0.2.1")),
            ("a.test 60 IN CNAME b.test", Some("a.test. 60 IN CNAME b.test.")),
            (
                "a.test 60 IN SOA ns.a.test. admin.a.test. (1 60 120 86400 3600)",
                Some("a.test. 60 IN SOA ns.a.test. admin.a.test. 1 60 120 86400 3600"),
            ),
            ("a.test. 60 IN A", None),
            ("a.test. 60 IN A x", None),
            ("", None),
            ("a.test. 60 IN A 192.0.2.1\na.test. 60 IN A 192.0.2.2", None),
        ] {
            assert_eq!(record(text).map(|record| record.to_string()).as_deref(), read, "{text}");
        }
    }
}
