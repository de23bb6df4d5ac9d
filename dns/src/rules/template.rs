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
    name::{WireName, write_name},
    query::Query,
    reply::{Reply, Section},
    wire::{self, Rcode},
};

/// The templates of a domain, ready for use.
#[derive(Debug)]
pub(super) struct Templates(Vec<Made>);

#[derive(Debug)]
struct Made {
    qtype: Option<u16>,
    zones: Vec<WireName>,
    matches: Vec<Regex>,
    records: Vec<(Section, Vec<Part>)>,
    rcode: Rcode,
    fallthrough: Option<Vec<WireName>>,
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
    pub(super) fn new(templates: &[Template]) -> Result<Self, ConfigError> {
        templates.iter().map(Made::new).collect::<Result<_, _>>().map(Self)
    }

    /// Writes what the first template that matches says; `None` where none does.
    pub(super) fn write(
        &self,
        query: &Query<'_>,
        scope: &WireName,
        client: IpAddr,
        reply: &mut Reply<'_>,
    ) -> Option<Said> {
        let mut name = String::new();
        for made in &self.0 {
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
            return Some(made.write(query, &name, zone, client, found.as_ref(), reply));
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
            .flat_map(|(section, texts)| texts.iter().map(move |text| Ok((section, parts(text)?))))
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
            fallthrough: template.fallthrough.as_ref().map(|zones| domains(zones)).transpose()?,
        })
    }

    fn write(
        &self,
        query: &Query<'_>,
        name: &str,
        zone: &WireName,
        client: IpAddr,
        found: Option<&Captures<'_>>,
        reply: &mut Reply<'_>,
    ) -> Said {
        let mut alias = None;
        let mut asked = String::new();
        let asked = write_name(&query.message[wire::HEADER..query.question_end - 4], &mut asked)
            .ok()
            .and_then(|()| Name::from_ascii(&asked).ok());
        for (section, parts) in &self.records {
            let text = fill(parts, query.qtype, name, zone, client, found);
            let Some(mut record) = record(&text) else {
                tracing::warn!(record = text, name, "the template gives no record");
                return Said::Complete(Rcode::ServFail);
            };
            // In the case asked for.
            if let Some(asked) = asked.as_ref().filter(|asked| record.name == **asked) {
                record.name = asked.clone();
            }
            if !reply.foreign(*section, &record) {
                break;
            }
            if let (Section::Answer, RData::CNAME(target)) = (section, &record.data) {
                alias = WireName::parse(&target.0.to_ascii()).filter(|_| query.qtype != wire::rtype::CNAME);
            }
        }
        alias.map_or(Said::Complete(self.rcode), Said::Alias)
    }
}

fn fill(
    parts: &[Part],
    qtype: u16,
    name: &str,
    zone: &WireName,
    client: IpAddr,
    found: Option<&Captures<'_>>,
) -> String {
    let group = |group: Option<regex::Match<'_>>| group.map_or("", |group| group.as_str()).to_owned();
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Name => name.to_owned(),
        Part::Zone => zone.to_string(),
        Part::Type => RecordType::from(qtype).to_string(),
        Part::Client => client.to_string(),
        // Without an expression, the whole name is the match.
        Part::Match(0) if found.is_none() => name.to_owned(),
        Part::Match(n) => group(found.and_then(|found| found.get(*n))),
        Part::Group(name) => group(found.and_then(|found| found.name(name))),
    };
    parts.iter().map(text).collect()
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
        parts.push(match words.as_slice() {
            [".Name"] => Part::Name,
            [".Zone"] => Part::Zone,
            [".Class"] => Part::Text("IN".to_owned()),
            [".Type"] => Part::Type,
            [".Remote"] => Part::Client,
            ["index", ".Match", n] => Part::Match(n.parse().map_err(|_| unknown())?),
            [group] => Part::Group(group.strip_prefix(".Group.").ok_or_else(unknown)?.to_owned()),
            _ => return Err(unknown()),
        });
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
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
        for bad in
            ["{{ .Message }}", "{{ parseInt .Group.a 16 8 }}", "{{ .Name", "{{ index .Match x }}", "{{ }}"]
        {
            assert!(parts(bad).is_err(), "{bad}");
        }
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
