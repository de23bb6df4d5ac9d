//! Answers of domains that are in master files.

use super::{
    FileZone,
    find::{Hit, Stand},
    zone::{Node, RecordSet},
};
use crate::{
    answer::{MAX_ALIASES, push_any, push_data},
    name::WireName,
    query::{Query, QueryName},
    records::{RECORD_HEAD, push_head},
    reply::{Reply, Section},
    wire::{HEADER, MAX_NAME, QUESTION_POINTER, Rcode, flag, rtype},
};

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Complete, with this code.
    Complete(Rcode),
    /// The last alias leads out of the domain to this name; the records so far are written.
    Alias(WireName),
}

/// A name that is being answered, and where it stands in the message.
struct At {
    name: QueryName,
    pointer: u16,
}

impl At {
    /// A pointer to the labels from the `n`th on.
    fn from(&self, n: usize) -> u16 {
        self.pointer + self.name.start(n) as u16
    }

    /// A pointer to `suffix`, with which the name ends.
    fn suffix(&self, suffix: &WireName) -> u16 {
        self.from(self.name.labels_before(suffix.as_bytes()).unwrap_or_default())
    }
}

/// What goes on after a name has been answered.
enum Next {
    Done(Rcode),
    /// The name, and where it was written.
    Follow(WireName, Option<u16>),
}

impl FileZone {
    /// Writes what the domain says to a query. `turn` decides which of several records comes first.
    pub(crate) fn write(&self, query: &Query<'_>, turn: u32, reply: &mut Reply<'_>) -> Told {
        let mut at = At { name: query.name.clone(), pointer: QUESTION_POINTER };
        let is_signed = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let mut answer = Answer { zone: self, qtype: query.qtype, turn, is_signed, reply };
        for aliases in 0..=MAX_ALIASES {
            match answer.name(&at, aliases > 0) {
                Next::Done(rcode) => return Told::Complete(rcode),
                Next::Follow(target, pointer) => {
                    let Some((name, _)) = QueryName::read(target.as_bytes(), 0) else { break };
                    if name.labels_before(self.origin.as_bytes()).is_none() {
                        return Told::Alias(target);
                    }
                    let Some(pointer) = pointer else { break };
                    at = At { name, pointer };
                }
            }
        }
        // Aliases that lead in a circle.
        Told::Complete(Rcode::ServFail)
    }
}

struct Answer<'a, 'o> {
    zone: &'a FileZone,
    qtype: u16,
    turn: u32,
    /// Signatures of the file are told.
    is_signed: bool,
    reply: &'a mut Reply<'o>,
}

impl Answer<'_, '_> {
    /// Writes what there is for a name.
    fn name(&mut self, at: &At, is_alias: bool) -> Next {
        let zone = self.zone;
        match zone.find(&at.name, self.qtype) {
            Hit::Nothing => {
                self.deny(at, None);
                Next::Done(Rcode::NxDomain)
            }
            Hit::Cut(cut) => {
                if !is_alias {
                    self.reply.clear(flag::AA);
                }
                self.refer(at, cut);
                Next::Done(Rcode::NoError)
            }
            Hit::Led(led) => self.lead(at, led),
            Hit::Node(node, stand) => self.node(at, node, stand),
        }
    }

