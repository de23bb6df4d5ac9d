//! Names in master files, and those to which aliases lead.

use super::{Course, Handler, Outcome};
use crate::{
    files::Told,
    message::Question,
    metrics::Part,
    query::{Query, QueryName},
    wire::flag,
    zone::Found,
};

impl Handler {
    /// Answers what the cluster knows nothing of, as far as that needs nobody else: from files, or from the cache.
    pub(super) fn answer_rest(&self, course: Course<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
        if let Some(files) = course.files(&query.name) {
            let mut reply = self.reply(query, course.client, flag::AA, out);
            match files.write(query, course.turn, &mut reply) {
                Some(Told::Complete(rcode)) => {
                    reply.finish(rcode);
                    return Outcome::Answered(Part::File);
                }
                Some(Told::Alias(_)) => return Outcome::Later,
                None => {}
            }
        }
        self.answer_cached(query, course.client, course.turn, out)
    }

    /// Answers from files, aliases followed; false, with nothing written, where others are to be asked.
    pub(super) async fn later_file(&self, course: Course<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> bool {
        let Some(files) = course.files(&query.name) else { return false };
        let mut reply = self.reply(query, course.client, flag::AA, out);
        let rcode = match files.write(query, course.turn, &mut reply) {
            Some(Told::Complete(rcode)) => rcode,
            Some(Told::Alias(target)) => Box::pin(self.follow(course, query, &target, &mut reply)).await,
            None => return false,
        };
        reply.finish(rcode);
        true
    }

    /// The answer about a name to which something leads, where it is for us to give; `query`: what was asked.
    pub(super) async fn own(
        &self,
        course: Course<'_>,
        query: &Query<'_>,
        name: &QueryName,
        question: &Question,
    ) -> Option<Vec<u8>> {
        let course = Course {
            scope: self.rules.of(name).map(|scope| &**scope),
            client: course.client.whole(),
            aliases: course.aliases + 1,
            ..course
        };
        let is_filed = course.files(name).is_some();
        let is_found =
            || self.zone.load().as_ref().is_some_and(|zone| zone.find(name, query.qtype) != Found::NotOurs);
        if !is_filed && !is_found() {
            return None;
        }
        let message = question.message(0, query.edns.map(|_| u16::MAX));
        let query = Query::read(&message).ok()?;
        Box::pin(self.later_plain(course, &query)).await.map(|(answer, _)| answer)
    }
}
