//! Answers by the rules of a name's domain: one walk, which is gone without waiting first, and once more with waiting
//! where it comes to something that others must be asked.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use hickory_proto::op::Message;

use super::{Client, Course, Handler, Outcome};
use crate::{
    AclAction,
    message::Question,
    metrics::Part,
    name::WireName,
    query::Query,
    reply::Section,
    rules::{Said, Scope},
    wire::{CLASS_IN, Rcode, flag},
};

/// A walk: whose rules, by whom it was caused, and whether it waits.
#[derive(Clone, Copy)]
pub(super) struct Walk<'s> {
    pub(super) scope: &'s Scope,
    pub(super) client: Client,
    pub(super) turn: u32,
    /// Others are asked; without, the walk ends where they must be.
    pub(super) waits: bool,
}

impl<'s> Walk<'s> {
    /// What the zone and the upstreams are told.
    fn course(self) -> Course<'s> {
        Course { scope: Some(self.scope), client: self.client, turn: self.turn, aliases: 0 }
    }

    /// The same for what becomes part of the answer.
    pub(super) fn whole(self) -> Self {
        Self { client: self.client.whole(), ..self }
    }
}

/// A query like this one about another name, for an answer of any length.
fn about(query: &Query<'_>, name: &WireName) -> Vec<u8> {
    Question::of(query).about(name.as_bytes()).message(0, query.edns.map(|_| u16::MAX))
}

impl Handler {
    /// Answers as far as that needs nobody else.
    pub(super) fn answer_in(
        &self,
        scope: &Scope,
        query: &Query<'_>,
        client: Client,
        turn: u32,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let walk = pin!(self.walk(Walk { scope, client, turn, waits: false }, query, out));
        // Nothing is waited for, so the first look is the last.
        match walk.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Outcome::Later,
        }
    }

    /// Answers what the rules make of a query, and makes of the answer what they say.
    pub(super) async fn walk(&self, walk: Walk<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
        let client = walk.client;
        let action = walk.scope.action(query, client.address);
        if !walk.waits {
            walk.scope.count(action);
        }
        match action {
            AclAction::Allow => {}
            AclAction::Drop => return Outcome::Silence,
            action => {
                let code = if action == AclAction::Filter { Rcode::NoError } else { Rcode::Refused };
                return self.say(code, query, client, out);
            }
        }
        let Some(rewritten) = walk.scope.rewrite(query, client) else {
            if query.qclass != CLASS_IN {
                return self.say(Rcode::Refused, query, client, out);
            }
            return self.translated(walk, query, out).await;
        };
        let Some(put) = rewritten.query() else { return Outcome::Silence };
        if put.qclass != CLASS_IN {
            return self.say(Rcode::Refused, query, client, out);
        }
        let outcome = self.translated(walk.whole(), &put, out).await;
        if !outcome.is_answer() {
            return outcome;
        }
        if let Some(alias) = rewritten.restore.other_alias(out) {
            if !walk.waits {
                return Outcome::Later;
            }
            let message = about(&put, alias.target());
            let Ok(other) = Query::read(&message) else { return Outcome::Silence };
            let mut more = Vec::new();
            let told = self.translated(walk.whole(), &other, &mut more).await;
            match alias.with(&more).filter(|_| told.is_answer()) {
                Some(joined) => *out = joined,
                None => return Outcome::Silence,
            }
        }
        rewritten.restore.restore(query, self.limit(query, client), self.udp_payload, out);
        outcome
    }

    /// As [`Self::signed`], with IPv6 addresses made of IPv4 addresses where that is wanted.
    async fn translated(&self, walk: Walk<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
        let outcome = self.signed(walk, query, out).await;
        let Some(translator) = walk.scope.translator(query, walk.client.address) else { return outcome };
        if !outcome.is_answer() || !translator.lacks(out) {
            return outcome;
        }
        let message = translator.question(query);
        let Ok(plain) = Query::read(&message) else { return outcome };
        let mut answer = Vec::new();
        let told = self.ruled(walk.whole(), &plain, &mut answer).await;
        if !told.is_answer() {
            return told;
        }
        let mut translated = Vec::new();
        let mut reply = self.reply(query, walk.client, 0, &mut translated);
        if let Some(rcode) = translator.translate(&answer, &mut reply) {
            reply.finish(rcode);
            *out = translated;
        }
        outcome
    }

    /// What the rules themselves say, or else zone and upstreams.
    pub(super) async fn ruled(&self, walk: Walk<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
        let Walk { scope, client, turn, waits } = walk;
        let mut reply = self.reply(query, client, flag::AA, out);
        match scope.write(query, client.address, turn, !waits, &mut reply) {
            Some(Said::Complete(rcode)) => reply.finish(rcode),
            Some(Said::Alias(_)) if !waits => return Outcome::Later,
            Some(Said::Alias(target)) => {
                // What the zone or the upstreams say of the target, as if it had been asked for.
                let message = about(query, &target);
                let Ok(query) = Query::read(&message) else { return Outcome::Silence };
                let scope = self.rules.of(&query.name).map(|scope| &**scope);
                let course = Course { scope, client: client.whole(), turn, aliases: 1 };
                let told = self.later_plain(course, &query).await;
                let Some(Ok(message)) = told.map(|(answer, _)| Message::from_vec(&answer)) else {
                    return Outcome::Silence;
                };
                for record in &message.answers {
                    if !reply.foreign(Section::Answer, record) {
                        break;
                    }
                }
                reply.finish(match u16::from(message.metadata.response_code) {
                    0 => Rcode::NoError,
                    3 => Rcode::NxDomain,
                    _ => Rcode::ServFail,
                });
            }
            None if !waits => return self.answer_plain(walk.course(), query, out),
            None => {
                let Some((answer, part)) = self.later_plain(walk.course(), query).await else {
                    return Outcome::Silence;
                };
                *out = answer;
                return Outcome::Answered(part);
            }
        }
        Outcome::Answered(Part::Rules)
    }
}
