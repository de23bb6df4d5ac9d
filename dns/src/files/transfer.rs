//! A domain of a master file as a whole.

use super::FileZone;
use crate::wire::rtype;

impl FileZone {
    /// Its SOA record, with the question's name for owner.
    pub(crate) fn soa(&self) -> Vec<u8> {
        let apex = self.node(self.origin.as_bytes()).and_then(|(_, apex)| apex.set(rtype::SOA));
        apex.and_then(|set| set.records.iter().next()).map(<[u8]>::to_vec).unwrap_or_default()
    }
}

/// All records between two copies of the SOA record, each with the question's name behind its owner.
pub(crate) fn records(zone: &FileZone) -> Vec<Vec<u8>> {
    let mut all = vec![zone.soa()];
    let before = |name: &[u8]| name[..name.len() - zone.origin.as_bytes().len()].to_vec();
    for node in &zone.nodes {
        let labels = before(node.name.as_bytes());
        for set in &node.sets {
            let is_soa = set.rtype == rtype::SOA;
            let records = set.records.iter().filter(|_| !is_soa).chain(set.signatures.iter());
            all.extend(records.map(|record| [&labels, record].concat()));
        }
    }
    all.push(zone.soa());
    all
}
