//! What a pass tells: failures, notices, and how long changes took.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use sluice_model::Changes;
use tracing::{error, info};

use super::Agent;
use crate::{
    failure::{Chain, Failure},
    names::Names,
    notice::Notice,
};

impl Agent {
    /// Tells failures when they come and when they are over, not each time that they are met again.
    pub(super) fn tell(&mut self, failures: &[Failure]) {
        let mut texts = BTreeSet::new();
        for failure in failures {
            self.metrics.failed(failure.part());
            let text = Chain(failure).to_string();
            // The verifier has much to say, and never the same twice; its first line tells what it is about.
            let line = text.lines().next().unwrap_or_default().to_owned();
            if !self.failing.contains(&line) {
                error!(part = failure.part(), "{text}");
                if let (Some(notices), Some(notice)) = (&self.notices, failure.notice(&self.config.node_name))
                {
                    notices(notice);
                }
            }
            texts.insert(line);
        }
        for text in self.failing.difference(&texts) {
            info!("no longer: {text}");
        }
        self.failing = texts;
        let names = self.names.iter().flat_map(Names::troubles);
        self.health.set_troubles(self.failing.union(&self.told).cloned().chain(names).collect());
    }

    pub(super) fn notice(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices(notice);
        }
    }

    /// How long endpoints took from their change to their effect (row 42 of the behaviour table).
    pub(super) fn observe_programming(&self, changes: &Changes) {
        let now = SystemTime::now();
        let recent =
            |then: &SystemTime| now.duration_since(*then).is_ok_and(|age| age < Duration::from_secs(600));
        for slice in changes.services.iter().flat_map(|service| self.snapshot.slices_of(service)) {
            if let Some(trigger) = slice.last_change.filter(recent) {
                self.metrics.programmed(slice.family, trigger, now);
            }
        }
    }
}
