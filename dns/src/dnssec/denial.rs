//! That something is not there: an NSEC record made for the question.

use super::{
    Signer, Subject,
    message::{Parsed, Set},
};
use crate::{
    query::QueryName,
    records::push_types,
    wire::{MAX_NAME, rtype},
};

/// Types that a name is said to have: many, so that nobody concludes from one answer that another type is not there.
const TYPES: [u16; 20] = [
    rtype::A,
    rtype::PTR,
    rtype::HINFO,
    rtype::MX,
    rtype::TXT,
    rtype::AAAA,
    29,
    rtype::SRV,
    35,
    37,
    44,
    rtype::RRSIG,
    rtype::NSEC,
    52,
    55,
    61,
    rtype::SVCB,
    rtype::HTTPS,
    99,
    257,
];
/// Types that a domain's own name has beside.
const APEX: [u16; 3] = [rtype::NS, rtype::SOA, rtype::DNSKEY];
/// Types that are the domain's where it is delegated.
const CUT: [u16; 3] = [rtype::NS, rtype::RRSIG, rtype::NSEC];

impl Signer {
    /// Adds the proof of what an answer denies, if that is ours to deny.
    pub(super) fn deny(&self, parsed: &mut Parsed, subject: &Subject<'_>) {
        let Some((name, spelled)) = end_of(parsed) else { return };
        let soa = parsed.authority.iter().find(|set| set.rtype == rtype::SOA).map(|set| set.ttl);
        let has_end = parsed.answers.iter().any(|set| is_at(set, &name) && set.rtype != rtype::CNAME);
        let is_referred =
            soa.is_none().then(|| parsed.authority.iter().find(|set| set.rtype == rtype::NS)).flatten();
        match (soa, is_referred) {
            // Nothing is at the end of the answer.
            (Some(ttl), _) if !has_end => {
                if self.zone_of(&name).is_none() || !(subject.is_ours)(&name, parsed.qtype) {
                    return;
                }
                let Some(proof) = self.proof(&name, &spelled, parsed.qtype, ttl, (subject.is_cut)(&name))
                else {
                    return;
                };
                // A SOA record of what is not signed proves nothing.
                let zone = self.zone_of(&name);
                parsed.authority.retain(|set| {
                    set.rtype != rtype::SOA || zone.is_some_and(|zone| is_within(set, zone.as_bytes()))
                });
                parsed.rcode = 0;
                if parsed.qtype == rtype::NSEC && parsed.answers.is_empty() {
                    parsed.answers.push(proof);
                    parsed.authority.clear();
                } else {
                    parsed.authority.push(proof);
                }
            }
            // Others have the names from here on: whether they sign is said by us.
            (None, Some(set)) if !has_end => {
                let (owner, ttl) = (set.owner.clone(), set.ttl);
                let has_ds = parsed.authority.iter().any(|set| set.rtype == rtype::DS);
                let Some((cut, _)) = QueryName::read(&owner.to_ascii_lowercase(), 0) else { return };
                if !has_ds && (subject.is_cut)(&cut) && self.zone_of(&cut).is_some() {
                    parsed.authority.extend(self.proof(&cut, &owner, 0, ttl, true));
                }
            }
            _ => {}
        }
    }

    /// The record that says of a name that it has no records of a type; none where the name is too long for that.
    fn proof(&self, name: &QueryName, owner: &[u8], qtype: u16, ttl: u32, is_cut: bool) -> Option<Set> {
        let next = [b"\x01\0", name.as_bytes()].concat();
        let mut types = if is_cut { CUT.to_vec() } else { TYPES.to_vec() };
        if self.zones.iter().any(|zone| zone.as_bytes() == name.as_bytes()) && !is_cut {
            types.extend(APEX);
        }
        types.retain(|rtype| *rtype != qtype || qtype == rtype::NSEC);
        (next.len() <= MAX_NAME).then(|| {
            let mut data = next;
            push_types(&mut data, types);
            Set { owner: owner.to_vec(), rtype: rtype::NSEC, ttl, data: vec![data] }
        })
    }
}

fn is_at(set: &Set, name: &QueryName) -> bool {
    set.owner.eq_ignore_ascii_case(name.as_bytes())
}

fn is_within(set: &Set, zone: &[u8]) -> bool {
    let owner = set.owner.to_ascii_lowercase();
    QueryName::read(&owner, 0).is_some_and(|(name, _)| name.labels_before(zone).is_some())
}

/// The name to which the aliases of an answer lead, and as it is written.
fn end_of(parsed: &Parsed) -> Option<(QueryName, Vec<u8>)> {
    let mut name = parsed.question.clone();
    let mut spelled = name.as_bytes().to_vec();
    if parsed.qtype == rtype::CNAME {
        return Some((name, spelled));
    }
    for _ in 0..=parsed.answers.len() {
        let alias = parsed.answers.iter().find(|set| set.rtype == rtype::CNAME && is_at(set, &name));
        let Some(target) = alias.and_then(|set| set.data.first()) else { return Some((name, spelled)) };
        spelled.clone_from(target);
        name = QueryName::read(&target.to_ascii_lowercase(), 0)?.0;
    }
    None
}