    fn node(&mut self, at: &At, node: &Node, stand: Stand) -> Next {
        if self.qtype == rtype::ANY {
            self.reply.record(Section::Answer, |out| push_any(out, at.pointer));
            return Next::Done(Rcode::NoError);
        }
        if let Some(alias) =
            node.set(rtype::CNAME).filter(|_| ![rtype::CNAME, rtype::NSEC].contains(&self.qtype))
        {
            let target = self.reply.pointer(RECORD_HEAD);
            self.set(Section::Answer, at.pointer, alias, 0);
            self.prove_wildcard(at, stand);
            let name = alias.records.iter().next().and_then(|record| name_in(record, 0));
            return match name {
                Some((name, _)) => Next::Follow(name, target),
                None => Next::Done(Rcode::ServFail),
            };
        }
        let Some(set) = node.set(self.qtype) else {
            self.deny(at, Some(node));
            return Next::Done(Rcode::NoError);
        };
        let targets = self.set(Section::Answer, at.pointer, set, self.turn);
        self.prove_wildcard(at, stand);
        // Where the domain is served, as far as there is room.
        let is_apex = node.name == self.zone.origin;
        if !(is_apex && self.qtype == rtype::NS) && self.qtype != rtype::DS {
            let apex = self.zone.node(self.zone.origin.as_bytes()).and_then(|(_, apex)| apex.set(rtype::NS));
            if let Some(servers) = apex {
                let owner = at.suffix(&self.zone.origin);
                for record in servers.records.iter().chain(self.signatures(servers)) {
                    self.reply.extra(Section::Authority, |out| push_owned(out, owner, record));
                }
            }
        }
        self.add(targets);
        Next::Done(Rcode::NoError)
    }

    /// Writes a set of records; gives the names in it that others may want the addresses of.
    fn set(&mut self, section: Section, owner: u16, set: &RecordSet, turn: u32) -> Vec<(WireName, u16)> {
        let skip = match set.rtype {
            rtype::NS => Some(0),
            rtype::MX | rtype::SVCB | rtype::HTTPS => Some(2),
            rtype::SRV => Some(6),
            _ => None,
        };
        let mut targets = Vec::new();
        let first = turn as usize % set.records.count().max(1);
        for record in set.records.rotated(first) {
            let start = skip.and_then(|skip| self.reply.pointer(RECORD_HEAD + skip));
            if !self.reply.record(section, |out| push_owned(out, owner, record)) {
                return targets;
            }
            if let (Some(start), Some((name, _))) = (start, skip.and_then(|skip| name_in(record, skip))) {
                targets.push((name, start));
            }
        }
        for record in self.signatures(set) {
            if !self.reply.record(section, |out| push_owned(out, owner, record)) {
                break;
            }
        }
        targets
    }

