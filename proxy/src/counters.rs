//! What the datapath counts, and how full its maps are.

use aya::Pod;
use sluice_ebpf_common::{
    Addr, Backend, DropReason, Endpoint, Frontend, FrontendKey, Service, SlotKey, map_name,
};

use crate::{
    DatapathError, Pins, load,
    tables::{self, Table},
};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// The map's name.
    pub map: &'static str,
    /// Entries in it.
    pub used: usize,
    /// Entries that it can hold.
    pub capacity: usize,
}

/// Packets dropped so far, by reason.
pub(crate) fn drops(pins: &Pins) -> Result<Vec<(DropReason, u64)>, DatapathError> {
    let counters = tables::per_cpu::<u64>(pins, map_name::DROPS)?;
    DropReason::ALL
        .iter()
        .map(|reason| {
            let values = counters.get(&(*reason as u32), 0).map_err(DatapathError::map(
                "get",
                map_name::DROPS,
                reason.label(),
            ))?;
            Ok((*reason, values.iter().sum()))
        })
        .collect()
}

/// How full each map is. Counting walks the keys, which costs time in proportion to them; the table of
/// connections is too large for that and was counted when it was last collected.
pub(crate) fn map_usage(pins: &Pins, flow_entries: usize) -> Result<Vec<MapUsage>, DatapathError> {
    let usage = |map, used| {
        let capacity = load::map_info(&pins.map(map), map)?.max_entries() as usize;
        Ok(MapUsage { map, used, capacity })
    };
    Ok(vec![
        usage(map_name::FRONTENDS, count::<FrontendKey, Frontend>(pins, map_name::FRONTENDS)?)?,
        usage(map_name::SERVICES, count::<u32, Service>(pins, map_name::SERVICES)?)?,
        usage(map_name::SLOTS, count::<SlotKey, u32>(pins, map_name::SLOTS)?)?,
        usage(map_name::BACKENDS, count::<u32, Backend>(pins, map_name::BACKENDS)?)?,
        usage(map_name::ENDPOINTS, count::<Addr, Endpoint>(pins, map_name::ENDPOINTS)?)?,
        usage(map_name::FLOWS, flow_entries)?,
    ])
}

fn count<K: Pod + std::fmt::Debug, V: Pod>(pins: &Pins, map: &'static str) -> Result<usize, DatapathError> {
    Table::<K, V>::open(pins, map)?.keys().try_fold(0, |count, key| key.map(|_| count + 1))
}
