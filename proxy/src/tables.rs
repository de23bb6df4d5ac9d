//! Typed access to the pinned maps.

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray},
};

use crate::{DatapathError, Pins};

/// A pinned hash map (an LRU hash map has the same verbs).
pub(crate) struct Table<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + std::fmt::Debug, V: Pod> Table<K, V> {
    pub(crate) fn open(pins: &Pins, name: &'static str) -> Result<Self, DatapathError> {
        let map = open(pins, name)?;
        Ok(Self { name, map: HashMap::try_from(map).map_err(DatapathError::map("open", name, ""))? })
    }

    pub(crate) fn put(&mut self, key: &K, value: &V) -> Result<(), DatapathError> {
        self.map.insert(key, value, 0).map_err(DatapathError::map("put", self.name, format!("{key:?}")))
    }

    /// Removes an entry; one that is not there is fine.
    pub(crate) fn remove(&mut self, key: &K) -> Result<(), DatapathError> {
        match self.map.remove(key) {
            Err(error) if !is_missing(&error) => {
                Err(DatapathError::map("remove", self.name, format!("{key:?}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// All entries. One that another writer adds or removes meanwhile may be there or not.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<(K, V), DatapathError>> {
        self.map.iter().map(|entry| entry.map_err(DatapathError::map("read", self.name, "")))
    }

    /// How many entries there are: a system call for each.
    pub(crate) fn count(&self) -> Result<usize, DatapathError> {
        let mut keys = self.map.keys();
        keys.try_fold(0, |count, key| key.map(|_| count + 1))
            .map_err(DatapathError::map("read", self.name, ""))
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, DatapathError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(DatapathError::map("get", self.name, format!("{key:?}"))(error)),
        }
    }
}

/// Opens a pinned map.
fn open(pins: &Pins, name: &'static str) -> Result<Map, DatapathError> {
    MapData::from_pin(pins.map(name))
        .and_then(Map::from_map_data)
        .map_err(DatapathError::map("open", name, ""))
}

/// Opens a pinned trie.
pub(crate) fn trie<K: Pod, V: Pod>(
    pins: &Pins,
    name: &'static str,
) -> Result<LpmTrie<MapData, K, V>, DatapathError> {
    LpmTrie::try_from(open(pins, name)?).map_err(DatapathError::map("open", name, ""))
}

/// Opens a pinned array.
pub(crate) fn array<V: Pod>(pins: &Pins, name: &'static str) -> Result<Array<MapData, V>, DatapathError> {
    Array::try_from(open(pins, name)?).map_err(DatapathError::map("open", name, ""))
}

/// Opens a pinned per-CPU array.
pub(crate) fn per_cpu<V: Pod>(
    pins: &Pins,
    name: &'static str,
) -> Result<PerCpuArray<MapData, V>, DatapathError> {
    PerCpuArray::try_from(open(pins, name)?).map_err(DatapathError::map("open", name, ""))
}

/// Whether an operation failed because the key is not there.
pub(crate) fn is_missing(error: &aya::maps::MapError) -> bool {
    match error {
        aya::maps::MapError::KeyNotFound => true,
        aya::maps::MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
