//! Queries that are put as others, and their answers that are put right again.

mod option;
mod pattern;
mod restore;

pub(crate) use self::option::MAX_OPTIONS;
use self::{
    option::OptionRule,
    pattern::{Pattern, Substitution, dotted},
    restore::{Names, Restore, Step},
};
use crate::{
    AnswerChange, Change, ConfigError, NameMatch, NamePattern, Rewrite,
    handler::Client,
    message::Question,
    name::{WireName, write_name},
    query::Query,
    wire::HEADER,
};

/// The rules, ready for use.
#[derive(Debug)]
pub(super) struct Rewriter(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    what: What,
    and_on: bool,
}

#[derive(Debug)]
enum What {
    Name { on: Pattern, to: String, answers: Vec<Answers>, auto: bool },
    Type { from: u16, to: u16 },
    Class { from: u16, to: u16 },
    Option(OptionRule),
    Ttl { on: Pattern, least: u32, most: u32 },
    Rcode { on: Pattern, from: u16, to: u16 },
    Alias(Substitution),
}

/// What a rule about names changes in answers.
#[derive(Debug)]
struct Answers {
    owners: bool,
    values: bool,
    substitution: Substitution,
}

/// A query in the place of the one that came.
pub(crate) struct Rewritten<'r> {
    message: Vec<u8>,
    /// Options for upstreams, as in an OPT record.
    options: Vec<u8>,
    /// What puts its answer right.
    pub(crate) restore: Restore<'r>,
}

impl Rewritten<'_> {
    /// The query.
    pub(crate) fn query(&self) -> Option<Query<'_>> {
        Query::read(&self.message).ok().map(|query| Query { options: &self.options, ..query })
    }
}

impl Rewriter {
    pub(super) fn new(rewrites: &[Rewrite]) -> Result<Self, ConfigError> {
        rewrites.iter().map(Rule::new).collect::<Result<_, _>>().map(Self)
    }

    /// The query in the place of this one; `None` where no rule has to do with it or with its answer.
    pub(super) fn rewrite(&self, query: &Query<'_>, client: Client) -> Option<Rewritten<'_>> {
        if self.0.is_empty() {
            return None;
        }
        let mut name = String::new();
        write_name(query.name.as_bytes(), &mut name).ok()?;
        let (mut qtype, mut qclass) = (query.qtype, query.qclass);
        let mut options = Vec::new();
        let mut steps = Vec::new();
        let mut is_changed = false;
        for Rule { what, and_on } in &self.0 {
            let applies = match what {
                What::Name { on, to, answers, auto } => on.put(&name, to).map(|next| {
                    steps.extend(answers.iter().rev().map(Answers::step));
                    if *auto {
                        steps.push(Step::Names(Names::Remap { from: next.clone(), to: name.clone() }));
                    }
                    name = next;
                }),
                What::Type { from, to } => (qtype == *from).then(|| qtype = *to),
                What::Class { from, to } => (qclass == *from).then(|| qclass = *to),
                What::Option(rule) => rule.apply(query, &name, client, &mut options),
                What::Ttl { on, least, most } => {
                    on.matches(&name).then(|| steps.push(Step::Ttl { least: *least, most: *most }))
                }
                What::Rcode { on, from, to } => {
                    on.matches(&name).then(|| steps.push(Step::Rcode { from: *from, to: *to }))
                }
                What::Alias(substitution) => {
                    steps.push(Step::Alias(substitution));
                    Some(())
                }
            };
            is_changed |= applies.is_some();
            if applies.is_some() && !and_on {
                break;
            }
        }
        if !is_changed {
            return None;
        }
        // A name that is none is not put in the place of one.
        let wire = WireName::parse(&name)?;
        let mut question = Question::of(query).about(wire.as_bytes());
        let at = question.wire.len() - 4;
        question.wire[at..at + 2].copy_from_slice(&qtype.to_be_bytes());
        question.wire[at + 2..].copy_from_slice(&qclass.to_be_bytes());
        let message =
            [&query.message[..HEADER], &question.wire, &query.message[query.question_end..]].concat();
        // What was changed last is put right first.
        steps.reverse();
        Some(Rewritten { message, options, restore: Restore::new(&wire, steps)? })
    }
}

impl Rule {
    fn new(rewrite: &Rewrite) -> Result<Self, ConfigError> {
        let what = match &rewrite.change {
            Change::Name { on, to, answers } => name_rule(on, to, answers)?,
            Change::Type { from, to } => What::Type { from: *from, to: *to },
            Change::Class { from, to } => What::Class { from: *from, to: *to },
            Change::Option(change) => What::Option(OptionRule::new(change)?),
            Change::Ttl { on, least, most } => {
                What::Ttl { on: Pattern::new(on)?, least: *least, most: *most }
            }
            Change::Rcode { on, from, to } if *to < 16 => {
                What::Rcode { on: Pattern::new(on)?, from: *from, to: *to }
            }
            Change::Rcode { to, .. } => return Err(ConfigError::Rcode(*to)),
            Change::Alias { on, to } => {
                What::Alias(Substitution { on: Pattern::new(on)?, to: to.to_ascii_lowercase() })
            }
        };
        Ok(Self { what, and_on: rewrite.and_on })
    }
}

fn name_rule(on: &NamePattern, to: &str, answers: &[AnswerChange]) -> Result<What, ConfigError> {
    let to = to.to_ascii_lowercase();
    let to = if on.matches == NameMatch::Suffix { dotted(&to) } else { to };
    // Names that were looked for as a whole are always turned back, in data too.
    let mut auto = on.matches == NameMatch::Exact;
    let mut changes = Vec::new();
    for answer in answers {
        let (owners, values, substitution) = match answer {
            // The ends of names can be told apart in any name of the answer.
            AnswerChange::Auto if on.matches == NameMatch::Suffix => {
                let back = dotted(&on.text.to_ascii_lowercase());
                (true, true, Substitution { on: Pattern::Suffix(to.clone()), to: back })
            }
            AnswerChange::Auto => {
                auto = true;
                continue;
            }
            AnswerChange::Owner { from, to } => (true, false, Substitution::regex(from, to)?),
            AnswerChange::Value { from, to } => (false, true, Substitution::regex(from, to)?),
        };
        changes.push(Answers { owners, values, substitution });
    }
    Ok(What::Name { on: Pattern::new(on)?, to, answers: changes, auto })
}

impl Answers {
    fn step(&self) -> Step<'_> {
        let Self { owners, values, substitution } = self;
        Step::Names(Names::Put { owners: *owners, values: *values, substitution })
    }
}
