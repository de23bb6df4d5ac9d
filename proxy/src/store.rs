//! The services' maps: read whole, changed one operation at a time.

use aya::maps::{Array, MapData};
use sluice_ebpf_common::{Backend, Frontend, FrontendKey, Service, SlotKey, map_name};

use crate::{
    DatapathError, MapOp, Observed, Pins,
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
        for entry in self.backends.entries() {
            let (id, backend) = entry?;
            observed.apply(&MapOp::PutBackend { id, backend });
        }
        for entry in self.slots.entries() {
            let (key, backend) = entry?;
            observed.apply(&MapOp::PutSlot { key, backend });
        }
        for entry in self.services.entries() {
            let (id, service) = entry?;
            observed.apply(&MapOp::PutService { id, service });
        }
        for entry in self.frontends.entries() {
            let (key, frontend) = entry?;
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
            MapOp::RemoveFrontend { key } => (map_name::FRONTENDS, self.frontends.remove(key)),
            MapOp::RemoveService { id } => (map_name::SERVICES, self.services.remove(id)),
            MapOp::RemoveSlot { key } => (map_name::SLOTS, self.slots.remove(key)),
            MapOp::RemoveBackend { id } => (map_name::BACKENDS, self.backends.remove(id)),
        };
        self.refine(map, result)
    }
}
