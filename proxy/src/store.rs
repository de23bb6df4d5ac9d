//! The services' maps: read whole, changed one operation at a time.

use aya::maps::{Array, LpmTrie, MapData, lpm_trie::Key};
use sluice_ebpf_common::{
    Addr, Backend, Frontend, FrontendKey, MemberKey, Service, SlotKey, SourceRangeKey, map_name,
};

use crate::{
    DatapathError, MapOp, Observed, Pins, SourceRange, batch,
    tables::{self, Table},
};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The map is full.
    #[error("map {map} is full ({capacity} entries)")]
    Full {
        /// The map.
        map: &'static str,
        /// What it can hold.
        capacity: u32,
    },
    /// Anything else.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// Where the services' maps are. The kernel has one; tests have their own.
pub trait MapStore {
    /// Reads everything back.
    fn dump(&self) -> Result<Observed, StoreError>;
    /// Applies one operation.
    fn apply(&mut self, op: &MapOp) -> Result<(), StoreError>;
}

/// The pinned maps of this node.
pub struct PinnedStore {
    pins: Pins,
    frontends: Table<FrontendKey, Frontend>,
    services: Table<u32, Service>,
    slots: Table<SlotKey, u32>,
    backends: Table<u32, Backend>,
    members: Table<MemberKey, u32>,
    source_ranges: LpmTrie<MapData, SourceRangeKey, u32>,
    ids: Array<MapData, u64>,
}

impl PinnedStore {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            pins: pins.clone(),
            frontends: Table::open(pins, map_name::FRONTENDS)?,
            services: Table::open(pins, map_name::SERVICES)?,
            slots: Table::open(pins, map_name::SLOTS)?,
            backends: Table::open(pins, map_name::BACKENDS)?,
            members: Table::open(pins, map_name::MEMBERS)?,
            source_ranges: tables::trie(pins, map_name::SOURCE_RANGES)?,
            ids: tables::array(pins, map_name::IDS)?,
        })
    }

    /// Tells a full map from other errors: the kernel says E2BIG.
    fn refine(&self, map: &'static str, result: Result<(), DatapathError>) -> Result<(), StoreError> {
        const E2BIG: i32 = 7;
        result.map_err(|error| {
            let full = matches!(
                &error,
                DatapathError::Map { source, .. }
                    if matches!(&**source, aya::maps::MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(E2BIG))
            );
            if full {
                let capacity = crate::load::map_info(&self.pins.map(map), map).map_or(0, |info| info.max_entries());
                return StoreError::Full { map, capacity };
            }
            error.into()
        })
    }
}

impl MapStore for PinnedStore {
    fn dump(&self) -> Result<Observed, StoreError> {
        let mut observed = Observed::default();
        let id = |index| self.ids.get(&index, 0).map_err(DatapathError::map("get", map_name::IDS, index));
        observed.apply(&MapOp::PutIds { next_service: id(0)?, next_backend: id(1)? });
        for (id, backend) in batch::all(&self.pins, map_name::BACKENDS)? {
            observed.apply(&MapOp::PutBackend { id, backend });
        }
        for (key, backend) in batch::all(&self.pins, map_name::MEMBERS)? {
            observed.apply(&MapOp::PutMember { key, backend });
        }
        for entry in self.source_ranges.keys() {
            let key = entry.map_err(DatapathError::map("read", map_name::SOURCE_RANGES, ""))?;
            observed.apply(&MapOp::PutSourceRange { range: from_key(&key) });
        }
        for (key, backend) in batch::all(&self.pins, map_name::SLOTS)? {
            observed.apply(&MapOp::PutSlot { key, backend });
        }
        for (id, service) in batch::all(&self.pins, map_name::SERVICES)? {
            observed.apply(&MapOp::PutService { id, service });
        }
        for (key, frontend) in batch::all(&self.pins, map_name::FRONTENDS)? {
            observed.apply(&MapOp::PutFrontend { key, frontend });
        }
        Ok(observed)
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), StoreError> {
        let (map, result) = match op {
            MapOp::PutIds { next_service, next_backend } => {
                for (index, next) in [(0, next_service), (1, next_backend)] {
                    self.ids.set(index, next, 0).map_err(DatapathError::map("put", map_name::IDS, index))?;
                }
                return Ok(());
            }
            MapOp::PutBackend { id, backend } => (map_name::BACKENDS, self.backends.put(id, backend)),
            MapOp::PutSlot { key, backend } => (map_name::SLOTS, self.slots.put(key, backend)),
            MapOp::PutService { id, service } => (map_name::SERVICES, self.services.put(id, service)),
            MapOp::PutFrontend { key, frontend } => (map_name::FRONTENDS, self.frontends.put(key, frontend)),
            MapOp::PutMember { key, backend } => (map_name::MEMBERS, self.members.put(key, backend)),
            MapOp::RemoveMember { key } => (map_name::MEMBERS, self.members.remove(key)),
            MapOp::PutSourceRange { range } => {
                let put = self.source_ranges.insert(&to_key(range), 0, 0);
                (map_name::SOURCE_RANGES, put.map_err(DatapathError::map("put", map_name::SOURCE_RANGES, op)))
            }
            MapOp::RemoveSourceRange { range } => {
                let result = match self.source_ranges.remove(&to_key(range)) {
                    Err(error) if tables::is_missing(&error) => Ok(()),
                    other => other.map_err(DatapathError::map("remove", map_name::SOURCE_RANGES, op)),
                };
                (map_name::SOURCE_RANGES, result)
            }
            MapOp::RemoveFrontend { key } => (map_name::FRONTENDS, self.frontends.remove(key)),
            MapOp::RemoveService { id } => (map_name::SERVICES, self.services.remove(id)),
            MapOp::RemoveSlot { key } => (map_name::SLOTS, self.slots.remove(key)),
            MapOp::RemoveBackend { id } => (map_name::BACKENDS, self.backends.remove(id)),
        };
        self.refine(map, result)
    }
}

/// The trie's form of a range: the service's 32 bits come first and always count.
fn to_key(range: &SourceRange) -> Key<SourceRangeKey> {
    let key = SourceRangeKey { service: range.service.to_be(), client: range.client.words() };
    Key::new(32 + range.prefix, key)
}

fn from_key(key: &Key<SourceRangeKey>) -> SourceRange {
    let data = key.data();
    SourceRange {
        service: u32::from_be(data.service),
        client: Addr::from_words(data.client),
        prefix: key.prefix_len().saturating_sub(32),
    }
}
