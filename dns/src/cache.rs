//! What upstreams answered, kept for a while. Bounded in entries and in bytes; no clock of its own.
//!
//! Answers and denials are kept apart, so that a flood of names that do not exist pushes out no answer. Each
//! store is split into shards, each behind its own lock; a full shard gives up the entry that went unused the
//! longest, roughly (a clock hand passes over entries used since it came by last).

mod key;
mod store;

pub(crate) use self::key::Key;
use self::{key::KeyTail, store::Store};

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    CacheConfig,
    message::{Answer, Question},
};

/// An answer that is kept.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The answer.
    pub(crate) answer: Answer,
    /// When it came.
    pub(crate) stored: Instant,
    /// How many seconds it is good for.
    ttl: u32,
    /// How often it was asked for without a longer pause.
    hits: AtomicU32,
    /// When it was asked for last, in milliseconds since it came.
    asked: AtomicU32,
    /// Until when others are not asked for it again, in milliseconds since it came.
    paused: AtomicU32,
    /// What of its key is not in the answer's question.
    tail: KeyTail,
}

impl Entry {
    /// An answer that came now. Its time is zero where it must not be kept.
    pub(crate) fn new(answer: Answer, question: &Question, now: Instant, config: &CacheConfig) -> Self {
        let ttl = lifetime(&answer, config);
        let tail = KeyTail::of(question);
        let [hits, asked, paused] = [0; 3].map(AtomicU32::new);
        Self { answer, stored: now, ttl, hits, asked, paused, tail }
    }

    /// How long it is good for.
    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl.into())
    }

    /// Whether it may be told, up to so long past its time.
    pub(crate) fn is_kept(&self, now: Instant, beyond: Duration) -> bool {
        now.duration_since(self.stored) < self.ttl() + beyond
    }

    /// The answer's response code.
    pub(crate) fn rcode(&self) -> u16 {
        self.answer.rcode()
    }

    /// Notes that it was asked for, and says how often it was without a longer pause.
    pub(crate) fn asked(&self, now: Instant, pause: Duration) -> u32 {
        let since = self.since(now);
        let before = self.asked.swap(since, Ordering::Relaxed);
        if u128::from(since.saturating_sub(before)) > pause.as_millis() {
            self.hits.store(0, Ordering::Relaxed);
        }
        self.hits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts from nothing again.
    pub(crate) fn forget_asked(&self) {
        self.hits.store(0, Ordering::Relaxed);
    }

    /// Others are not asked for it again for so long.
    pub(crate) fn pause(&self, now: Instant, pause: Duration) {
        self.paused.store(self.since(now + pause), Ordering::Relaxed);
    }

    /// Whether others are not to be asked for it.
    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        self.since(now) < self.paused.load(Ordering::Relaxed)
    }

    /// The milliseconds since it came.
    fn since(&self, now: Instant) -> u32 {
        u32::try_from(now.duration_since(self.stored).as_millis()).unwrap_or(u32::MAX)
    }

    /// The seconds it is still good for, rounded up; none when it is past its time.
    pub(crate) fn remaining(&self, now: Instant) -> Option<u32> {
        let left = self.ttl().checked_sub(now.duration_since(self.stored)).filter(|left| !left.is_zero())?;
        Some(left.as_secs() as u32 + u32::from(left.subsec_nanos() > 0))
    }
}

/// How many seconds an answer is kept; 0: not at all.
fn lifetime(answer: &Answer, config: &CacheConfig) -> u32 {
    let bounded = |ttl: u32, most: u32, least: u32| ttl.max(least).min(most);
    match answer.rcode() {
        _ if answer.is_truncated() => 0,
        0 if !answer.is_empty() => bounded(answer.min_ttl(), config.success_ttl, config.min_success_ttl),
        0 | 3 => bounded(answer.negative_ttl(), config.denial_ttl, config.min_denial_ttl),
        2 => config.servfail_ttl,
        _ => 0,
    }
}

/// Both stores.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Answers.
    pub(crate) success: Store,
    /// Names and types that do not exist, and failures.
    pub(crate) denial: Store,
    /// How long an entry is kept beyond its time.
    stale: Duration,
    /// Answers are kept beside denials that came after them, and go before these.
    prefer_positive: bool,
}

impl Cache {
    /// An empty cache.
    pub(crate) fn new(config: &CacheConfig) -> Self {
        let store = |entries| Store::new(entries, config.max_bytes / 2);
        Self {
            success: store(config.success_capacity),
            denial: store(config.denial_capacity),
            stale: config.serve_stale.as_ref().map_or(Duration::ZERO, |stale| stale.duration),
            prefer_positive: config.serve_stale.as_ref().is_some_and(|stale| stale.prefer_positive),
        }
    }