    fn signatures<'s>(&self, set: &'s RecordSet) -> impl Iterator<Item = &'s [u8]> + use<'s> {
        set.signatures.iter().filter(|_| true).take(if self.is_signed { usize::MAX } else { 0 })
    }

    /// Adds the addresses of names within the domain.
    fn add(&mut self, mut targets: Vec<(WireName, u16)>) {
        targets.sort();
        targets.dedup_by(|a, b| a.0 == b.0);
        for (name, pointer) in targets {
            let Some((_, node)) = self.zone.node(name.as_bytes()) else { continue };
            for set in [rtype::A, rtype::AAAA].into_iter().filter_map(|rtype| node.set(rtype)) {
                for record in set.records.iter().chain(self.signatures(set)) {
                    self.reply.record(Section::Additional, |out| push_owned(out, pointer, record));
                }
            }
        }
    }

    /// Tells who has the names from `cut` on.
    fn refer(&mut self, at: &At, cut: &Node) {
        let owner = at.suffix(&cut.name);
        let targets = cut.set(rtype::NS).map(|set| {
            // What others serve is not for us to sign.
            let bare = self.is_signed;
            self.is_signed = false;
            let targets = self.set(Section::Authority, owner, set, 0);
            self.is_signed = bare;
            targets
        });
        match cut.set(rtype::DS) {
            Some(set) => drop(self.set(Section::Authority, owner, set, 0)),
            None => {
                if let Some(set) = cut.set(rtype::NSEC).filter(|_| self.is_signed) {
                    self.set(Section::Authority, owner, set, 0);
                }
            }
        }
        self.add(targets.unwrap_or_default());
    }

    /// Leads a name below `led` to the one in its place (RFC 6672).
    fn lead(&mut self, at: &At, led: &Node) -> Next {
        let Some(set) = led.set(rtype::DNAME) else { return Next::Done(Rcode::ServFail) };
        self.set(Section::Answer, at.suffix(&led.name), set, 0);
        let Some((target, _)) = set.records.iter().next().and_then(|record| name_in(record, 0)) else {
            return Next::Done(Rcode::ServFail);
        };
        let before = at.name.labels_before(led.name.as_bytes()).unwrap_or_default();
        let labels = at.name.labels(0, before);
        let Some(name) = WireName::join(labels, target.as_bytes()) else {
            return Next::Done(Rcode::YxDomain);
        };
        let ttl =
            set.records.iter().next().and_then(|record| crate::wire::u32_at(record, 6)).unwrap_or_default();
        let pointer = self.reply.pointer(RECORD_HEAD);
        let written = self.reply.record(Section::Answer, |out| {
            push_head(out, at.pointer, rtype::CNAME, ttl);
            push_data(out, |out| out.extend(name.as_bytes()));
        });
        if !written || self.qtype == rtype::CNAME {
            return Next::Done(Rcode::NoError);
        }
        Next::Follow(name, pointer)
    }

    /// Says that there is nothing; `node`: what the name is, where it exists.
    fn deny(&mut self, at: &At, node: Option<&Node>) {
        let Some((_, apex)) = self.zone.node(self.zone.origin.as_bytes()) else { return };
        let Some(set) = apex.set(rtype::SOA) else { return };
        let owner = at.suffix(&self.zone.origin);
        let ttl = self.zone.denial_ttl.to_be_bytes();
        for record in set.records.iter().chain(self.signatures(set)) {
            self.reply.record(Section::Authority, |out| {
                let start = out.len();
                push_owned(out, owner, record);
                out[start + 6..start + 10].copy_from_slice(&ttl);
            });
        }
        if !self.is_signed || self.zone.chain.is_empty() {
            return;
        }
        // The record that covers the name, and the one that covers the wildcard that could have stood for it.
        let mut proofs: Vec<&Node> = Vec::new();
        match node.filter(|node| node.set(rtype::NSEC).is_some()) {
            Some(node) => proofs.push(node),
            None => proofs.extend(self.zone.before(at.name.as_bytes())),
        }
        if node.is_none() {
            let encloser =
                (1..=at.name.count()).map(|n| at.name.from(n)).find(|name| self.zone.node(name).is_some());
            let wildcard = encloser.map(|name| [b"\x01*", name].concat());
            proofs.extend(wildcard.and_then(|name| self.zone.before(&name)));
        }
        self.prove(proofs);
    }

    /// That a wildcard stands for a name which does not exist itself.
    fn prove_wildcard(&mut self, at: &At, stand: Stand) {
        if stand == Stand::Wildcard && self.is_signed {
            let proofs = self.zone.before(at.name.as_bytes()).into_iter().collect();
            self.prove(proofs);
        }
    }

    fn prove(&mut self, mut proofs: Vec<&Node>) {
        proofs.dedup_by(|a, b| a.name == b.name);
        for node in proofs {
            let Some(set) = node.set(rtype::NSEC) else { continue };
            for record in set.records.iter().chain(self.signatures(set)) {
                self.reply.record(Section::Authority, |out| {
                    out.extend(node.name.as_bytes());
                    out.extend(&record[2..]);
                });
            }
        }
    }
}

/// Appends an encoded record with another owner.
fn push_owned(out: &mut Vec<u8>, owner: u16, record: &[u8]) {
    out.extend(owner.to_be_bytes());
    out.extend(&record[2..]);
}

/// The name in an encoded record's data, `skip` bytes into it.
fn name_in(record: &[u8], skip: usize) -> Option<(WireName, usize)> {
    let (name, end) = QueryName::read(record, RECORD_HEAD + skip)?;
    debug_assert!(end <= record.len() && end - HEADER <= MAX_NAME + skip);
    Some((WireName::join(&[], name.as_bytes())?, end))
}
