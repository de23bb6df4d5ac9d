//! Where the kinds come together: nothing is passed on before each has been listed once (row 3 of the behaviour
//! table), and then it is one update.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::kind::Kind;
use crate::source::{Delta, Update};

/// What one kind has to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What changed.
    pub(super) deltas: Vec<Delta>,
    /// How many objects cannot be used.
    pub(super) faults: usize,
    /// The kind is known completely.
    pub(super) complete: bool,
}

/// The place.
pub(super) struct Hub {
    state: Mutex<State>,
    send: Box<dyn Fn(Update) -> bool + Send + Sync>,
}

struct State {
    /// Kinds that have not been listed yet.
    awaited: BTreeSet<Kind>,
    gathered: Vec<Delta>,
    faults: BTreeMap<Kind, usize>,
    /// The number of faults that was told last.
    told: Option<usize>,
}

impl Hub {
    /// Waits for these kinds, then passes everything on to `send`, which says whether anybody still listens.
    pub(super) fn new(
        kinds: impl IntoIterator<Item = Kind>,
        send: impl Fn(Update) -> bool + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            awaited: kinds.into_iter().collect(),
            gathered: Vec::new(),
            faults: BTreeMap::new(),
            told: None,
        };
        Self { state: Mutex::new(state), send: Box::new(send) }
    }

    /// The kinds that have not been listed yet.
    pub(super) fn awaited(&self) -> BTreeSet<Kind> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).awaited.clone()
    }

    /// Takes in what a kind has to say. False once nobody listens any more.
    pub(super) fn report(&self, kind: Kind, report: Report) -> bool {
        // Whoever panicked, what is gathered is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if report.complete {
            state.awaited.remove(&kind);
        }
        state.faults.insert(kind, report.faults);
        if state.gathered.is_empty() {
            state.gathered = report.deltas;
        } else {
            state.gathered.extend(report.deltas);
        }
        let faults = state.faults.values().sum();
        if !state.awaited.is_empty() || state.gathered.is_empty() && state.told == Some(faults) {
            return true;
        }
        state.told = Some(faults);
        let deltas = std::mem::take(&mut state.gathered);
        // Under the lock, so that updates arrive in the order in which they were made.
        (self.send)(Update { deltas, seen: Instant::now(), faults })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use sluice_model::ObjectKey;

    use super::*;

    #[test]
    fn nothing_is_told_before_every_kind_is_known() {
        let (sender, updates) = mpsc::channel();
        let hub = Hub::new([Kind::Service, Kind::Node], move |update| sender.send(update).is_ok());
        let remove = |name: &str| Delta::Remove(ObjectKey::Node(name.into()));
        let report = |deltas: Vec<Delta>, faults, complete| Report { deltas, faults, complete };
        assert!(hub.report(Kind::Service, report(vec![remove("a")], 1, true)));
        assert!(hub.report(Kind::Service, report(vec![remove("b")], 2, false)));
        assert!(updates.try_recv().is_err());
        assert!(hub.report(Kind::Node, report(vec![], 0, true)));
        let first = updates.try_recv().unwrap();
        assert_eq!((first.deltas.len(), first.faults), (2, 2));
        // Nothing new is not worth a word; a fault that is mended is.
        assert!(hub.report(Kind::Node, report(vec![], 0, true)));
        assert!(updates.try_recv().is_err());
        assert!(hub.report(Kind::Service, report(vec![], 0, false)));
        assert_eq!(updates.try_recv().unwrap().faults, 0);
        drop(updates);
        assert!(!hub.report(Kind::Node, report(vec![remove("c")], 0, false)));
    }
}
