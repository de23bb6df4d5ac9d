//! Slices by whom they belong to.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use crate::{EndpointSlice, ObjectName};

/// Slices by the service, or the import, that they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    /// Each owner's in the order of their own names. A list: almost all have one or two, for which a map would take more
    /// memory than they do.
    held: BTreeMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    /// Under whom each slice is held, so that a removal costs no search.
    owners: BTreeMap<ObjectName, ObjectName>,
}

impl Slices {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.held.values().flatten()
    }

    /// Those of one owner, by the slices' names.
    pub fn of(&self, owner: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.held.get(owner).into_iter().flatten()
    }

    /// Holds a slice under `owner`, and under nobody else; calls `changed` with each owner whose slices that alters.
    pub(crate) fn put(
        &mut self,
        owner: Option<&ObjectName>,
        slice: &Arc<EndpointSlice>,
        mut changed: impl FnMut(ObjectName),
    ) {
        // A slice whose label names another owner by now leaves the one that it was with.
        if self.owners.get(&slice.name).is_some_and(|held| Some(held) != owner) {
            self.remove(&slice.name, &mut changed);
        }
        let Some(owner) = owner else { return };
        self.owners.insert(slice.name.clone(), owner.clone());
        let list = self.held.entry(owner.clone()).or_default();
        match list.binary_search_by(|held| held.name.cmp(&slice.name)) {
            Ok(at) if list[at] == *slice => return,
            Ok(at) => list[at] = slice.clone(),
            Err(at) => {
                list.reserve_exact(1);
                list.insert(at, slice.clone());
            }
        }
        changed(owner.clone());
    }

    /// Holds a slice no longer.
    pub(crate) fn remove(&mut self, slice: &ObjectName, mut changed: impl FnMut(ObjectName)) {
        let Some(owner) = self.owners.remove(slice) else { return };
        if let btree_map::Entry::Occupied(mut held) = self.held.entry(owner.clone()) {
            held.get_mut().retain(|held| held.name != *slice);
            if held.get().is_empty() {
                held.remove();
            }
        }
        changed(owner);
    }
}
