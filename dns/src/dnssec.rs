//! Signs what we answer for domains of ours, as it is asked for (RFC 4034, RFC 4035).
//!
//! That a name, or a type of it, is not there is said with an NSEC record made for the question, which covers the name alone
//! (RFC 4470, "black lies"): every name then exists, and NXDOMAIN becomes NOERROR.

mod cache;
mod denial;
mod key;
mod message;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::key::KeyError;
use self::{
    cache::Cache,
    key::Key,
    message::{Parsed, Set, canonical},
};
use crate::{
    ConfigError, Dnssec,
    metrics::SignatureMetrics,
    name::WireName,
    query::QueryName,
    records::push_head,
    reply::{Reply, Section},
    wire::{QUESTION_POINTER, Rcode, rtype},
};

/// How long a signature holds, from now.
const HOLDS: Duration = Duration::from_hours(8 * 24);
/// How long ago it is said to have begun: clocks differ.
const BEGAN: Duration = Duration::from_hours(3);
/// One that holds no longer than this is made anew.
const RENEWED: Duration = Duration::from_hours(2 * 24);
/// The time to live of DNSKEY records.
const KEY_TTL: u32 = 3600;

/// Signs the answers of some domains.
#[derive(Debug)]
pub(crate) struct Signer {
    /// The longest first.
    zones: Vec<WireName>,
    keys: Vec<Key>,
    /// Some keys sign keys alone.
    is_split: bool,
    cache: Cache,
}

/// What of an answer is ours to sign, and how.
pub(crate) struct Subject<'a> {
    /// Whether records of this owner and type are ours.
    pub(crate) is_ours: &'a dyn Fn(&QueryName, u16) -> bool,
    /// Whether a name is delegated to others.
    pub(crate) is_cut: &'a dyn Fn(&QueryName) -> bool,
    /// The moment.
    pub(crate) now: SystemTime,
}

impl Signer {
    /// Reads the keys.
    pub(crate) fn new(config: &Dnssec, metrics: &SignatureMetrics) -> Result<Self, ConfigError> {
        let name = |text: &String| WireName::parse(text).ok_or_else(|| ConfigError::Zone(text.clone()));
        let mut zones = config.zones.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        zones.sort_unstable_by_key(|zone| std::cmp::Reverse(zone.as_bytes().len()));
        if zones.is_empty() {
            return Err(ConfigError::NoZone("dnssec"));
        }
        let wrong = |error| ConfigError::Key(Box::new(error));
        let keys =
            config.keys.iter().map(|file| Key::read(file)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        for key in &keys {
            if !zones.iter().any(|zone| zone.is_below(&key.owner)) {
                return Err(wrong(KeyError::Foreign {
                    file: key.file.clone(),
                    owner: key.owner.to_string(),
                }));
            }
        }
        if keys.is_empty() {
            return Err(ConfigError::NoKey);
        }
        let is_split = keys.iter().any(Key::signs_keys) && !keys.iter().all(Key::signs_keys);
        Ok(Self { zones, keys, is_split, cache: Cache::new(config.cache_capacity, metrics.clone()) })
    }

    /// The domain in which a name's answers are signed.
    pub(crate) fn zone_of(&self, name: &QueryName) -> Option<&WireName> {
        self.zones.iter().find(|zone| name.labels_before(zone.as_bytes()).is_some())
    }

    /// Writes the keys of a domain, which is the name asked for; signed, where that is wanted.
    pub(crate) fn write_keys(
        &self,
        zone: &WireName,
        is_signed: bool,
        now: SystemTime,
        reply: &mut Reply<'_>,
    ) {
        let data: Vec<Vec<u8>> = self.keys.iter().map(|key| key.data.clone()).collect();
        for data in &data {
            reply.record(Section::Answer, |out| push_record(out, None, rtype::DNSKEY, KEY_TTL, data));
        }
        if is_signed {
            let set = Set { owner: zone.as_bytes().to_vec(), rtype: rtype::DNSKEY, ttl: KEY_TTL, data };
            for signature in &*self.signatures(&set, zone, now) {
                reply.record(Section::Answer, |out| push_record(out, None, rtype::RRSIG, KEY_TTL, signature));
            }
        }
    }

    /// Writes an answer with its signatures; false, with nothing written, where it is as it should be.
    pub(crate) fn write(&self, answer: &[u8], subject: &Subject<'_>, mut reply: Reply<'_>) -> bool {
        let Some(mut parsed) = Parsed::read(answer).filter(Parsed::is_bare) else { return false };
        self.deny(&mut parsed, subject);
        for (section, sets) in [
            (Section::Answer, &parsed.answers),
            (Section::Authority, &parsed.authority),
            (Section::Additional, &parsed.additional),
        ] {
            for set in sets {
                let Some((name, _)) = QueryName::read(&set.owner.to_ascii_lowercase(), 0) else {
                    return false;
                };
                let is_question = name.as_bytes() == parsed.question.as_bytes();
                let owner = (!is_question).then_some(set.owner.as_slice());
                // Where a domain is served may be left out beside an answer.
                let is_extra =
                    section == Section::Authority && set.rtype == rtype::NS && !parsed.answers.is_empty();
                let mut add = |rtype, data: &[u8]| {
                    let write = |out: &mut Vec<u8>| push_record(out, owner, rtype, set.ttl, data);
                    if is_extra { reply.extra(section, write) } else { reply.record(section, write) }
                };
                for data in &set.data {
                    add(set.rtype, data);
                }
                // Where others have the names from here on, that is theirs to sign; a denial is ours.
                let is_ours = set.rtype == rtype::NSEC || (subject.is_ours)(&name, set.rtype);
                let Some(zone) = self.zone_of(&name).filter(|_| is_ours) else { continue };
                for signature in &*self.signatures(set, zone, subject.now) {
                    add(rtype::RRSIG, signature);
                }
            }
        }
        reply.finish(if parsed.rcode == 0 { Rcode::NoError } else { Rcode::NxDomain });
        true
    }

    /// The data of the signatures of a set of records.
    fn signatures(&self, set: &Set, zone: &WireName, now: SystemTime) -> std::sync::Arc<[Vec<u8>]> {
        let signed = canonical(set);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.cache.get_or(&[&signed, zone.as_bytes()], (now + RENEWED).as_secs(), || {
            let expires = now + HOLDS;
            let times = [expires.as_secs() as u32, now.saturating_sub(BEGAN).as_secs() as u32];
            let is_meant = |key: &&Key| !self.is_split || key.signs_keys() == (set.rtype == rtype::DNSKEY);
            let signatures =
                self.keys.iter().filter(is_meant).filter_map(|key| key.sign(set, &signed, zone, times));
            (signatures.collect(), expires.as_secs())
        })
    }
}

/// Appends a record; without an owner, the question's name is that.
fn push_record(out: &mut Vec<u8>, owner: Option<&[u8]>, rtype: u16, ttl: u32, data: &[u8]) {
    match owner {
        None => push_head(out, QUESTION_POINTER, rtype, ttl),
        Some(owner) => {
            out.extend(owner);
            let start = out.len();
            push_head(out, 0, rtype, ttl);
            out.drain(start..start + 2);
        }
    }
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}
