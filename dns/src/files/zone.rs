//! A domain of a master file: its names as a tree of which each node is found by one hash, its records encoded.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use crate::{
    answer::push_data,
    master::{MasterError, MasterRecord, Place},
    name::WireName,
    query::QueryName,
    records::{RECORD_HEAD, push_head},
    wire::{QUESTION_POINTER, rtype, u16_at, u32_at},
};

/// A domain, complete and unchanging.
#[derive(Debug)]
pub(crate) struct FileZone {
    /// Its name.
    pub(super) origin: WireName,
    /// The serial number of its SOA record.
    pub(crate) serial: u32,
    /// The time to live of denials (RFC 2308, 5).
    pub(super) denial_ttl: u32,
    /// The names; those between are there, too.
    pub(super) nodes: Vec<Node>,
    /// Places of names.
    index: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    /// Places of names that have NSEC records, in their canonical order, where the file is signed.
    pub(super) chain: Box<[u32]>,
}

/// A name.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: WireName,
    pub(super) sets: Vec<RecordSet>,
    /// The place of the name `*` below it.
    pub(super) wildcard: Option<u32>,
    /// The place of the name at or above it that is delegated, or above it that leads elsewhere as a whole (DNAME).
    pub(super) above: Option<u32>,
}

/// The records of a name and a type.
#[derive(Debug)]
pub(super) struct RecordSet {
    pub(super) rtype: u16,
    /// Each with the question's name for owner.
    pub(super) records: Records,
    /// Their signatures, where the file has them.
    pub(super) signatures: Records,
}

/// Encoded records, one after the other.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    count: usize,
}

impl Records {
    fn push(&mut self, rtype: u16, ttl: u32, data: &[u8]) {
        push_head(&mut self.bytes, QUESTION_POINTER, rtype, ttl);
        push_data(&mut self.bytes, |out| out.extend(data));
        self.count += 1;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let length = usize::from(u16_at(rest, RECORD_HEAD - 2)?);
            let (record, after) = rest.split_at_checked(RECORD_HEAD + length)?;
            rest = after;
            Some(record)
        })
    }

    /// Each of them, the `first`th first.
    pub(super) fn rotated(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        self.iter().skip(first).chain(self.iter().take(first))
    }
}

impl Node {
    /// The records of a type.
    pub(super) fn set(&self, rtype: u16) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }
}

/// Records by owner and type, as they are gathered: the least time to live, data in order, and where the first is.
type Gathered = BTreeMap<(WireName, u16), (u32, Vec<Vec<u8>>, Place)>;

impl FileZone {
    /// A domain of these records. Those of other domains are passed over.
    pub(crate) fn new(
        origin: &WireName,
        file: &Path,
        records: Vec<MasterRecord>,
    ) -> Result<Self, MasterError> {
        let start = Place { file: file.into(), line: 1 };
        let (gathered, signatures) = gather(origin, records)?;
        let Some((soa_ttl, soa, _)) = gathered.get(&(origin.clone(), rtype::SOA)) else {
            return Err(MasterError::at(&start, format!("{origin} has no SOA record")));
        };
        // The last five fields of the data have four bytes each.
        let number =
            |from_end: usize| soa.first().and_then(|soa| u32_at(soa, soa.len().checked_sub(from_end)?));
        let (Some(serial), Some(minimum)) = (number(20), number(4)) else {
            return Err(MasterError::at(&start, "the SOA record is damaged"));
        };
        let mut zone = Self {
            origin: origin.clone(),
            serial,
            denial_ttl: minimum.min(*soa_ttl),
            nodes: Vec::new(),
            index: HashMap::default(),
            chain: Box::default(),
        };
        for ((name, rtype), (ttl, data, _)) in &gathered {
            let place = zone.place(name);
            let mut set =
                RecordSet { rtype: *rtype, records: Records::default(), signatures: Records::default() };
            data.iter().for_each(|data| set.records.push(*rtype, *ttl, data));
            let signed = signatures.get(&(name.clone(), *rtype));
            signed.into_iter().flatten().for_each(|data| set.signatures.push(rtype::RRSIG, *ttl, data));
            zone.nodes[place as usize].sets.push(set);
        }
        zone.link();
        Ok(zone)
    }

