//! Reading a large hash map a part at a time. aya walks a map from its first key on and with a system call for each
//! entry; the kernel gives thousands of entries in one call, and goes on where the last one ended.

#![expect(unsafe_code, reason = "bpf(2) takes pointers, and aya has no batches")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use aya::{Pod, maps::MapData};

use crate::{DatapathError, Pins};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries read in one call. A hash bucket must fit; it holds one entry as a rule.
const BATCH: u32 = 4096;

/// What the kernel reads and writes for `BPF_MAP_LOOKUP_BATCH`: `struct batch` of `union bpf_attr`.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// All entries of a pinned hash map. One that another writer adds or removes meanwhile may be there or not.
pub(crate) fn all<K: Pod + Default, V: Pod + Default>(
    pins: &Pins,
    name: &'static str,
) -> Result<Vec<(K, V)>, DatapathError> {
    let mut reader = BatchReader::open(pins, name)?;
    let mut all = Vec::new();
    loop {
        let (part, end) = reader.read()?;
        all.extend(part);
        if end {
            return Ok(all);
        }
    }
}

/// Walks a pinned hash map (LRU or not) in parts.
pub(crate) struct BatchReader<K, V> {
    map: MapData,
    name: &'static str,
    /// The bucket at which the next part begins; `None` at a round's start.
    next: Option<u32>,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod + Default, V: Pod + Default> BatchReader<K, V> {
    pub(crate) fn open(pins: &Pins, name: &'static str) -> Result<Self, DatapathError> {
        let map = MapData::from_pin(pins.map(name)).map_err(DatapathError::map("open", name, ""))?;
        let room = BATCH as usize;
        Ok(Self { map, name, next: None, keys: vec![K::default(); room], values: vec![V::default(); room] })
    }

    /// The next part, and whether the round ends with it. An entry that others make or remove meanwhile may be there
    /// or not; all others come once a round.
    pub(crate) fn read(&mut self) -> Result<(Vec<(K, V)>, bool), DatapathError> {
        let mut position = self.next.unwrap_or(0);
        let from = position;
        let mut attributes = Attributes {
            in_batch: if self.next.is_some() { std::ptr::from_ref(&from) as u64 } else { 0 },
            out_batch: std::ptr::from_mut(&mut position) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: BATCH,
            map_fd: self.map.fd().as_fd().as_raw_fd().unsigned_abs(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: `attributes` is fully initialised, without padding, and lives through the call, as does what it
        // points to: two words for positions in the table (of hash maps they are 32 bits), and vectors of `BATCH`
        // keys and values, which are plain old data of the sizes that this map was checked to have when loaded.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                std::ptr::from_mut(&mut attributes),
                size_of::<Attributes>(),
            )
        };
        let end = result != 0;
        if end {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::NotFound {
                self.next = None;
                return Err(DatapathError::io("read a part of", std::path::Path::new(self.name))(error));
            }
        }
        self.next = (!end).then_some(position);
        let count = (attributes.count as usize).min(self.keys.len());
        let part = self.keys[..count].iter().copied().zip(self.values[..count].iter().copied());
        Ok((part.collect(), end))
    }
}
