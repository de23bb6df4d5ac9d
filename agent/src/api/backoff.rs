//! How long to wait before something is tried again: longer and longer, and never the same for two nodes. Pure.

use std::time::Duration;

/// Grows with each failure, and starts again after a success.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed.
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// It succeeded.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait, where `dice` is a number between 0 and 1. The first wait is anything from nothing
    /// to `first`, so that one lost connection costs little; later ones are at least half of what they may be, so that
    /// a server that is down is left alone. `ways` is how many servers there are to try, each of which has its turn
    /// before the wait grows.
    pub(super) fn failed(&mut self, dice: f64, ways: usize) -> Duration {
        let round = self.failures / u32::try_from(ways.max(1)).unwrap_or(1);
        self.failures = self.failures.saturating_add(1);
        if round == 0 {
            return self.first.mul_f64(dice.clamp(0.0, 1.0));
        }
        let most = self.first.saturating_mul(1 << round.min(16)).min(self.longest);
        most.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let waits: Vec<u64> = (0..8).map(|_| backoff.failed(1.0, 1).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff.failed(0.0, 1).as_secs(), 15);
        backoff.reset();
        assert_eq!(backoff.failed(0.0, 1), Duration::ZERO);
    }

    #[test]
    fn every_server_has_its_turn_before_the_wait_grows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let waits: Vec<u64> = (0..6).map(|_| backoff.failed(1.0, 2).as_secs()).collect();
        assert_eq!(waits, [1, 1, 2, 2, 4, 4]);
    }
}
