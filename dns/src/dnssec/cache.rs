//! Signatures that were made, by what they are of. Bounded: those that were not asked for lately go first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use hickory_proto::dnssec::{DigestType, crypto::Digest};

use crate::metrics::SignatureMetrics;

/// Each behind a lock of its own.
const SHARDS: usize = 16;

/// A digest of what is signed.
type Mark = [u8; 32];

/// The signatures of a set of records.
#[derive(Clone, Debug)]
struct Kept {
    signatures: Arc<[Vec<u8>]>,
    /// When they no longer hold, in seconds since 1970.
    expires: u64,
}

/// Those asked for lately, and those before them. When the first are half of what there is room for they become the
/// second, which go.
#[derive(Debug, Default)]
struct Shard {
    new: HashMap<Mark, Kept, foldhash::fast::RandomState>,
    old: HashMap<Mark, Kept, foldhash::fast::RandomState>,
}

/// Signatures by what they are of.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Of each half of each shard.
    capacity: usize,
    metrics: SignatureMetrics,
}

impl Cache {
    /// Room for so many.
    pub(super) fn new(capacity: usize, metrics: SignatureMetrics) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity: capacity / (2 * SHARDS),
            metrics,
        }
    }

    /// The signatures of something that still hold at a moment, or those that are made now, with their end.
    pub(super) fn get_or(
        &self,
        of: &[&[u8]],
        until: u64,
        make: impl FnOnce() -> (Vec<Vec<u8>>, u64),
    ) -> Arc<[Vec<u8>]> {
        let mark = Digest::from_iter(of.iter().copied(), DigestType::SHA256);
        let mark = mark.ok().and_then(|digest| Mark::try_from(digest.as_ref()).ok());
        let Some(mark) = mark else { return make().0.into() };
        let shard = &self.shards[usize::from(mark[0]) % SHARDS];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut shard = lock();
            let found = shard.new.get(&mark).cloned();
            let found = found.or_else(|| {
                let kept = shard.old.remove(&mark)?;
                self.metrics.entries.dec();
                self.put(&mut shard, mark, kept.clone());
                Some(kept)
            });
            if let Some(kept) = found.filter(|kept| kept.expires > until) {
                self.metrics.hits.inc();
                return kept.signatures;
            }
        }
        // Made without the lock: others may sign meanwhile, the same perhaps.
        self.metrics.misses.inc();
        let (signatures, expires) = make();
        let signatures: Arc<[Vec<u8>]> = signatures.into();
        self.put(&mut lock(), mark, Kept { signatures: signatures.clone(), expires });
        signatures
    }

    fn put(&self, shard: &mut Shard, mark: Mark, kept: Kept) {
        if self.capacity == 0 {
            return;
        }
        if shard.new.len() >= self.capacity {
            let gone = std::mem::replace(&mut shard.old, std::mem::take(&mut shard.new));
            self.metrics.entries.sub(gone.len() as i64);
        }
        if shard.new.insert(mark, kept).is_none() {
            self.metrics.entries.inc();
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.new.len() + shard.old.len()
        };
        self.metrics.entries.sub(self.shards.iter().map(count).sum::<usize>() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_what_is_asked_for_stays() {
        let metrics = crate::metrics::Metrics::new().unwrap().rules.signatures;
        let cache = Cache::new(640, metrics.clone());
        let get = |n: u32| {
            let signatures = cache.get_or(&[&n.to_be_bytes()], 10, || (vec![n.to_be_bytes().to_vec()], 20));
            assert_eq!(*signatures, [n.to_be_bytes().to_vec()]);
        };
        for n in 0..10_000 {
            get(n);
            get(7);
        }
        let kept = metrics.entries.get();
        assert!((320..=640).contains(&kept), "{kept}");
        // The one that was always asked for was made once.
        assert_eq!((metrics.hits.get(), metrics.misses.get()), (10_000, 10_000));
        let none = Cache::new(0, metrics.clone());
        none.get_or(&[b"x"], 0, || (Vec::new(), 1));
        assert_eq!(metrics.entries.get(), kept);
        // What will not hold long enough is made anew.
        let made = cache.get_or(&[&7_u32.to_be_bytes()], 20, || (vec![b"new".to_vec()], 90));
        assert_eq!(*made, [b"new".to_vec()]);
        drop(cache);
        assert_eq!(metrics.entries.get(), 0);
    }
}
