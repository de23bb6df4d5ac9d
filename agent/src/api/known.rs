//! What is known of one kind of objects, and how lists and events change it: pure.
//!
//! The objects themselves are the loop's; here stays their name and a hash of what the API sent, so that a list
//! taken anew costs as much as it differs from what is known. A list takes effect when it is complete, as one
//! step: nothing is taken away because it has not been listed *yet*.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
};

use sluice_model::ObjectKey;

use super::{
    intern::Interner,
    json,
    kind::{Identity, Kind},
};
use crate::source::Delta;

/// What is known of one kind.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    objects: HashMap<ObjectKey, Held>,
    /// Objects that cannot be used, with what is wrong with them.
    faults: BTreeMap<ObjectKey, String>,
    /// Faults that have not been told yet.
    untold: Vec<String>,
    hasher: RandomState,
    /// What only some need of the objects is kept.
    whole: bool,
    interner: Interner,
    /// The list that is being taken, or was last.
    round: u32,
    /// What the list that is being taken has changed so far.
    pending: Vec<Delta>,
}

#[derive(Debug)]
struct Held {
    /// Hash of what the API sent.
    hash: u64,
    /// The last list that the object was in.
    round: u32,
    /// Whether the loop has it: objects that are of no use, or cannot be used, are not passed on.
    passed_on: bool,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// It came, or changed.
    Changed,
    /// It is gone.
    Deleted,
}

impl Known {
    /// Nothing is known.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            objects: HashMap::new(),
            faults: BTreeMap::new(),
            untold: Vec::new(),
            hasher: RandomState::new(),
            whole: false,
            interner: Interner::default(),
            round: 0,
            pending: Vec::new(),
        }
    }

    /// Says whether what only some need of the objects is kept, for the next list.
    pub(super) fn keep_whole(&mut self, whole: bool) {
        if std::mem::replace(&mut self.whole, whole) != whole {
            // What is known was read otherwise.
            self.objects.values_mut().for_each(|held| held.hash = !held.hash);
        }
    }

    /// How many objects the API has.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// How many objects cannot be used.
    pub(super) fn faults(&self) -> usize {
        self.faults.len()
    }

    /// Faults that came since this was last asked.
    pub(super) fn take_untold(&mut self) -> Vec<String> {
        std::mem::take(&mut self.untold)
    }

    /// A list begins. One that had begun and was not completed counts for nothing, except that what it brought
    /// is compared again.
    pub(super) fn begin_list(&mut self) {
        // The loop has not heard of what that list brought: the hashes must not say that it has.
        for delta in std::mem::take(&mut self.pending) {
            match delta {
                Delta::Put(object) => {
                    if let Some(held) = self.objects.get_mut(&object.key()) {
                        held.hash = !held.hash;
                    }
                }
                Delta::Remove(key) => {
                    let unknown = Held { hash: 0, round: self.round, passed_on: true };
                    let held = self.objects.entry(key).or_insert(unknown);
                    held.passed_on = true;
                    held.hash = !held.hash;
                }
            }
        }
        self.round = self.round.wrapping_add(1);
    }

    /// An element of the list, or an event in the midst of it; gives the version that it came with.
    pub(super) fn listed(&mut self, happened: Happened, text: &[u8]) -> Option<String> {
        let (version, delta) = self.event(happened, text);
        self.pending.extend(delta);
        version
    }

    /// The list is complete: gives all that it changes. What is gone comes first, so that what it held (an address,
    /// a port) is free for what came in its place.
    pub(super) fn end_list(&mut self) -> Vec<Delta> {
        let round = self.round;
        let mut deltas = Vec::new();
        self.objects.retain(|key, held| {
            let there = held.round == round;
            if !there && held.passed_on {
                deltas.push(Delta::Remove(key.clone()));
            }
            there
        });
        let objects = &self.objects;
        self.faults.retain(|key, _| objects.contains_key(key));
        deltas.append(&mut self.pending);
        self.pending = Vec::new();
        deltas
    }

    /// An event of a watch; gives the object's version, and what it changes.
    pub(super) fn event(&mut self, happened: Happened, text: &[u8]) -> (Option<String>, Option<Delta>) {
        let text = &*json::lightened(text, self.kind.unread());
        let mut identity: Identity = match json::read(text) {
            Ok(identity) => identity,
            Err(error) => {
                self.untold.push(format!("one of the {}: metadata: {error}", self.kind));
                return (None, None);
            }
        };
        let delta = match happened {
            Happened::Changed => self.take(&identity, text),
            Happened::Deleted => self.remove(&identity),
        };
        (identity.version(), delta)
    }

    fn take(&mut self, identity: &Identity, text: &[u8]) -> Option<Delta> {
        let Some(key) = self.kind.key(identity) else {
            self.untold.push(format!("{}: metadata.name is missing", self.kind.title_of(identity)));
            return None;
        };
        let (hash, round) = (self.hasher.hash_one(text), self.round);
        let before = match self.objects.get_mut(&key) {
            Some(held) => {
                held.round = round;
                if held.hash == hash {
                    return None;
                }
                held.hash = hash;
                held.passed_on
            }
            None => false,
        };
        match self.kind.convert(identity, text, self.whole) {
            Ok(Some(mut object)) => {
                self.interner.share(&mut object);
                self.faults.remove(&key);
                // The loop's own names, so that they are in memory once.
                self.objects.insert(object.key(), Held { hash, round, passed_on: true });
                Some(Delta::Put(object))
            }
            Ok(None) => {
                self.faults.remove(&key);
                self.objects.insert(key.clone(), Held { hash, round, passed_on: false });
                before.then_some(Delta::Remove(key))
            }
            Err(fault) => {
                // What was known of it stays in force, as long as the object is there at all.
                let text = fault.to_string();
                if self.faults.insert(key.clone(), text.clone()).as_ref() != Some(&text) {
                    self.untold.push(text);
                }
                self.objects.insert(key, Held { hash, round, passed_on: before });
                None
            }
        }
    }

    fn remove(&mut self, identity: &Identity) -> Option<Delta> {
        let key = self.kind.key(identity)?;
        self.faults.remove(&key);
        let held = self.objects.remove(&key)?;
        held.passed_on.then_some(Delta::Remove(key))
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
