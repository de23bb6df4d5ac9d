//! Puts the answer to a rewritten query right: the question as it was asked, and what the rules say of the rest.

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};

use super::pattern::{Substitution, dotted};
use crate::{name::WireName, query::Query, reply, wire::Rcode};

/// What is to be done to an answer, in order.
pub(crate) struct Restore<'r> {
    /// The name that was asked for in the place of the client's.
    rewritten: Name,
    steps: Vec<Step<'r>>,
}

pub(super) enum Step<'r> {
    Names(Names<'r>),
    Ttl { least: u32, most: u32 },
    Rcode { from: u16, to: u16 },
    Alias(&'r Substitution),
}

/// Names that become others.
pub(super) enum Names<'r> {
    /// By a rule.
    Put { owners: bool, values: bool, substitution: &'r Substitution },
    /// One, and those below it.
    Remap { from: String, to: String },
}

/// The most bytes of a message.
const MAX_MESSAGE: usize = u16::MAX as usize;

impl<'r> Restore<'r> {
    pub(super) fn new(rewritten: &WireName, steps: Vec<Step<'r>>) -> Option<Self> {
        Some(Self { rewritten: Name::from_ascii(rewritten.to_string()).ok()?, steps })
    }

    /// Where an alias in the answer is to lead in the place of where it does, if it is.
    pub(crate) fn other_alias(&self, answer: &[u8]) -> Option<OtherAlias> {
        if !self.steps.iter().any(|step| matches!(step, Step::Alias(_))) {
            return None;
        }
        let message = Message::from_vec(answer).ok()?;
        let found = message.answers.iter().enumerate().find_map(|(place, record)| {
            let RData::CNAME(target) = &record.data else { return None };
            let text = text(&target.0);
            let put = self.steps.iter().find_map(|step| match step {
                Step::Alias(substitution) => substitution.put(&text),
                _ => None,
            });
            put.map(|put| (place, dotted(&put)))
        });
        let (place, target) = found?;
        let wire = WireName::parse(&target)?;
        Some(OtherAlias { message, place, target: Name::from_ascii(target).ok()?, wire })
    }

    /// Puts an answer of at most `limit` bytes right.
    pub(crate) fn restore(&self, query: &Query<'_>, limit: usize, udp_payload: u16, out: &mut Vec<u8>) {
        if self.try_restore(query, limit, out).is_none() {
            reply::bare(query.message, Rcode::ServFail, udp_payload, out);
        }
    }

    fn try_restore(&self, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> Option<()> {
        let mut message = Message::from_vec(out).ok()?;
        // In the case asked for, which only the query has.
        message.queries = Message::from_vec(query.message).ok()?.queries;
        let asked = message.queries.first()?.name().clone();
        for step in &self.steps {
            match step {
                Step::Rcode { from, to } if u16::from(message.metadata.response_code) == *from => {
                    // Those over 15 have a part in the OPT record, and are not to be had here.
                    message.metadata.response_code = ResponseCode::from_low((*to & 0xf) as u8);
                }
                Step::Rcode { .. } | Step::Alias(_) => {}
                Step::Ttl { least, most } => {
                    all(&mut message).for_each(|record| record.ttl = record.ttl.max(*least).min(*most));
                }
                Step::Names(names) => all(&mut message).for_each(|record| names.change(record)),
            }
        }
        for record in all(&mut message) {
            if record.name == self.rewritten || record.name == asked {
                record.name = asked.clone();
            }
        }
        let mut encoded = message.to_vec().ok().filter(|encoded| encoded.len() <= limit.min(MAX_MESSAGE));
        if encoded.is_none() {
            message.answers.clear();
            message.authorities.clear();
            message.additionals.clear();
            message.metadata.truncation = true;
            encoded = message.to_vec().ok();
        }
        *out = encoded?;
        Some(())
    }
}

fn all(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    let Message { answers, authorities, additionals, .. } = message;
    answers.iter_mut().chain(authorities).chain(additionals)
}

impl Names<'_> {
    fn change(&self, record: &mut Record) {
        let (owners, values) = match self {
            Self::Put { owners, values, .. } => (*owners, *values),
            Self::Remap { .. } => (true, true),
        };
        if owners {
            self.change_name(&mut record.name);
        }
        let value = match &mut record.data {
            _ if !values => return,
            RData::CNAME(rdata::CNAME(name)) | RData::NS(rdata::NS(name)) | RData::PTR(rdata::PTR(name)) => {
                name
            }
            RData::MX(data) => &mut data.exchange,
            RData::SRV(data) => &mut data.target,
            RData::SOA(data) => &mut data.mname,
            RData::NAPTR(data) => &mut data.replacement,
            _ => return,
        };
        self.change_name(value);
    }

    fn change_name(&self, name: &mut Name) {
        let before = text(name);
        let after = match self {
            Self::Put { substitution, .. } => substitution.put(&before),
            Self::Remap { from, to } => before
                .strip_suffix(from.as_str())
                .filter(|above| above.is_empty() || above.ends_with('.'))
                .map(|above| format!("{above}{to}")),
        };
        // What would be no name stays as it is.
        if let Some(after) = after.and_then(|after| Name::from_ascii(dotted(&after)).ok()) {
            *name = after;
        }
    }
}

fn text(name: &Name) -> String {
    name.to_ascii().to_ascii_lowercase()
}

/// An alias in an answer that is to lead elsewhere.
pub(crate) struct OtherAlias {
    message: Message,
    place: usize,
    target: Name,
    wire: WireName,
}

impl OtherAlias {
    /// Where to.
    pub(crate) fn target(&self) -> &WireName {
        &self.wire
    }

    /// The answer with what is said of that.
    pub(crate) fn with(mut self, said: &[u8]) -> Option<Vec<u8>> {
        let mut said = Message::from_vec(said).ok()?;
        let record = self.message.answers.get_mut(self.place)?;
        record.data = RData::CNAME(rdata::CNAME(self.target));
        self.message.answers.truncate(self.place + 1);
        let is_asked =
            self.message.queries.first().is_some_and(|query| query.query_type() == RecordType::CNAME);
        if !is_asked {
            self.message.answers.append(&mut said.answers);
            self.message.authorities = said.authorities;
            self.message.additionals = said.additionals;
            self.message.metadata.response_code = said.metadata.response_code;
        }
        self.message.to_vec().ok().filter(|encoded| encoded.len() <= MAX_MESSAGE)
    }
}
