//! When the loop acts: events at once, retries with back-off, a full repair now and then. Sans-IO: it is told
//! the time and says when it wants to be called again.

use std::time::{Duration, Instant};

/// The first pause after a failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before this moment, unless something happens.
    WaitUntil(Instant),
    /// Try again what failed.
    Retry,
    /// Compare everything with what the kernel holds, and repair it.
    Repair,
}

/// The loop's clockwork.
#[derive(Debug)]
pub struct Schedule {
    period: Duration,
    next_repair: Instant,
    retry: Option<Retry>,
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Schedule {
    /// Starts the clock: the first repair is due one period from `now`.
    pub fn new(period: Duration, now: Instant) -> Self {
        Self { period, next_repair: now + period, retry: None }
    }

    /// What is due.
    pub fn next(&self, now: Instant) -> Action {
        // A repair does all that a retry would.
        if self.next_repair <= now {
            return Action::Repair;
        }
        match &self.retry {
            Some(retry) if retry.at <= now => Action::Retry,
            Some(retry) => Action::WaitUntil(retry.at.min(self.next_repair)),
            None => Action::WaitUntil(self.next_repair),
        }
    }

    /// A repair was made, whatever came of it.
    pub fn repaired(&mut self, now: Instant) {
        self.next_repair = now + self.period;
    }

    /// Asks for a repair at once: something outside changed what is ours.
    pub fn repair_soon(&mut self, now: Instant) {
        self.next_repair = self.next_repair.min(now);
    }

    /// Everything that was tried succeeded.
    pub fn succeeded(&mut self) {
        self.retry = None;
    }

    /// Something failed: it is tried again after a pause that doubles each time. Events between do not
    /// shorten a pause that is running.
    pub fn failed(&mut self, now: Instant) {
        let pause = match &self.retry {
            Some(retry) if retry.at > now => return,
            Some(retry) => (retry.pause * 2).min(LONGEST_RETRY),
            None => FIRST_RETRY,
        };
        self.retry = Some(Retry { at: now + pause, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_double_up_to_a_bound_and_end_with_success() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(Duration::from_secs(100_000), now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.failed(now);
            let Action::WaitUntil(at) = schedule.next(now) else { panic!("a pause") };
            pauses.push((at - now).as_millis());
            now = at;
            assert_eq!(schedule.next(now), Action::Retry);
        }
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[10..], [30_000, 30_000]);
        schedule.succeeded();
        schedule.failed(now);
        assert_eq!(schedule.next(now), Action::WaitUntil(now + FIRST_RETRY));
    }

    #[test]
    fn an_event_in_a_pause_does_not_restart_it() {
        let now = Instant::now();
        let mut schedule = Schedule::new(PERIOD, now);
        schedule.failed(now);
        schedule.failed(now + Duration::from_millis(50));
        assert_eq!(schedule.next(now), Action::WaitUntil(now + FIRST_RETRY));
    }

    #[test]
    fn repairs_come_in_their_period_and_on_demand() {
        let now = Instant::now();
        let mut schedule = Schedule::new(PERIOD, now);
        assert_eq!(schedule.next(now), Action::WaitUntil(now + PERIOD));
        assert_eq!(schedule.next(now + PERIOD), Action::Repair);
        schedule.repaired(now + PERIOD);
        assert_eq!(schedule.next(now + PERIOD), Action::WaitUntil(now + PERIOD * 2));
        schedule.repair_soon(now + PERIOD);
        assert_eq!(schedule.next(now + PERIOD), Action::Repair);
    }
}
