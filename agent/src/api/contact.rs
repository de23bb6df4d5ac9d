//! How fresh the knowledge of the cluster is, and what went wrong with it: for `/metrics` and `/healthz`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use prometheus::{
    GaugeVec, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::kind::Kind;

/// What is told of each kind.
#[derive(Debug)]
pub struct Contacts {
    heard: Mutex<BTreeMap<Kind, Option<Instant>>>,
    age: GaugeVec,
    objects: IntGaugeVec,
    lists: IntCounterVec,
    errors: IntCounterVec,
    events: IntCounterVec,
}

impl Contacts {
    /// Nothing has been heard of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Result<Self, prometheus::Error> {
        let age = "sluice_api_last_contact_seconds";
        let age = Opts::new(age, "how long ago the API server last said something about a kind of objects");
        let objects = Opts::new("sluice_api_objects", "objects of a kind that the API has");
        let lists = Opts::new("sluice_api_lists_total", "complete lists, by the way they were taken");
        let errors = Opts::new("sluice_api_errors_total", "what went wrong with lists and watches");
        let events = Opts::new("sluice_api_events_total", "Events to be written, by what became of them");
        Ok(Self {
            heard: Mutex::new(kinds.into_iter().map(|kind| (kind, None)).collect()),
            age: GaugeVec::new(age, &["kind"])?,
            objects: IntGaugeVec::new(objects, &["kind"])?,
            lists: IntCounterVec::new(lists, &["kind", "way"])?,
            errors: IntCounterVec::new(errors, &["kind", "reason"])?,
            events: IntCounterVec::new(events, &["outcome"])?,
        })
    }

    fn heard_of(&self) -> MutexGuard<'_, BTreeMap<Kind, Option<Instant>>> {
        // Plain values, each valid by itself, whoever panicked.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server said something about a kind, were it only that there is nothing new.
    pub fn heard(&self, kind: Kind) {
        self.heard_of().insert(kind, Some(Instant::now()));
    }

    /// The server has no such kind: nothing is to be heard of it.
    pub fn absent(&self, kind: Kind) {
        self.heard_of().remove(&kind);
        // Nothing may have been told of it yet.
        let _ = self.age.remove_label_values(&[kind.name()]);
    }

    /// A list is complete.
    pub fn listed(&self, kind: Kind, way: &str) {
        self.lists.with_label_values(&[kind.name(), way]).inc();
    }

    /// So many objects there are.
    pub fn set_objects(&self, kind: Kind, count: usize) {
        self.objects.with_label_values(&[kind.name()]).set(count as i64);
    }

    /// Something went wrong.
    pub fn failed(&self, kind: Kind, reason: &str) {
        self.errors.with_label_values(&[kind.name(), reason]).inc();
    }

    /// An Event was written, or was not.
    pub fn event(&self, outcome: &str) {
        self.events.with_label_values(&[outcome]).inc();
    }

    /// When the kind of which nothing was heard for the longest time was last heard of; `None` if one never was.
    pub fn oldest(&self, now: Instant, clock: Timestamp) -> Option<Timestamp> {
        let oldest = self.heard_of().values().copied().min().flatten()?;
        let age = SignedDuration::try_from(now.saturating_duration_since(oldest)).ok()?;
        clock.checked_sub(age).ok()
    }

    fn parts(&self) -> [&dyn Collector; 5] {
        [&self.age, &self.objects, &self.lists, &self.errors, &self.events]
    }
}

/// [`Contacts`] in a registry.
pub struct Shared(pub std::sync::Arc<Contacts>);

impl Collector for Shared {
    fn desc(&self) -> Vec<&Desc> {
        self.0.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (kind, heard) in self.0.heard_of().iter() {
            if let Some(heard) = heard {
                self.0.age.with_label_values(&[kind.name()]).set(heard.elapsed().as_secs_f64());
            }
        }
        self.0.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn knowledge_is_as_old_as_its_oldest_part() {
        let contacts = Contacts::new([Kind::Service, Kind::Node, Kind::ServiceCidr]).unwrap();
        let (now, clock) = (Instant::now() + Duration::from_secs(60), Timestamp::UNIX_EPOCH);
        contacts.heard(Kind::Service);
        contacts.heard(Kind::Node);
        assert_eq!(contacts.oldest(now, clock), None);
        contacts.absent(Kind::ServiceCidr);
        let oldest = contacts.oldest(now, clock).unwrap();
        assert!((-61..=-59).contains(&oldest.as_second()), "{oldest}");
    }
}
