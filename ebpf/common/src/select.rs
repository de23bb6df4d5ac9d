//! Backend selection as a pure function.

/// The slot for a uniformly random number: the high half of `random * count`, which needs no division and is
/// off from uniform by at most `count / 2^32`. `count` must not be 0.
#[inline(always)]
pub const fn pick_slot(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slot_is_always_in_range(random: u32, count in 1u32..) {
            prop_assert!(pick_slot(random, count) < count);
        }
    }

    #[test]
    fn every_slot_gets_its_share() {
        let mut hits = [0u32; 3];
        for step in 0..30_000u32 {
            hits[pick_slot(step.wrapping_mul(0x9e37_79b9), 3) as usize] += 1;
        }
        assert!(hits.iter().all(|&n| (9_800..=10_200).contains(&n)), "{hits:?}");
    }
}
