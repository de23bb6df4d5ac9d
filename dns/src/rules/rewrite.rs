//! Names that are answered as others.

use hickory_proto::{
    op::Message,
    rr::{Name, Record},
};
use regex::Regex;

use super::regex;
use crate::{
    ConfigError, NameMatch, Rewrite,
    message::Question,
    name::{WireName, write_name},
    query::Query,
    reply,
    wire::{HEADER, Rcode},
};

/// The rules, ready for use.
#[derive(Debug)]
pub(super) struct Rewriter(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    matches: Matcher,
    to: String,
    answers: Vec<(Regex, String)>,
    and_on: bool,
}

#[derive(Debug)]
enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

/// Turns an answer to the rewritten query into one to the query that came.
pub(crate) struct Restore<'r> {
    rewritten: Name,
    rules: Vec<&'r Rule>,
}

impl Rewriter {
    pub(super) fn new(rewrites: &[Rewrite]) -> Result<Self, ConfigError> {
        rewrites.iter().map(Rule::new).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn rewrite(&self, query: &Query<'_>) -> Option<(Vec<u8>, Restore<'_>)> {
        if self.0.is_empty() {
            return None;
        }
        let mut name = String::new();
        write_name(query.name.as_bytes(), &mut name).ok()?;
        let mut rules = Vec::new();
        for rule in &self.0 {
            let Some(next) = rule.apply(&name) else { continue };
            name = next;
            rules.push(rule);
            if !rule.and_on {
                break;
            }
        }
        if rules.is_empty() {
            return None;
        }
        // A name that is none is not put in the place of one.
        let wire = WireName::parse(&name)?;
        let question = Question::of(query).about(wire.as_bytes());
        let message =
            [&query.message[..HEADER], &question.wire, &query.message[query.question_end..]].concat();
        let restore = Restore { rewritten: Name::from_ascii(wire.to_string()).ok()?, rules };
        Some((message, restore))
    }
}

impl Rule {
    fn new(rewrite: &Rewrite) -> Result<Self, ConfigError> {
        let from = rewrite.from.to_ascii_lowercase();
        Ok(Self {
            matches: match rewrite.matches {
                NameMatch::Exact => Matcher::Exact(dotted(&from)),
                NameMatch::Prefix => Matcher::Prefix(from),
                NameMatch::Suffix => Matcher::Suffix(dotted(&from)),
                NameMatch::Substring => Matcher::Substring(from),
                NameMatch::Regex => Matcher::Regex(regex(&rewrite.from)?),
            },
            to: rewrite.to.to_ascii_lowercase(),
            answers: rewrite
                .answers
                .iter()
                .map(|(from, to)| Ok((regex(from)?, to.clone())))
                .collect::<Result<_, ConfigError>>()?,
            and_on: rewrite.and_on,
        })
    }

    /// The name in the place of this one, if the rule is about it.
    fn apply(&self, name: &str) -> Option<String> {
        match &self.matches {
            Matcher::Exact(from) => (name == from).then(|| self.to.clone()),
            Matcher::Prefix(from) => Some(format!("{}{}", self.to, name.strip_prefix(from.as_str())?)),
            Matcher::Suffix(from) => {
                Some(format!("{}{}", name.strip_suffix(from.as_str())?, dotted(&self.to)))
            }
            Matcher::Substring(from) => {
                name.contains(from.as_str()).then(|| name.replace(from.as_str(), &self.to))
            }
            Matcher::Regex(from) => replaced(from, &self.to, name),
        }
    }
}

/// CoreDNS compares regular expressions with the name without its final dot, so both forms are tried.
fn replaced(from: &Regex, to: &str, name: &str) -> Option<String> {
    let found = from.captures(name).or_else(|| from.captures(name.strip_suffix('.')?))?;
    let mut out = to.to_owned();
    for (n, group) in found.iter().enumerate() {
        out = out.replace(&format!("{{{n}}}"), group.map_or("", |group| group.as_str()));
    }
    Some(out)
}

fn dotted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

impl Restore<'_> {
    /// Puts the name asked for into an answer of at most `limit` bytes.
    pub(crate) fn restore(&self, query: &Query<'_>, limit: usize, udp_payload: u16, out: &mut Vec<u8>) {
        if self.try_restore(query, limit, out).is_none() {
            reply::bare(query.message, Rcode::ServFail, udp_payload, out);
        }
    }

    fn try_restore(&self, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> Option<()> {
        let mut message = Message::from_vec(out).ok()?;
        // In the case asked for, which only the query has.
        message.queries = Message::from_vec(query.message).ok()?.queries;
        let name = message.queries.first()?.name().clone();
        let Message { answers, authorities, additionals, .. } = &mut message;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            self.restore_owner(record, &name);
        }
        let mut encoded = message.to_vec().ok()?;
        if encoded.len() > limit {
            message.answers.clear();
            message.authorities.clear();
            message.additionals.clear();
            message.metadata.truncation = true;
            encoded = message.to_vec().ok()?;
        }
        *out = encoded;
        Some(())
    }

    fn restore_owner(&self, record: &mut Record, asked: &Name) {
        if record.name == self.rewritten {
            record.name = asked.clone();
            return;
        }
        let owner = record.name.to_ascii().to_ascii_lowercase();
        for (from, to) in self.rules.iter().flat_map(|rule| &rule.answers) {
            if let Some(name) =
                replaced(from, to, &owner).and_then(|name| Name::from_ascii(dotted(&name)).ok())
            {
                record.name = name;
                return;
            }
        }
    }
}
