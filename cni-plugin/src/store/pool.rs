//! Which addresses of a range are taken: a bit each, so that the search for a free one costs the same in an
//! empty range and in a full one.
//!
//! A pool is derived from the address files beside it and never decides: an address whose file exists is taken,
//! whatever its bit says. Bits are set after the file is made and cleared before it goes, so that a crash at any
//! point leaves at most a clear bit for a taken address, which the next search corrects in passing.
//!
//! ```text
//! offset  bytes
//!      0      8   "sluice\x001": what this is, and its version
//!      8      4   how many addresses (little endian, as all numbers here)
//!     12      4   where the next search starts, so that an address rests as long as possible before it is reused
//!     16      n   one bit an address, the lowest of a byte first; n is a multiple of 8
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

const MAGIC: [u8; 8] = *b"sluice\x001";
const HEADER: usize = 16;
const CURSOR: u64 = 12;

/// An open pool. Only to be used under the network's lock.
pub(crate) struct Pool {
    file: File,
    bytes: Vec<u8>,
    size: u32,
}

fn length(size: u32) -> usize {
    HEADER + (size as usize).div_ceil(64) * 8
}

impl Pool {
    /// Opens the pool of `size` addresses; `None` if there is none, or not one for this size.
    pub(crate) fn open(path: &Path, size: u32) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // One byte more, to notice a file that is too long.
        let mut bytes = vec![0; length(size) + 1];
        let mut read = 0;
        while let count @ 1.. = file.read_at(&mut bytes[read..], read as u64)? {
            read += count;
        }
        bytes.truncate(read);
        let whole = read == length(size) && bytes[..8] == MAGIC && bytes[8..12] == size.to_le_bytes();
        Ok(whole.then_some(Self { file, bytes, size }))
    }

    /// Makes the pool anew, with these addresses taken. The file appears whole or not at all.
    pub(crate) fn build(path: &Path, size: u32, taken: impl Iterator<Item = u32>) -> io::Result<Self> {
        let mut bytes = vec![0; length(size)];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&size.to_le_bytes());
        for index in taken.filter(|index| *index < size) {
            bytes[HEADER + index as usize / 8] |= 1 << (index % 8);
        }
        // Only ever one at a time: the network is locked.
        let draft = path.with_file_name("draft");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&draft)?;
        file.write_all_at(&bytes, 0)?;
        std::fs::rename(&draft, path)?;
        Ok(Self { file, bytes, size })
    }

    fn cursor(&self) -> u32 {
        let bytes = self.bytes[CURSOR as usize..HEADER].try_into().unwrap_or([0; 4]);
        // A damaged cursor costs nothing but the order.
        u32::from_le_bytes(bytes) % self.size
    }

    fn word(&self, word: usize) -> u64 {
        let at = HEADER + word * 8;
        self.bytes[at..at + 8].try_into().map_or(u64::MAX, u64::from_le_bytes)
    }

    /// The first address without a bit, from where the last search ended, that `usable` accepts.
    pub(crate) fn find_free(&self, mut usable: impl FnMut(u32) -> bool) -> Option<u32> {
        let start = self.cursor();
        let words = (self.bytes.len() - HEADER) / 8;
        // The word that the search starts in is looked at twice: its upper part first, its lower part last.
        for step in 0..=words {
            let word = (start as usize / 64 + step) % words;
            let mut free = !self.word(word);
            if step == 0 {
                free &= u64::MAX << (start % 64);
            } else if step == words {
                free &= !(u64::MAX << (start % 64));
            }
            while free != 0 {
                let index = word as u32 * 64 + free.trailing_zeros();
                if index < self.size && usable(index) {
                    return Some(index);
                }
                free &= free - 1;
            }
        }
        None
    }

    /// Whether the address has its bit.
    pub(crate) fn is_taken(&self, index: u32) -> bool {
        self.bytes[HEADER + index as usize / 8] & (1 << (index % 8)) != 0
    }

    /// Sets or clears the bit of an address.
    pub(crate) fn mark(&mut self, index: u32, taken: bool) -> io::Result<()> {
        if self.is_taken(index) == taken {
            return Ok(());
        }
        let at = HEADER + index as usize / 8;
        self.bytes[at] ^= 1 << (index % 8);
        self.file.write_all_at(&self.bytes[at..=at], at as u64)
    }

    /// Lets the next search start after this address.
    pub(crate) fn advance(&mut self, index: u32) -> io::Result<()> {
        let next = ((index + 1) % self.size).to_le_bytes();
        self.bytes[CURSOR as usize..HEADER].copy_from_slice(&next);
        self.file.write_all_at(&next, CURSOR)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_search_finds_the_next_free_address_as_a_plain_loop_would(
            size in 1_u32..300,
            taken in proptest::collection::btree_set(0_u32..300, 0..300),
            cursor in 0_u32..300,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pool");
            let taken: BTreeSet<u32> = taken.into_iter().filter(|index| *index < size).collect();
            let cursor = cursor % size;
            let mut pool = Pool::build(&path, size, taken.iter().copied()).unwrap();
            pool.advance((cursor + size - 1) % size).unwrap();
            let pool = Pool::open(&path, size).unwrap().expect("it is whole");
            let expected = (cursor..size).chain(0..cursor).find(|index| !taken.contains(index));
            prop_assert_eq!(pool.find_free(|_| true), expected);
            prop_assert_eq!(pool.find_free(|_| false), None);
            for index in 0..size {
                prop_assert_eq!(pool.is_taken(index), taken.contains(&index));
            }
        }
    }

    #[test]
    fn a_file_that_is_no_pool_of_this_size_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pool");
        assert!(Pool::open(&path, 64).unwrap().is_none());
        Pool::build(&path, 64, [3].into_iter()).unwrap();
        assert!(Pool::open(&path, 64).unwrap().is_some_and(|pool| pool.is_taken(3)));
        assert!(Pool::open(&path, 65).unwrap().is_none(), "another size");
        for damaged in [&b""[..], b"sluice", &[0; 24], &[0; 100]] {
            std::fs::write(&path, damaged).unwrap();
            assert!(Pool::open(&path, 64).unwrap().is_none(), "{damaged:?}");
        }
    }
}
