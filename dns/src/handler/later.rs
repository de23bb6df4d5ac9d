//! Answers for which others must be asked.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use hickory_proto::{op::Message, rr::RecordType};

use super::{Client, Course, Handler, Outcome, for_order, ruled::Walk};
use crate::{
    answer::{self, MAX_ALIASES, Written},
    forward::ForwardError,
    message::{self, Question},
    metrics::Part,
    name::WireName,
    query::{Query, QueryName},
    reply::{Reply, Section},
    wire::{Rcode, flag},
    zone::Zone,
};

impl Handler {
    /// Answers a query for which [`Self::answer`] said that others must be asked; once for each time it did.
    pub(crate) async fn later(&self, message: &[u8], client: Client, turn: u32) -> Option<(Vec<u8>, Part)> {
        let _place = Place(&self.under_way);
        let query = Query::read(message).ok()?;
        let Some(scope) = self.rules.of(&query.name) else {
            let course = Course { scope: None, client, turn, aliases: 0 };
            return self.later_plain(course, &query).await;
        };
        let turn = scope.order.turn(turn);
        let came = Instant::now();
        // In boxes what is seldom: thousands of queries may be under way, each with room for all that it may come to.
        let mut out = Vec::new();
        let walk = Walk { scope, client: for_order(scope, client), turn, waits: true };
        let (Outcome::Answered(part) | Outcome::Refresh(part)) =
            Box::pin(self.walk(walk, &query, &mut out)).await
        else {
            return None;
        };
        if scope.order.is_about_whole_answers() {
            scope.order.arrange(&query, self.limit(&query, client), &mut out);
        }
        if scope.is_logging() {
            scope.log(&query, client, &out, came.elapsed());
        }
        Some((out, part))
    }

    pub(super) async fn later_plain(&self, course: Course<'_>, query: &Query<'_>) -> Option<(Vec<u8>, Part)> {
        let Course { client, turn, .. } = course;
        let mut out = Vec::new();
        let zone = self.zone.load_full();
        if let Some(zone) = &zone {
            let mut reply = self.reply(query, client, flag::AA, &mut out);
            match self.ask_zone(zone, query, turn, &mut reply) {
                Written::Complete(rcode) => {
                    reply.finish(rcode);
                    if rcode == Rcode::NxDomain {
                        let mut walked = Vec::new();
                        if Box::pin(self.later_walk(course, zone, query, &mut walked)).await {
                            out = walked;
                        }
                    }
                    return Some((out, self.part(&query.name)));
                }
                Written::Leaves(target) => {
                    let rcode = Box::pin(self.follow(course, query, &target, &mut reply)).await;
                    reply.finish(rcode);
                    return Some((out, self.part(&query.name)));
                }
                Written::NotOurs => {}
            }
        }
        if course.files(&query.name).is_some() && Box::pin(self.later_file(course, query, &mut out)).await {
            return Some((out, Part::File));
        }
        let resolver = self.routes.of(&query.name);
        match resolver.get(&Question::of(query)).await {
            Ok(entry) => {
                let ttl = resolver.is_caching().then(|| resolver.ttl(&entry));
                let limit = self.limit(query, client);
                entry.answer.write(query, ttl, limit, self.udp_payload, &mut out);
                message::rotate(&mut out, query.qtype, turn, limit);
                Some((out, Part::Forward))
            }
            Err(error) => {
                self.tell(query, &error);
                self.reply(query, client, 0, &mut out).finish(rcode_of(&error));
                Some((out, Part::Forward))
            }
        }
    }

    /// Tells of a question that nobody answered, if there is something wrong with that and it is time.
    fn tell(&self, query: &Query<'_>, error: &ForwardError) {
        if matches!(error, ForwardError::Refused) {
            return;
        }
        let Some(count) = self.failures.note(Instant::now()) else { return };
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(name = ?query.name, qtype = query.qtype, %error, cause, count, "names were not answered for");
    }

