//! Whether the node's agent is well: what `/healthz` and `/livez` say (rows 38 and 39 of the behaviour table).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use sluice_model::IpFamily;

use crate::api::Contacts;

/// Shared between the loop, which tells, and the HTTP server, which asks.
#[derive(Debug)]
pub struct Health {
    /// An update that has waited longer than this is a sign that the loop is stuck.
    patience: Duration,
    state: Mutex<State>,
    /// Where the objects come from an API server: when it was last heard.
    contacts: OnceLock<Arc<Contacts>>,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    families: BTreeMap<IpFamily, FamilyState>,
    node: Eligibility,
    /// What does not go well at present, as text.
    troubles: BTreeSet<String>,
}

/// How the services of one family are.
#[derive(Clone, Copy, Debug, Default)]
struct FamilyState {
    /// When the oldest update came that is not in the datapath yet.
    waiting: Option<Instant>,
    /// When the datapath last agreed with all that was known.
    updated: Option<Timestamp>,
}

/// Whether load balancers may send traffic to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eligibility {
    /// They may.
    #[default]
    Eligible,
    /// The node is going, or gone.
    Leaving,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether all is well: 200 or 503.
    pub healthy: bool,
    /// What is said, as JSON.
    pub body: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    /// Of what is served, whatever the Node says.
    healthy: bool,
    /// Of families that were served once.
    status: BTreeMap<&'static str, Family>,
    /// What kube-proxy does not say: when the API server was last heard of all that is watched. Not a matter of health, as
    /// the node goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_last_contact: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    last_updated: Timestamp,
    healthy: bool,
}

