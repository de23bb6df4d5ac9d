//! Answers of ours with signatures, where they are asked for.

use std::time::SystemTime;

use super::{Handler, Outcome, ruled::Walk};
use crate::{
    dnssec::{Signer, Subject},
    metrics::Part,
    query::{Query, QueryName},
    wire::{Rcode, flag, rtype, u16_at},
    zone::Found,
};

impl Handler {
    /// As [`Self::ruled`], signed where that is wanted. What others said is theirs to sign.
    pub(super) async fn signed(&self, walk: Walk<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
        let signer = walk.scope.signer.as_ref();
        let Some((signer, zone)) = signer.and_then(|signer| Some((signer, signer.zone_of(&query.name)?)))
        else {
            return self.ruled(walk, query, out).await;
        };
        let is_wanted = query.edns.is_some_and(|edns| edns.dnssec_ok);
        if query.qtype == rtype::DNSKEY && query.name.as_bytes() == zone.as_bytes() {
            let mut reply = self.reply(query, walk.client, flag::AA, out);
            signer.write_keys(zone, is_wanted, SystemTime::now(), &mut reply);
            reply.finish(Rcode::NoError);
            return Outcome::Answered(Part::Dnssec);
        }
        if !is_wanted {
            return self.ruled(walk, query, out).await;
        }
        let outcome = self.ruled(walk.whole(), query, out).await;
        if let Outcome::Answered(part @ (Part::Kubernetes | Part::External | Part::File | Part::Rules)) =
            outcome
        {
            self.sign(signer, walk, query, part, out);
        }
        self.fit(walk, query, out);
        outcome
    }

    fn sign(&self, signer: &Signer, walk: Walk<'_>, query: &Query<'_>, part: Part, out: &mut Vec<u8>) {
        let files = &walk.scope.files;
        let zone = self.zone.load();
        let is_ours = |name: &QueryName, qtype: u16| {
            let is_asked = part == Part::Rules && name.as_bytes() == query.name.as_bytes();
            let is_known = || {
                zone.as_ref().is_some_and(|zone| match zone.find(name, qtype) {
                    Found::NotOurs => false,
                    Found::NxDomain => !self.falls_through(name),
                    _ => true,
                })
            };
            is_asked || is_known() || files.serve(name, qtype)
        };
        let subject =
            Subject { is_ours: &is_ours, is_cut: &|name| files.is_cut(name), now: SystemTime::now() };
        let answer = std::mem::take(out);
        let aa = u16_at(&answer, 2).unwrap_or_default() & flag::AA;
        let reply = self.reply(query, walk.client, aa, out);
        if !signer.write(&answer, &subject, reply) {
            *out = answer;
        }
    }

    /// What does not fit is asked for over TCP.
    fn fit(&self, walk: Walk<'_>, query: &Query<'_>, out: &mut Vec<u8>) {
        if out.len() <= self.limit(query, walk.client) {
            return;
        }
        let flags = u16_at(out, 2).unwrap_or_default();
        let mut cut = Vec::new();
        let reply = self.reply(query, walk.client, flags & flag::AA | flag::TC, &mut cut);
        reply.finish(match flags & 0xf {
            0 => Rcode::NoError,
            3 => Rcode::NxDomain,
            _ => Rcode::ServFail,
        });
        *out = cut;
    }
}