    /// Adds what is known of the name an alias leads to: by us, or by the upstreams.
    pub(super) async fn follow(
        &self,
        course: Course<'_>,
        query: &Query<'_>,
        target: &WireName,
        reply: &mut Reply<'_>,
    ) -> Rcode {
        let question = Question::of(query).about(target.as_bytes());
        let Some((name, _)) = QueryName::read(target.as_bytes(), 0) else { return Rcode::ServFail };
        if course.aliases >= MAX_ALIASES {
            return Rcode::ServFail;
        }
        let (message, ttl) = match self.own(course, query, &name, &question).await {
            Some(answer) => (Message::from_vec(&answer), None),
            None => {
                let resolver = self.routes.of(&name);
                match resolver.get(&question).await {
                    Ok(entry) => {
                        let ttl = resolver.is_caching().then(|| resolver.ttl(&entry));
                        (Message::from_vec(entry.answer.message()), ttl)
                    }
                    // Without upstreams the alias itself is all there is to say.
                    Err(error) if matches!(*error, ForwardError::Refused) => return Rcode::NoError,
                    Err(error) => {
                        self.tell(query, &error);
                        return Rcode::ServFail;
                    }
                }
            }
        };
        let Ok(mut message) = message else { return Rcode::ServFail };
        let rcode = u16::from(message.metadata.response_code);
        // Records whose owner is not the alias's target, or what that leads to, are not told.
        let mut owners = Vec::new();
        if let Ok(first) = hickory_proto::rr::Name::from_ascii(target.to_string()) {
            owners.push(first);
        }
        for record in &mut message.answers {
            record.ttl = ttl.unwrap_or(record.ttl);
            if !owners.contains(&record.name) || owners.len() > MAX_ALIASES {
                continue;
            }
            if let hickory_proto::rr::RData::CNAME(next) = &record.data {
                owners.push(next.0.clone());
            }
            if !reply.foreign(Section::Answer, record) {
                break;
            }
        }
        if message.answers.is_empty() || rcode != 0 {
            let soa = message.authorities.iter().find(|record| record.record_type() == RecordType::SOA);
            if let Some(soa) = soa {
                reply.foreign(Section::Authority, soa);
            }
        }
        match rcode {
            0 => Rcode::NoError,
            3 => Rcode::NxDomain,
            _ => Rcode::ServFail,
        }
    }

    /// Walks on where others must be asked; false where the walk leads nowhere, with nothing written.
    async fn later_walk(
        &self,
        course: Course<'_>,
        zone: &Zone,
        query: &Query<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Course { client, turn, .. } = course;
        for step in self.steps(zone, query, client) {
            if !step.is_ours {
                let question = Question::of(query).about(step.name.as_bytes());
                let rcode = match self.own(course, query, &step.read, &question).await {
                    Some(answer) => Ok(u16::from(answer.get(3).copied().unwrap_or_default() & 0xf)),
                    None => self.routes.of(&step.read).get(&question).await.map(|entry| entry.rcode()),
                };
                match rcode {
                    Ok(0) => {}
                    Ok(3) => continue,
                    // The client finds out for itself.
                    _ => return false,
                }
            }
            let mut reply = self.reply(query, client, flag::AA, out);
            let rcode = match answer::write_alias(zone, query, &step.name, turn, &mut reply) {
                Written::Complete(rcode) => rcode,
                Written::Leaves(target) => self.follow(course, query, &target, &mut reply).await,
                Written::NotOurs => return false,
            };
            reply.finish(rcode);
            self.metrics.walks.inc();
            return true;
        }
        false
    }
}

/// The place of a query under way.
struct Place<'h>(&'h AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a question ends that the upstreams did not answer.
fn rcode_of(error: &ForwardError) -> Rcode {
    match error {
        ForwardError::Refused | ForwardError::Overload => Rcode::Refused,
        ForwardError::NoUpstream | ForwardError::Failed(_) => Rcode::ServFail,
    }
}
