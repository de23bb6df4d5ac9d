//! Names of a headless service's endpoints in a topology zone: `<zone>.pin._zone.<service>` has those that are there and
//! nothing else, `<zone>.prefer._zone.<service>` all of the service's where there are none.

use std::sync::Arc;

use super::{Found, find_at_service, nothing};
use crate::{desired::ServiceRecords, query::QueryName};

/// The label that all these names have before the service's.
pub(super) const ANCHOR: &[u8] = b"_zone";

/// What there is for a name and a type. `anchor`: the place of [`ANCHOR`] in the name. All such names exist, whatever the
/// zone: one that nobody is in, and one that nobody has heard of, have no records.
pub(super) fn find<'z>(
    key: &'z Arc<[u8]>,
    records: &'z ServiceRecords,
    name: &QueryName,
    anchor: usize,
    qtype: u16,
) -> Found<'z> {
    if !records.headless {
        return Found::NxDomain;
    }
    let Some(directive) = anchor.checked_sub(1) else { return nothing(qtype) };
    let prefers = match name.label(directive) {
        b"pin" => false,
        b"prefer" => true,
        _ => return Found::NxDomain,
    };
    // The name above all zones' is there because they are.
    let zone = (directive > 0).then(|| records.zone(name.labels(0, directive)));
    match zone {
        Some(Some(there)) => find_at_service(key, there, qtype),
        Some(None) if prefers && records.exists => find_at_service(key, records, qtype),
        _ => nothing(qtype),
    }
}
