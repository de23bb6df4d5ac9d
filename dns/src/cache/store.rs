//! Entries by key, bounded in number and in bytes.
//!
//! A key is not kept: name and type stand in the answer's own question, the rest with the entry.

use std::{
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table};

use super::{Entry, Key};

/// Each behind a lock of its own.
pub(super) const SHARDS: usize = 16;
/// What an entry takes beside its answer, roughly: itself, its slot, its place in the table, and what the allocator takes.
const OVERHEAD: usize = 200;

/// Entries by key.
#[derive(Debug)]
pub(crate) struct Store {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    entries: AtomicUsize,
    evictions: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    /// Places of slots, by the hashes of their keys.
    places: HashTable<u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    entry: Arc<Entry>,
    is_used: bool,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.entry.answer.size() + OVERHEAD
    }
}

impl Store {
    /// An empty one.
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                max_entries: max_entries.div_ceil(SHARDS),
                max_bytes: max_bytes / SHARDS,
                ..Shard::default()
            })
        };
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            entries: AtomicUsize::new(0),
            evictions: AtomicUsize::new(0),
        }
    }

    fn shard(&self, key: &Key) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash_one(key.as_bytes());
        // Other bits than those by which the table tells places apart.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        (hash, shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// How many were given up for want of room.
    pub(crate) fn evictions(&self) -> usize {
        self.evictions.load(Ordering::Relaxed)
    }

    /// The entry of a key, if it is still kept; otherwise it goes.
    pub(super) fn get(&self, key: &Key, is_kept: impl Fn(&Entry) -> bool) -> Option<Arc<Entry>> {
        let (hash, mut shard) = self.shard(key);
        let place = shard.find(hash, key)?;
        let slot = shard.slots.get_mut(place as usize)?.as_mut()?;
        if is_kept(&slot.entry) {
            slot.is_used = true;
            return Some(slot.entry.clone());
        }
        shard.clear(place);
        self.entries.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Takes the entry of a key away.
    pub(super) fn remove(&self, key: &Key) {
        let (hash, mut shard) = self.shard(key);
        if let Some(place) = shard.find(hash, key) {
            shard.clear(place);
            self.entries.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Keeps an entry in the place of whatever its key had.
    pub(super) fn put(&self, key: &Key, entry: Arc<Entry>) {
        self.remove(key);
        let (hash, mut shard) = self.shard(key);
        let slot = Slot { hash, entry, is_used: false };
        if shard.max_entries == 0 || slot.bytes() > shard.max_bytes {
            return;
        }
        while shard.places.len() >= shard.max_entries || shard.bytes + slot.bytes() > shard.max_bytes {
            shard.evict();
            self.entries.fetch_sub(1, Ordering::Relaxed);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        shard.fill(slot);
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// What all entries take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum()
    }
}

impl Shard {
    fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let is_it = |place: &u32| match self.slots.get(*place as usize) {
            Some(Some(slot)) => slot.hash == hash && key.is_of(&slot.entry),
            _ => false,
        };
        self.places.find(hash, is_it).copied()
    }

    fn clear(&mut self, place: u32) {
        let Some(slot) = self.slots.get_mut(place as usize).and_then(Option::take) else { return };
        self.bytes -= slot.bytes();
        if let Ok(found) = self.places.find_entry(slot.hash, |held| *held == place) {
            found.remove();
        }
        self.free.push(place);
    }

    fn fill(&mut self, slot: Slot) {
        self.bytes += slot.bytes();
        let hash = slot.hash;
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // A shard has its bound.
            (self.slots.len() - 1) as u32
        });
        self.slots[place as usize] = Some(slot);
        let slots = &self.slots;
        let hash_of = |place: &u32| slots[*place as usize].as_ref().map_or(0, |slot| slot.hash);
        if let hash_table::Entry::Vacant(free) = self.places.entry(hash, |held| *held == place, hash_of) {
            free.insert(place);
        }
    }

    /// Gives up one entry; there is one.
    fn evict(&mut self) {
        loop {
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            match self.slots.get_mut(self.hand) {
                Some(Some(slot)) if slot.is_used => slot.is_used = false,
                Some(Some(_)) => return self.clear(self.hand as u32),
                Some(None) => {}
                None => return,
            }
        }
    }
}
