//! The objects, every version of them that is not forgotten, and the pages of lists that are being read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::Resource;
use super::object::{Key, Object};

/// Objects of one kind, by key; cloned in no time, which is what a list in pages reads from.
pub(super) type Objects = imbl::OrdMap<Key, Arc<Object>>;

/// How many changes are remembered.
const HISTORY: usize = 20_000;
/// How many lists may be read page by page at a time.
const PAGED_LISTS: usize = 64;

/// A change: from what to what.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) resource: &'static Resource,
    pub(super) before: Option<Arc<Object>>,
    pub(super) after: Option<Arc<Object>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Watches may not begin at versions before this one.
    forgotten: u64,
    /// Changes up to this version are not there any more.
    trimmed: u64,
    kinds: BTreeMap<&'static Resource, Objects>,
    history: VecDeque<Change>,
    paged: VecDeque<(u64, u64, Objects)>,
    lists: u64,
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

/// A version that the store has forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub(super) oldest: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        // A real server's versions do not begin with 1 either.
        let state = State { version: 1000, forgotten: 1000, ..State::default() };
        Self { state: Mutex::new(state), version: watch::channel(1000).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every new version.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The objects of a kind, and the version that this is.
    pub(super) fn objects(&self, resource: &'static Resource) -> (Objects, u64) {
        let state = self.lock();
        (state.kinds.get(resource).cloned().unwrap_or_default(), state.version)
    }

    /// Creates or replaces an object; its new version.
    pub(super) fn put(
        &self,
        resource: &'static Resource,
        key: Key,
        value: Map<String, Value>,
    ) -> Arc<Object> {
        let mut state = self.lock();
        let version = state.version + 1;
        let object = Arc::new(Object::new(resource, key.clone(), value, version));
        let before = state.kinds.entry(resource).or_default().insert(key, object.clone());
        self.changed(state, Change { version, resource, before, after: Some(object.clone()) });
        object
    }

    /// Removes an object, if it is there.
    pub(super) fn remove(&self, resource: &'static Resource, key: &Key) -> Option<Arc<Object>> {
        let mut state = self.lock();
        let version = state.version + 1;
        let before = state.kinds.get_mut(resource)?.remove(key)?;
        self.changed(state, Change { version, resource, before: Some(before.clone()), after: None });
        Some(before)
    }

    fn changed(&self, mut state: MutexGuard<'_, State>, change: Change) {
        state.version = change.version;
        state.history.push_back(change);
        if state.history.len() > HISTORY
            && let Some(oldest) = state.history.pop_front()
        {
            state.trimmed = oldest.version;
            state.forgotten = state.forgotten.max(oldest.version);
        }
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
    }

    /// What happened to a kind after a version, and the version that this leads to.
    pub(super) fn since(&self, resource: &Resource, version: u64) -> Result<(Vec<Change>, u64), Forgotten> {
        let state = self.lock();
        if version < state.trimmed {
            return Err(Forgotten { oldest: state.trimmed + 1 });
        }
        let start = state.history.partition_point(|change| change.version <= version);
        let changes = state.history.range(start..).filter(|change| change.resource == resource);
        Ok((changes.cloned().collect(), state.version.max(version)))
    }

    /// Whether a watch may begin at a version.
    pub(super) fn knows(&self, version: u64) -> Result<(), Forgotten> {
        let forgotten = self.lock().forgotten;
        if version < forgotten { Err(Forgotten { oldest: forgotten + 1 }) } else { Ok(()) }
    }

    /// Forgets all that happened so far, for watches to come: older versions, and the pages of unfinished lists.
    /// Running watches are not disturbed.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        // A version of its own, so that nobody happens to be at the newest.
        state.version += 1;
        state.forgotten = state.version;
        state.paged.clear();
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
    }

    /// Keeps a list that is read page by page; the name under which the next page is asked for.
    pub(super) fn keep_list(&self, objects: Objects, version: u64) -> u64 {
        let mut state = self.lock();
        state.lists += 1;
        let id = state.lists;
        state.paged.push_back((id, version, objects));
        if state.paged.len() > PAGED_LISTS {
            state.paged.pop_front();
        }
        id
    }

    /// A list that was kept.
    pub(super) fn kept_list(&self, id: u64) -> Option<(Objects, u64)> {
        let state = self.lock();
        let (_, version, objects) = state.paged.iter().find(|(kept, ..)| *kept == id)?;
        Some((objects.clone(), *version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_a_version_on_until_they_are_forgotten() {
        let store = Store::new();
        let services = Resource::of("v1", "Service").unwrap();
        let nodes = Resource::of("v1", "Node").unwrap();
        let key = |name: &str| (String::new(), name.to_owned());
        let (_, start) = store.objects(services);
        store.put(services, key("a"), Map::new());
        store.put(nodes, key("n"), Map::new());
        store.put(services, key("a"), Map::new());
        let second = start + 3;
        store.remove(services, &key("a"));
        let (changes, now) = store.since(services, start).unwrap();
        let shapes: Vec<_> = changes.iter().map(|one| (one.before.is_some(), one.after.is_some())).collect();
        assert_eq!(shapes, [(false, true), (true, true), (true, false)]);
        assert_eq!((now, store.since(services, second).unwrap().0.len()), (start + 4, 1));
        assert_eq!(store.knows(now), Ok(()));
        store.forget();
        assert_eq!(store.knows(now), Err(Forgotten { oldest: now + 2 }));
        let (_, newest) = store.objects(services);
        assert_eq!(store.knows(newest), Ok(()));
        assert_eq!(store.since(services, second).unwrap().0.len(), 1, "a running watch goes on");
    }
}