/// What Go writes for a time that is none.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Health {
    /// Nothing is known yet, and nothing well. An update may wait twice the period between repairs.
    pub fn new(resync_period: Duration) -> Self {
        Self { patience: resync_period * 2, state: Mutex::default(), contacts: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain values, each valid by itself, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Objects come from an API server, of which these tell.
    pub fn set_contacts(&self, contacts: Arc<Contacts>) {
        // There is one source only.
        let _ = self.contacts.set(contacts);
    }

    /// What does not go well at present.
    pub fn set_troubles(&self, troubles: BTreeSet<String>) {
        self.state().troubles = troubles;
    }

    /// What does not go well at present.
    pub fn troubles(&self) -> BTreeSet<String> {
        self.state().troubles.clone()
    }

    /// An update came. It may concern either family.
    pub fn queued(&self, now: Instant) {
        let mut state = self.state();
        for family in IpFamily::ALL {
            state.families.entry(family).or_default().waiting.get_or_insert(now);
        }
    }

    /// The datapath agrees with all that is known of one family.
    pub fn updated(&self, family: IpFamily, now: Timestamp) {
        let state = FamilyState { waiting: None, updated: Some(now) };
        self.state().families.insert(family, state);
    }

    /// The node serves.
    pub fn set_ready(&self) {
        self.state().ready = true;
    }

    /// Whether the node serves.
    pub fn is_ready(&self) -> bool {
        self.state().ready
    }

    /// What the Node object says.
    pub fn set_node(&self, node: Eligibility) {
        self.state().node = node;
    }

    /// The answer of `/healthz`: whether load balancers should send traffic here.
    pub fn healthz(&self, now: Instant, clock: Timestamp) -> Answer {
        let state = self.state();
        let eligible = state.node == Eligibility::Eligible;
        self.answer(&state, Some(eligible), now, clock)
    }

    /// The answer of `/livez`: whether the agent should be restarted.
    pub fn livez(&self, now: Instant, clock: Timestamp) -> Answer {
        self.answer(&self.state(), None, now, clock)
    }

    fn contact(&self, now: Instant, clock: Timestamp) -> Option<Timestamp> {
        self.contacts.get().and_then(|contacts| contacts.oldest(now, clock))
    }

    /// Whether services are served and updates get through, whatever the Node says.
    pub fn is_live(&self, now: Instant) -> bool {
        let state = self.state();
        IpFamily::ALL.iter().all(|family| self.is_family_live(&state, *family, now))
    }

    fn is_family_live(&self, state: &State, family: IpFamily, now: Instant) -> bool {
        let waiting = state.families.get(&family).and_then(|family| family.waiting);
        let waited = waiting.map(|since| now.saturating_duration_since(since));
        state.ready && waited.is_none_or(|waited| waited < self.patience)
    }

    fn answer(&self, state: &State, node_eligible: Option<bool>, now: Instant, clock: Timestamp) -> Answer {
        let family = |(name, family)| {
            let last_updated = state.families.get(&family).and_then(|family| family.updated)?;
            Some((name, Family { last_updated, healthy: self.is_family_live(state, family, now) }))
        };
        let status: BTreeMap<_, _> =
            [("IPv4", IpFamily::V4), ("IPv6", IpFamily::V6)].into_iter().filter_map(family).collect();
        let serves = IpFamily::ALL.iter().all(|family| self.is_family_live(state, *family, now));
        let healthy = serves && node_eligible != Some(false);
        let latest = status.values().map(|family| family.last_updated).max();
        // What is well agrees with all that is known at this moment.
        let last_updated = if healthy { Some(clock) } else { latest };
        let body = Body {
            last_updated: last_updated.map_or_else(|| NEVER.to_owned(), |time| time.to_string()),
            current_time: clock,
            node_eligible,
            healthy: serves,
            status,
            api_last_contact: self.contact(now, clock),
        };
        // Plain values and texts: there is nothing in it that JSON cannot say.
        Answer { healthy, body: serde_json::to_string(&body).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    fn update(health: &Health, clock: Timestamp) {
        IpFamily::ALL.iter().for_each(|family| health.updated(*family, clock));
    }

    #[test]
    fn a_node_is_well_once_it_serves_and_while_updates_get_through() {
        let (start, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let health = Health::new(PERIOD);
        assert!(!health.healthz(start, clock).healthy, "nothing is programmed yet");
        health.queued(start);
        update(&health, clock);
        health.set_ready();
        let later = start + PERIOD * 100;
        assert!(health.healthz(later, clock).healthy, "quiet is not ill");
        health.queued(later);
        health.queued(later + PERIOD);
        assert!(health.livez(later + PERIOD * 2 - Duration::from_secs(1), clock).healthy);
        assert!(!health.livez(later + PERIOD * 2, clock).healthy);
        health.updated(IpFamily::V4, clock);
        let half = health.livez(later + PERIOD * 3, clock);
        assert!(!half.healthy && !health.is_live(later + PERIOD * 3), "one family still waits");
        let body: serde_json::Value = serde_json::from_str(&half.body).unwrap();
        assert_eq!(
            (&body["status"]["IPv4"]["healthy"], &body["status"]["IPv6"]["healthy"]),
            (&true.into(), &false.into())
        );
        health.updated(IpFamily::V6, clock);
        assert!(health.livez(later + PERIOD * 3, clock).healthy);
    }

    #[test]
    fn a_node_that_leaves_is_alive_but_takes_no_new_traffic() {
        let (now, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let health = Health::new(PERIOD);
        update(&health, clock);
        health.set_ready();
        health.set_node(Eligibility::Leaving);
        let (healthz, livez) = (health.healthz(now, clock), health.livez(now, clock));
        assert!(!healthz.healthy && livez.healthy);
        let body: serde_json::Value = serde_json::from_str(&healthz.body).unwrap();
        assert_eq!(body["nodeEligible"], false);
        assert_eq!(body["healthy"], true, "the services are; the status of the answer says the rest");
        assert_eq!(body["status"]["IPv6"]["healthy"], true);
        assert_eq!(body["currentTime"], "1970-01-01T00:00:00Z");
        let body: serde_json::Value = serde_json::from_str(&livez.body).unwrap();
        assert_eq!(body.get("nodeEligible"), None);
    }
    #[test]
    fn the_answers_are_kube_proxys_to_the_byte() {
        let (now, first) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let clock = Timestamp::from_nanosecond(1_500_000_000).unwrap();
        let health = Health::new(PERIOD);
        let nothing = r#"{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"1970-01-01T00:00:01.5Z","healthy":false,"status":{}}"#;
        assert_eq!(health.livez(now, clock).body, nothing);
        update(&health, first);
        health.set_ready();
        let family = |healthy| format!(r#"{{"lastUpdated":"1970-01-01T00:00:00Z","healthy":{healthy}}}"#);
        let times =
            |updated| format!(r#"{{"lastUpdated":"{updated}","currentTime":"1970-01-01T00:00:01.5Z""#);
        let status = |v6| format!(r#""status":{{"IPv4":{},"IPv6":{}}}}}"#, family(true), family(v6));
        let well = format!(
            r#"{},"nodeEligible":true,"healthy":true,{}"#,
            times("1970-01-01T00:00:01.5Z"),
            status(true)
        );
        assert_eq!(health.healthz(now, clock).body, well);
        health.set_node(Eligibility::Leaving);
        let leaving = format!(
            r#"{},"nodeEligible":false,"healthy":true,{}"#,
            times("1970-01-01T00:00:00Z"),
            status(true)
        );
        assert_eq!(health.healthz(now, clock).body, leaving);
        health.queued(now);
        health.updated(IpFamily::V4, first);
        let late = format!(r#"{},"healthy":false,{}"#, times("1970-01-01T00:00:00Z"), status(false));
        assert_eq!(health.livez(now + PERIOD * 2, clock).body, late);
    }
}
