//! Incremental Internet checksum arithmetic (RFC 1624), on words as they stand in memory.

use crate::Addr;

/// One's complement sum of two partial sums.
#[inline(always)]
pub const fn csum_add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// The difference that replacing one address by another makes, to be added to a partial sum.
#[inline(always)]
pub const fn csum_replace_addr(sum: u32, old: &Addr, new: &Addr) -> u32 {
    // Both forms of an address are summed over all four words: the mapped prefix cancels out between two
    // IPv4 addresses, and a packet never changes family.
    let (old, new) = (old.words(), new.words());
    let mut wide = sum as u64;
    let mut word = 0;
    while word < 4 {
        wide += (!old[word]) as u64 + new[word] as u64;
        word += 1;
    }
    // At most nine 32-bit numbers were added: one fold leaves at most one carry.
    csum_add(wide as u32, (wide >> 32) as u32)
}

/// The difference that replacing one 16-bit word by another makes, to be added to a partial sum.
#[inline(always)]
pub const fn csum_replace_u16(sum: u32, old: u16, new: u16) -> u32 {
    csum_add(csum_add(sum, !(old as u32)), new as u32)
}

/// Folds a partial sum to 16 bits and complements it: what stands in a header.
#[inline(always)]
pub const fn csum_fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum from first principles.
    fn full(words: &[u16]) -> u16 {
        let mut sum: u64 = words.iter().map(|&w| u64::from(w)).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn halves(addr: &Addr) -> impl Iterator<Item = u16> {
        addr.words().into_iter().flat_map(|w| [w as u16, (w >> 16) as u16])
    }

    /// 0x0000 and 0xffff are the same number in one's complement.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn an_incremental_change_equals_a_full_sum(old: [u64; 2], new: [u64; 2], oport: u16, nport: u16, rest: [u16; 5]) {
            let (old, new) = (Addr(old), Addr(new));
            let before: Vec<u16> = halves(&old).chain([oport]).chain(rest).collect();
            let after: Vec<u16> = halves(&new).chain([nport]).chain(rest).collect();
            let start = u32::from(!full(&before));
            let sum = csum_replace_u16(csum_replace_addr(start, &old, &new), oport, nport);
            prop_assert!(same(csum_fold(sum), full(&after)));
        }
    }
}