    /// The entry of a key, past its time or not.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Arc<Entry>> {
        let is_kept = |entry: &Entry| entry.is_kept(now, self.stale);
        self.success.get(key, is_kept).or_else(|| self.denial.get(key, is_kept))
    }

    /// Keeps an entry in the place of whatever its key had; beside an answer that goes before it.
    pub(crate) fn put(&self, key: &Key, entry: &Arc<Entry>) {
        let is_told = |held: &Entry| held.is_kept(entry.stored, self.stale);
        if self.prefer_positive && !entry.answer.is_positive() && self.success.get(key, is_told).is_some() {
            self.denial.put(key, entry.clone());
            return;
        }
        let (to, from) = if entry.answer.is_denial() {
            (&self.denial, &self.success)
        } else {
            (&self.success, &self.denial)
        };
        // A failure does not push out an answer that may still be told, stale as it is.
        if entry.answer.rcode() == 2 && self.stale > Duration::ZERO && from.get(key, |_| true).is_some() {
            return;
        }
        to.put(key, entry.clone());
        from.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, ResponseCode},
        rr::{Name, RData, Record, RecordType, rdata},
    };

    use super::{store::SHARDS, *};
    use crate::{ServeStale, message::Reading, query::Query};

    fn name(n: usize) -> Name {
        format!("host-{n}.example.org.").parse().unwrap()
    }

    fn key(n: usize) -> Key {
        let message = crate::testing::question(&name(n).to_string(), RecordType::A);
        Key::of(&Query::read(&message).unwrap())
    }

    /// An answer with addresses of these times to live; without any, with a SOA record.
    fn answer(n: usize, code: ResponseCode, ttls: &[u32], soa: Option<(u32, u32)>) -> Answer {
        let question = crate::testing::question(&name(n).to_string(), RecordType::A);
        let query = Query::read(&question).unwrap();
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(hickory_proto::op::Query::query(name(n), RecordType::A));
        for ttl in ttls {
            message.add_answer(Record::from_rdata(name(n), *ttl, RData::A(rdata::A::new(192, 0, 2, 1))));
        }
        if let Some((ttl, minimum)) = soa {
            let data = rdata::SOA::new(name(0), name(0), 1, 2, 3, 4, minimum);
            message.add_authority(Record::from_rdata(name(0), ttl, RData::SOA(data)));
        }
        match Answer::read(message.to_vec().unwrap(), 7, &Question::of(&query), false) {
            Reading::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn entry(n: usize, answer: Answer, now: Instant, config: &CacheConfig) -> Entry {
        let question = crate::testing::question(&name(n).to_string(), RecordType::A);
        Entry::new(answer, &Question::of(&Query::read(&question).unwrap()), now, config)
    }

    #[test]
    fn times_are_bounded_as_coredns_bounds_them() {
        let config = CacheConfig { success_ttl: 3600, denial_ttl: 1800, ..CacheConfig::default() };
        use ResponseCode::{NXDomain, NoError, Refused, ServFail};
        for (what, code, ttls, soa, wanted) in [
            ("the least of its records", NoError, &[300, 60][..], None, 60),
            ("never long", NoError, &[86_400], None, 3600),
            ("never short", NoError, &[0], None, 5),
            ("a denial by the SOA's minimum", NXDomain, &[], Some((900, 60)), 60),
            ("or its own time", NXDomain, &[], Some((30, 60)), 30),
            ("never long", NoError, &[], Some((86_400, 86_400)), 1800),
            ("without SOA", NXDomain, &[], None, 5),
            ("a failure, shortly", ServFail, &[], None, 5),
            ("a refusal, never", Refused, &[], None, 0),
        ] {
            assert_eq!(lifetime(&answer(1, code, ttls, soa), &config), wanted, "{what}");
        }
    }

    #[test]
    fn an_entry_counts_down_and_goes() {
        let now = Instant::now();
        let config = CacheConfig { success_ttl: 60, ..CacheConfig::default() };
        let cache = Cache::new(&config);
        cache.put(&key(1), &Arc::new(entry(1, answer(1, ResponseCode::NoError, &[60], None), now, &config)));
        let left = |after: f64| {
            let now = now + Duration::from_secs_f64(after);
            cache.get(&key(1), now).and_then(|entry| entry.remaining(now))
        };
        assert_eq!(left(0.0), Some(60));
        assert_eq!(left(0.5), Some(60));
        assert_eq!(left(59.5), Some(1));
        assert_eq!(left(60.0), None);
        assert_eq!((cache.success.len(), cache.success.bytes()), (0, 0));
    }

    #[test]
    fn room_is_bounded_and_what_is_used_stays() {
        let now = Instant::now();
        let config =
            CacheConfig { success_capacity: 16 * SHARDS, max_bytes: 8 << 20, ..CacheConfig::default() };
        let cache = Cache::new(&config);
        let put = |n| {
            let entry = entry(n, answer(n, ResponseCode::NoError, &[60], None), now, &config);
            cache.put(&key(n), &Arc::new(entry));
        };
        put(0);
        for n in 1..5000 {
            put(n);
            assert!(cache.get(&key(0), now).is_some(), "used all the time, after {n} others");
        }
        assert_eq!(cache.success.len(), config.success_capacity);
        assert!(cache.success.evictions() >= 5000 - config.success_capacity - 1);

        let config = CacheConfig { max_bytes: 2 * SHARDS * 1000, ..config };
        let cache = Cache::new(&config);
        for n in 0..1000 {
            let entry = entry(n, answer(n, ResponseCode::NoError, &[60], None), now, &config);
            cache.put(&key(n), &Arc::new(entry));
        }
        let bytes = cache.success.bytes();
        assert!(bytes <= config.max_bytes / 2 && cache.success.len() > SHARDS, "{bytes}");
        let big = answer(1, ResponseCode::NoError, &[60; 100], None);
        cache.put(&key(1), &Arc::new(entry(1, big, now, &config)));
        assert!(cache.get(&key(1), now).is_none(), "too large for the room");
    }

    #[test]
    fn an_answer_takes_the_place_of_a_denial_and_the_other_way_round() {
        let now = Instant::now();
        let config = CacheConfig::default();
        let cache = Cache::new(&config);
        let put = |code, ttls: &[u32]| {
            cache.put(&key(1), &Arc::new(entry(1, answer(1, code, ttls, None), now, &config)));
            (cache.success.len(), cache.denial.len(), cache.get(&key(1), now).unwrap().answer.is_denial())
        };
        assert_eq!(put(ResponseCode::NXDomain, &[]), (0, 1, true));
        assert_eq!(put(ResponseCode::NoError, &[60]), (1, 0, false));
        assert_eq!(put(ResponseCode::NoError, &[]), (0, 1, true));
    }

    #[test]
    fn an_answer_that_goes_before_denials_outlives_them() {
        let now = Instant::now();
        let stale = Duration::from_secs(60);
        let serve_stale =
            Some(ServeStale { duration: stale, prefer_positive: true, ..ServeStale::default() });
        let config = CacheConfig { serve_stale, ..CacheConfig::default() };
        let cache = Cache::new(&config);
        let put = |code, ttls: &[u32], after: u64| {
            let now = now + Duration::from_secs(after);
            cache.put(&key(1), &Arc::new(entry(1, answer(1, code, ttls, None), now, &config)));
        };
        let is_denied = |after: u64| {
            cache.get(&key(1), now + Duration::from_secs(after)).map(|entry| entry.answer.is_denial())
        };
        put(ResponseCode::NoError, &[10], 0);
        put(ResponseCode::NXDomain, &[], 66);
        assert_eq!(
            (is_denied(66), cache.denial.len()),
            (Some(false), 1),
            "it may be told for a minute past its ten seconds"
        );
        assert_eq!(is_denied(70), Some(true), "then the denial counts");
        put(ResponseCode::NXDomain, &[], 71);
        put(ResponseCode::NoError, &[10], 72);
        assert_eq!((is_denied(72), cache.denial.len()), (Some(false), 0), "a new answer ends it");
    }

    #[test]
    fn keys_tell_apart_what_answers_differ_by_and_nothing_else() {
        let upper = crate::testing::question("HOST-1.Example.ORG.", RecordType::A);
        let query = Query::read(&upper).unwrap();
        assert_eq!(Key::of(&query).as_bytes(), key(1).as_bytes());
        assert_eq!(Key::of_question(&Question::of(&query)).as_bytes(), key(1).as_bytes());
        let question = Question::of(&query);
        for other in [
            Question { dnssec_ok: true, ..question.clone() },
            Question { checking_disabled: true, ..question.clone() },
            question.about(b"\x06host-2\x07example\x03org\0"),
        ] {
            assert_ne!(Key::of_question(&other).as_bytes(), key(1).as_bytes());
        }
    }
}
