//! Domains as a whole (AXFR, IXFR): the zone, and those in files.

use super::{Client, Course, Handler, Outcome, Transport};
use crate::{
    AclAction, files,
    query::Query,
    transfer,
    wire::{CLASS_IN, Rcode, flag},
};

impl Handler {
    /// Whether the client may have the whole zone that it asks for.
    pub(super) fn answer_transfer(&self, query: &Query<'_>, client: Client, out: &mut Vec<u8>) -> Outcome {
        let scope = self.rules.of(&query.name);
        let is_allowed = client.transport == Transport::Tcp
            && query.qclass == CLASS_IN
            && self.transfers.allow(&query.name, client.address)
            && scope.is_none_or(|scope| scope.action(query, client.address) == AclAction::Allow);
        let is_there = match &*self.zone.load() {
            _ if !is_allowed => None,
            zone if self.origin.is_whole(&query.name) => {
                Some(zone.as_ref().is_some_and(|zone| !zone.is_stale))
            }
            _ => scope.and_then(|scope| scope.files.whole(&query.name)).map(|zone| zone.is_some()),
        };
        match is_there {
            Some(true) => Outcome::Transfer,
            Some(false) => self.say(Rcode::ServFail, query, client, out),
            None => self.say(Rcode::Refused, query, client, out),
        }
    }

    /// The messages that tell the whole zone, where [`Self::answer`] said that they are the answer.
    pub(crate) fn transfer(&self, message: &[u8], client: Client) -> Vec<Vec<u8>> {
        let Ok(query) = Query::read(message) else { return Vec::new() };
        if !self.origin.is_whole(&query.name) {
            let scope = self.rules.of(&query.name).map(|scope| &**scope);
            return self.transfer_file(&query, Course { scope, client, turn: 0, aliases: 0 });
        }
        let Some(zone) = &*self.zone.load() else { return Vec::new() };
        transfer::messages(zone, &query, |out| self.reply(&query, client, flag::AA, out))
    }

    /// The messages that tell a domain of a file as a whole; none where there is no such domain.
    fn transfer_file(&self, query: &Query<'_>, course: Course<'_>) -> Vec<Vec<u8>> {
        let zone = course.files(&query.name).and_then(|files| files.whole(&query.name)).flatten();
        let Some(zone) = zone else { return Vec::new() };
        transfer::told(
            zone.serial,
            || zone.soa(),
            || files::records(&zone),
            query,
            |out| self.reply(query, course.client, flag::AA, out),
        )
    }
}