    /// The place of a name, which is made where there is none, with those between.
    fn place(&mut self, name: &WireName) -> u32 {
        if let Some(place) = self.index.get(name.as_bytes()) {
            return *place;
        }
        let place = self.nodes.len() as u32;
        self.index.insert(name.as_bytes().into(), place);
        self.nodes.push(Node { name: name.clone(), sets: Vec::new(), wildcard: None, above: None });
        if let Some(parent) = name.parent().filter(|_| *name != self.origin) {
            let parent = self.place(&parent);
            if name.as_bytes().starts_with(b"\x01*") {
                self.nodes[parent as usize].wildcard = Some(place);
            }
        }
        place
    }

    /// Finds out what names are above each, and the order of those that deny.
    fn link(&mut self) {
        let mut by_length: Vec<u32> = (0..self.nodes.len() as u32).collect();
        by_length.sort_by_key(|place| self.nodes[*place as usize].name.as_bytes().len());
        for place in by_length {
            let node = &self.nodes[place as usize];
            let is_apex = node.name == self.origin;
            let parent = node.name.parent().filter(|_| !is_apex);
            let parent = parent.and_then(|parent| self.index.get(parent.as_bytes()).copied());
            let inherited = parent.and_then(|parent| {
                let node = &self.nodes[parent as usize];
                node.above.or_else(|| node.set(rtype::DNAME).map(|_| parent))
            });
            let own = (!is_apex && node.set(rtype::NS).is_some()).then_some(place);
            self.nodes[place as usize].above = inherited.or(own);
        }
        let mut chain: Vec<u32> = (0..self.nodes.len() as u32)
            .filter(|place| self.nodes[*place as usize].set(rtype::NSEC).is_some())
            .collect();
        chain.sort_by_cached_key(|place| canonical(self.nodes[*place as usize].name.as_bytes()));
        self.chain = chain.into();
    }

    /// The node of a name in wire form and lower case.
    pub(super) fn node(&self, name: &[u8]) -> Option<(u32, &Node)> {
        let place = *self.index.get(name)?;
        Some((place, self.nodes.get(place as usize)?))
    }
}

/// A key by which names sort in canonical order (RFC 4034, 6.1).
pub(super) fn canonical(name: &[u8]) -> Vec<Vec<u8>> {
    let Some((name, _)) = QueryName::read(name, 0) else { return Vec::new() };
    name.rev_labels().map(<[u8]>::to_vec).collect()
}

type Signatures = BTreeMap<(WireName, u16), Vec<Vec<u8>>>;

fn gather(origin: &WireName, records: Vec<MasterRecord>) -> Result<(Gathered, Signatures), MasterError> {
    let mut gathered = Gathered::new();
    let mut signatures = Signatures::new();
    for record in records {
        let wrong = |problem: String| Err(MasterError::at(&record.at, problem));
        if !record.name.is_below(origin) {
            if record.rtype == rtype::SOA {
                return wrong(format!("the SOA record of {} is not that of {origin}", record.name));
            }
            let (file, line) = (record.at.file.display(), record.at.line);
            tracing::warn!(%file, line, name = %record.name, zone = %origin, "a record of another zone is passed over");
            continue;
        }
        match record.rtype {
            rtype::SOA if record.name != *origin => {
                return wrong(format!("the SOA record of {} is not that of {origin}", record.name));
            }
            NSEC3 | NSEC3PARAM => return wrong("zones signed with NSEC3 are not served".to_owned()),
            rtype::RRSIG => {
                let Some(covered) = u16_at(&record.data, 0) else { continue };
                signatures.entry((record.name, covered)).or_default().push(record.data);
                continue;
            }
            _ => {}
        }
        let key = (record.name.clone(), record.rtype);
        let (ttl, held, _) =
            gathered.entry(key).or_insert_with(|| (record.ttl, Vec::new(), record.at.clone()));
        // The records of a name and a type have one time to live (RFC 2181, 5.2).
        *ttl = record.ttl.min(*ttl);
        if held.contains(&record.data) {
            continue;
        }
        if !held.is_empty() && matches!(record.rtype, rtype::SOA | rtype::CNAME | rtype::DNAME) {
            return wrong(format!("{} has another record of this type, and may have one", record.name));
        }
        held.push(record.data);
    }
    Ok((gathered, signatures))
}

const NSEC3: u16 = 50;
const NSEC3PARAM: u16 = 51;
