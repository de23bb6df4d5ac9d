//! Failures that are told now and then, with how many there were: a dead upstream fails thousands of times a second.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often one is told at most.
const PERIOD: Duration = Duration::from_secs(5);

/// What was told, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl Failures {
    /// Takes note of one; how many there were since the last that was told, this one included, if it is time to tell.
    pub(crate) fn note(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        let is_due = state.told.is_none_or(|told| now.duration_since(told) >= PERIOD);
        is_due.then(|| {
            state.told = Some(now);
            std::mem::take(&mut state.untold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_by_their_number() {
        let (failures, start) = (Failures::default(), Instant::now());
        let told: Vec<_> = (0..12).map(|second| failures.note(start + Duration::from_secs(second))).collect();
        let wanted = (0..12).map(|second| match second {
            0 => Some(1),
            5 | 10 => Some(5),
            _ => None,
        });
        assert_eq!(told, wanted.collect::<Vec<_>>());
    }
}
