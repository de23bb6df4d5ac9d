//! The loop: takes what happened, asks for a pass over what that touches, retries, repairs. It decides when;
//! [`Work`] does.
//!
//! A plain thread: all that a pass calls (maps, netlink, files) blocks, and only sockets are served
//! asynchronously elsewhere.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use sluice_cni::store::Attachment;
use tokio::sync::oneshot;

use crate::{
    links::News,
    manager::Watchdog,
    schedule::{Action, Schedule},
    source::Update,
};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Objects changed.
    Update(Update),
    /// Pods were attached or detached: all that are attached now.
    Attachments(Vec<Attachment>),
    /// Devices, addresses or routes have changed.
    NodeChanged(News),
    /// The Corefile has another text.
    Corefile(String),
    /// Somebody wants to see current counters; to be answered when they are.
    Count(oneshot::Sender<()>),
    /// The agent is to end.
    Stop,
}

/// How much a pass looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What changed since the last pass, and what failed then.
    #[default]
    Changes,
    /// Everything, and what the kernel holds of it.
    Repair,
}

/// What the loop drives.
pub trait Work {
    /// Takes in changed objects.
    fn update(&mut self, update: Update);
    /// Takes in the pods that are attached.
    fn attachments(&mut self, attachments: Vec<Attachment>);
    /// Takes in that devices, addresses or routes have changed.
    fn node_changed(&mut self, news: &News);
    /// Takes in another Corefile.
    fn corefile(&mut self, text: String);
    /// Whether there is anything to do for a pass over changes.
    fn is_dirty(&self) -> bool;
    /// Makes a pass; false if something failed.
    fn pass(&mut self, depth: Depth) -> bool;
    /// Removes connections that are over, as many as there is time for; says when to go on.
    fn sweep(&mut self) -> Duration;
    /// Reads counters.
    fn count(&mut self);
}

/// Which parts of the first sync have come.
#[derive(Debug, Default)]
struct Gate {
    objects: bool,
    attachments: bool,
}

/// Runs until [`Event::Stop`], or until nobody can send anything any more. Nothing is programmed before the
/// source's first update and the plugin's records have come: half a cluster must not look like a whole one.
pub fn run(events: &Receiver<Event>, work: &mut impl Work, period: Duration) {
    let mut gate = Gate::default();
    let mut schedule = Schedule::new(period, Instant::now());
    let mut next_sweep = Instant::now();
    let mut watchdog = Watchdog::new(next_sweep);
    // The first pass looks at everything.
    let mut depth = Depth::Repair;
    loop {
        let open = gate.objects && gate.attachments;
        let mut now = Instant::now();
        if open {
            let due = match schedule.next(now) {
                Action::Repair => Some(Depth::Repair),
                Action::Retry => Some(Depth::Changes),
                Action::WaitUntil(_) => None,
            };
            depth = depth.max(due.unwrap_or_default());
            if due.is_some() || depth == Depth::Repair || work.is_dirty() {
                let succeeded = work.pass(depth);
                now = Instant::now();
                if depth == Depth::Repair {
                    schedule.repaired(now);
                }
                if succeeded {
                    schedule.succeeded();
                } else {
                    schedule.failed(now);
                }
                depth = Depth::Changes;
            }
            if next_sweep <= now {
                let pause = work.sweep();
                next_sweep = Instant::now() + pause;
            }
        }
        let deadline = match schedule.next(now) {
            Action::WaitUntil(at) if open => at.min(next_sweep),
            _ if open => now,
            _ => now + period,
        };
        let deadline = watchdog.alive(Instant::now()).map_or(deadline, |sign| deadline.min(sign));
        let mut event = match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // All that has arrived goes into one pass.
        loop {
            match event {
                Event::Update(update) => {
                    gate.objects = true;
                    work.update(update);
                }
                Event::Attachments(attachments) => {
                    gate.attachments = true;
                    work.attachments(attachments);
                }
                Event::NodeChanged(news) => work.node_changed(&news),
                Event::Corefile(text) => work.corefile(text),
                Event::Count(answer) => {
                    work.count();
                    // Whoever asked may have gone.
                    let _ = answer.send(());
                }
                Event::Stop => return,
            }
            match events.try_recv() {
                Ok(next) => event = next,
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Does nothing but write down what it is asked for; ends the loop after some passes.
    struct Recorder {
        passes: Vec<Depth>,
        /// The outcome of each pass; the loop ends after the last.
        outcomes: Vec<bool>,
        dirty: bool,
        events: Sender<Event>,
    }

    impl Work for Recorder {
        fn update(&mut self, _: Update) {
            self.dirty = true;
        }
        fn attachments(&mut self, _: Vec<Attachment>) {
            self.dirty = true;
        }
        fn node_changed(&mut self, _: &News) {
            self.dirty = true;
        }
        fn corefile(&mut self, _: String) {
            self.dirty = true;
        }
        fn is_dirty(&self) -> bool {
            self.dirty
        }
        fn pass(&mut self, depth: Depth) -> bool {
            self.dirty = false;
            self.passes.push(depth);
            let outcome = self.outcomes.remove(0);
            if self.outcomes.is_empty() {
                self.events.send(Event::Stop).unwrap();
            }
            outcome
        }
        fn sweep(&mut self) -> Duration {
            LONG
        }
        fn count(&mut self) {}
    }

    fn update() -> Event {
        Event::Update(Update { deltas: Vec::new(), seen: Instant::now(), faults: 0 })
    }

    /// Runs the loop with these events waiting; gives the passes it made.
    fn passes(events: Vec<Event>, outcomes: &[bool], period: Duration) -> Vec<Depth> {
        let (sender, receiver) = channel();
        for event in events {
            sender.send(event).unwrap();
        }
        let mut work =
            Recorder { passes: Vec::new(), outcomes: outcomes.to_vec(), dirty: false, events: sender };
        run(&receiver, &mut work, period);
        work.passes
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn nothing_is_done_before_everything_is_known() {
        for half in
            [vec![update()], vec![Event::Attachments(Vec::new())], vec![Event::NodeChanged(News::Other)]]
        {
            let events = half.into_iter().chain([Event::Stop]).collect();
            assert_eq!(passes(events, &[], LONG), []);
        }
        let whole = vec![Event::Attachments(Vec::new()), update()];
        assert_eq!(passes(whole, &[true], LONG), [Depth::Repair], "the first pass looks at everything");
    }

    #[test]
    fn what_arrives_together_is_one_pass_and_failures_are_tried_again() {
        let events =
            vec![Event::Attachments(Vec::new()), update(), update(), Event::NodeChanged(News::Other)];
        assert_eq!(
            passes(events, &[false, false, true], LONG),
            [Depth::Repair, Depth::Changes, Depth::Changes]
        );
    }

    #[test]
    fn everything_is_repaired_now_and_then() {
        let events = vec![Event::Attachments(Vec::new()), update()];
        let passes = passes(events, &[true, true, true], Duration::from_millis(5));
        assert_eq!(passes, [Depth::Repair; 3]);
    }

    #[test]
    fn whoever_asks_for_counters_is_answered_even_before_the_start() {
        let (answer, answered) = oneshot::channel();
        assert_eq!(passes(vec![Event::Count(answer), Event::Stop], &[], LONG), []);
        assert_eq!(answered.blocking_recv(), Ok(()));
    }
}
