//! Events written to the API: few, and never the same one over and over.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::core::{Request as Path, params::PostParams};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::{sleep, timeout},
};
use tracing::debug;

use super::{contact::Contacts, error::FeedError, servers::Servers, timing::Timing};
use crate::notice::{About, Notice, Notices};

/// The same event is not written again for so long.
const ONCE_IN: Duration = Duration::from_secs(600);
/// So many may be written at once.
const BURST: f64 = 20.0;
/// Seconds from one to the next after that.
const EVERY: f64 = 10.0;
/// How often an event is tried to be written.
const TRIES: usize = 5;
/// Who writes: the same on all nodes.
const CONTROLLER: &str = "sluice";
/// Types of events.
const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";
/// How many notices may wait to be written. More than this at once is nothing that anybody reads.
const WAITING: usize = 64;
/// Where events about objects without a namespace are.
const NODE_NAMESPACE: &str = "default";

/// Which events are worth writing: pure.
#[derive(Debug)]
struct Limiter {
    written: HashMap<Notice, Instant>,
    tokens: f64,
    at: Instant,
}

impl Limiter {
    fn new(now: Instant) -> Self {
        Self { written: HashMap::new(), tokens: BURST, at: now }
    }

    fn admits(&mut self, notice: &Notice, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed / EVERY).min(BURST);
        self.at = now;
        self.written.retain(|_, then| now.saturating_duration_since(*then) < ONCE_IN);
        if self.tokens < 1.0 || self.written.contains_key(notice) {
            return false;
        }
        self.tokens -= 1.0;
        self.written.insert(notice.clone(), now);
        true
    }
}

/// A place to leave notices that never waits, and where they come out.
pub(super) fn inbox(contacts: Arc<Contacts>) -> (Notices, Receiver<Notice>) {
    let (sender, receiver) = channel(WAITING);
    let leave = move |notice| {
        if sender.try_send(notice).is_err() {
            contacts.event("held_back");
        }
    };
    (Arc::new(leave), receiver)
}

/// Writes events.
pub(super) struct Writer {
    /// This node.
    pub(super) node: Arc<str>,
    /// Where to.
    pub(super) servers: Arc<Servers>,
    /// What is told of it.
    pub(super) contacts: Arc<Contacts>,
    /// How long things may take.
    pub(super) timing: Timing,
}

impl Writer {
    /// Writes that the agent has started, and then notices, until nobody can have any more.
    pub(super) async fn run(self, mut notices: Receiver<Notice>) {
        let starting = Notice {
            about: About::Node,
            reason: "Starting",
            action: "StartSluice",
            note: format!("sluice {}", env!("CARGO_PKG_VERSION")),
        };
        self.write(&event(&starting, NORMAL, &self.node, Timestamp::now())).await;
        let mut limiter = Limiter::new(Instant::now());
        while let Some(notice) = notices.recv().await {
            if limiter.admits(&notice, Instant::now()) {
                self.write(&event(&notice, WARNING, &self.node, Timestamp::now())).await;
            } else {
                self.contacts.event("held_back");
            }
        }
    }

    async fn write(&self, event: &Event) {
        let mut wait = self.timing.first_wait;
        for tries_left in (0..TRIES).rev() {
            let error = match self.post(event).await {
                Ok(()) => return self.contacts.event("written"),
                Err(error) => error,
            };
            debug!(%error, reason = event.reason, "cannot write an Event");
            if is_final(&error) || tries_left == 0 {
                return self.contacts.event("failed");
            }
            sleep(wait).await;
            wait = (wait * 4).min(self.timing.longest_wait);
        }
    }

    async fn post(&self, event: &Event) -> Result<(), FeedError> {
        let server = self.servers.get().await?;
        let namespace = event.metadata.namespace.as_deref().unwrap_or(NODE_NAMESPACE);
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let body = serde_json::to_vec(event).map_err(kube::Error::SerdeError)?;
        let request =
            Path::new(path).create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
        let patience = self.timing.answer;
        let answer = timeout(patience, server.client.request_text(request)).await;
        answer.map_err(|_| FeedError::NoAnswer(patience))??;
        Ok(())
    }
}

/// What the server does not want today it will not want tomorrow.
fn is_final(error: &FeedError) -> bool {
    let FeedError::Status(status) = error else { return false };
    (400..500).contains(&status.code) && !matches!(status.code, 401 | 429)
}

/// The object that is written.
fn event(notice: &Notice, kind_of_event: &str, node: &str, now: Timestamp) -> Event {
    let (kind, namespace, name) = match &notice.about {
        About::Service(name) => ("Service", Some(name.namespace.to_string()), name.name.to_string()),
        About::Node => ("Node", None, node.to_owned()),
    };
    // As everybody names events: the object's name and the time. An object's name may take all the room.
    let short: String = name.chars().take(220).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", short.trim_end_matches(['.', '-']), now.as_nanosecond())),
            namespace: Some(namespace.clone().unwrap_or_else(|| NODE_NAMESPACE.to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.chars().take(128).collect()),
        action: Some(notice.action.to_owned()),
        reason: Some(notice.reason.to_owned()),
        type_: Some(kind_of_event.to_owned()),
        note: Some(notice.note.chars().take(1000).collect()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            // What kubectl looks for with a Node, as the kubelet and kube-proxy write it.
            uid: namespace.is_none().then(|| name.clone()),
            namespace,
            name: Some(name),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::ObjectName;

    use super::*;

    fn notice(note: &str) -> Notice {
        Notice {
            about: About::Service(ObjectName::new("shop", "web")),
            reason: "FailedToStartServiceHealthcheck",
            action: "Listen",
            note: note.to_owned(),
        }
    }

    #[test]
    fn an_event_is_written_once_in_a_while_and_many_are_not() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        assert!(limiter.admits(&notice("a"), start) && !limiter.admits(&notice("a"), start));
        let admitted = (0..100).filter(|n| limiter.admits(&notice(&n.to_string()), start)).count();
        assert_eq!(admitted, 19);
        let later = start + Duration::from_secs(21);
        let admitted = (100..200).filter(|n| limiter.admits(&notice(&n.to_string()), later)).count();
        assert_eq!(admitted, 2);
        assert!(limiter.admits(&notice("a"), start + ONCE_IN));
    }

    #[test]
    fn an_event_is_in_the_namespace_of_its_object() {
        let now = Timestamp::from_second(1).unwrap();
        let written = event(&notice("x"), WARNING, "one", now);
        assert_eq!(written.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(written.metadata.name.as_deref(), Some("web.3b9aca00"));
        let about = Notice { about: About::Node, ..notice("x") };
        let written = event(&about, NORMAL, "one", now);
        assert_eq!(written.metadata.namespace.as_deref(), Some("default"));
        let regarding = written.regarding.unwrap();
        assert_eq!((regarding.namespace, regarding.uid.as_deref()), (None, Some("one")));
    }
}
