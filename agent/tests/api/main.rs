//! The API source against a small server, which says exactly what a test tells it to: how the source lists, watches,
//! goes on after everything that can go wrong, and takes nothing away before a complete list says so.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod credentials;
mod server;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use sluice_agent::{
    api::{Access, ApiSource, Contacts, Demand, Kind, Needs, Pods, Timing, Wanted},
    config::ApiSettings,
    notice::{About, Notice, Notices},
    source::{Delta, Update},
};
use sluice_model::{Changes, ObjectName, Snapshot};

use server::{Answer, LIMIT, Server, end_of_list, event, line, node, status, wait};

/// A source at work.
struct Source {
    updates: mpsc::Receiver<Update>,
    snapshot: Snapshot,
    contacts: Arc<Contacts>,
    notices: Notices,
    demand: Demand,
    faults: usize,
}

fn impatient() -> Timing {
    Timing {
        start_jitter: Duration::ZERO,
        answer: Duration::from_millis(300),
        idle: Duration::from_millis(600),
        shortest_watch: Duration::ZERO,
        steady: Duration::ZERO,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(20),
        refusal: Duration::from_millis(100),
        ..Timing::usual(Duration::ZERO)
    }
}

impl Source {
    fn start(servers: &[&Server]) -> Self {
        let servers = servers.iter().map(|server| server.address.clone()).collect();
        Self::with(ApiSettings { servers, ..ApiSettings::default() }, impatient())
    }

    fn with(settings: ApiSettings, timing: Timing) -> Self {
        Self::of(settings, timing, Wanted { proxy: true, dns: false, needs: Needs::NONE })
    }

    fn of(settings: ApiSettings, timing: Timing, wanted: Wanted) -> Self {
        let access = Access::new(settings, 0).unwrap();
        let source = ApiSource::new(access, "one".into(), &wanted, timing).unwrap();
        let (contacts, notices) = (source.contacts(), source.notices());
        let demand = source.demand();
        let (sender, updates) = mpsc::channel();
        source.run(move |update| sender.send(update).is_ok()).unwrap();
        Self { updates, snapshot: Snapshot::default(), contacts, notices, demand, faults: 0 }
    }

    fn take(&mut self, update: Update) {
        self.faults = update.faults;
        for delta in update.deltas {
            match delta {
                Delta::Put(object) => self.snapshot.apply(object, &mut Changes::default()),
                Delta::Remove(key) => self.snapshot.remove(&key, &mut Changes::default()),
            }
        }
    }

    fn nodes(&self) -> Vec<String> {
        self.snapshot.nodes.values().map(|node| format!("{} {}", node.name, node.pod_cidrs[0])).collect()
    }

    /// Takes updates until the nodes are these; gives what they were in between.
    fn until(&mut self, expected: &[&str]) -> Vec<Vec<String>> {
        let mut before = Vec::new();
        let start = Instant::now();
        while self.nodes() != expected {
            before.push(self.nodes());
            match self.updates.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
                Ok(update) => self.take(update),
                Err(_) => panic!("still {:?} and not {expected:?}", self.nodes()),
            }
        }
        before
    }

    fn has_nothing_to_say(&self) -> bool {
        self.updates.try_recv().is_err()
    }
}

#[test]
fn a_streamed_list_becomes_one_update_and_the_watch_goes_on() {
    let server = Server::start();
    let more = server.watch(&[event("ADDED", &node("a", "10.0.1.0/24", 3))]);
    let mut source = Source::start(&[&server]);
    let asked = server.wait_for(1);
    assert!(asked.is_watch() && asked.is_streamed_list(), "{asked:?}");
    assert_eq!(asked.parameters["allowWatchBookmarks"], "true");
    assert!(source.has_nothing_to_say(), "half a list is not to be believed");
    more.send(line(&event("ADDED", &node("b", "10.0.2.0/24", 5)))).unwrap();
    more.send(line(&end_of_list("Node", "9"))).unwrap();
    let before = source.until(&["a 10.0.1.0/24", "b 10.0.2.0/24"]);
    assert_eq!(before.len(), 1, "all at once: {before:?}");
    more.send(line(&event("MODIFIED", &node("a", "10.0.9.0/24", 11)))).unwrap();
    more.send(line(&event("DELETED", &node("b", "10.0.2.0/24", 12)))).unwrap();
    source.until(&["a 10.0.9.0/24"]);
    assert!(source.contacts.oldest(Instant::now(), jiff::Timestamp::now()).is_some());
    // The server ends the watch: it goes on where it was, without a list.
    let _next = server.watch(&[]);
    drop(more);
    let asked = server.wait_for(2);
    assert_eq!((asked.version(), asked.is_streamed_list()), ("12", false));
}

#[test]
fn a_server_without_streams_is_listed_in_pages() {
    let server = Server::start();
    server.expect(Answer::Body(422, status(422, "Invalid")));
    let [a, b] = [node("a", "10.0.1.0/24", 1), node("b", "10.0.2.0/24", 2)];
    server.pages(&[(&[a], "more"), (&[b], "")], "7");
    let _watch = server.watch(&[]);
    let mut source = Source::start(&[&server]);
    source.until(&["a 10.0.1.0/24", "b 10.0.2.0/24"]);
    let watch = server.wait_for(4);
    let asked = server.asked();
    assert_eq!(asked[1].parameters["limit"], "500");
    assert_eq!(asked[2].parameters["continue"], "more");
    assert_eq!((watch.is_watch(), watch.version()), (true, "7"));
}

#[test]
fn a_list_whose_state_the_server_forgets_is_taken_at_once() {
    let server = Server::start();
    server.expect(Answer::Body(422, status(422, "Invalid")));
    let [a, b] = [node("a", "10.0.1.0/24", 1), node("b", "10.0.2.0/24", 2)];
    server.pages(&[(&[a], "more")], "7");
    server.expect(Answer::Body(410, status(410, "Expired")));
    server.pages(&[(&[b], "")], "9");
    let _watch = server.watch(&[]);
    let mut source = Source::start(&[&server]);
    source.until(&["b 10.0.2.0/24"]);
    assert!(!server.wait_for(4).parameters.contains_key("limit"));
}

#[test]
fn after_410_there_is_a_new_list_and_only_then_is_anything_taken_away() {
    for as_event in [true, false] {
        let server = Server::start();
        let [a, b, c] =
            [node("a", "10.0.1.0/24", 1), node("b", "10.0.2.0/24", 2), node("c", "10.0.2.0/24", 20)];
        let more = server.watch(&[event("ADDED", &a), event("ADDED", &b), end_of_list("Node", "3")]);
        let mut source = Source::start(&[&server]);
        source.until(&["a 10.0.1.0/24", "b 10.0.2.0/24"]);
        let new = if as_event {
            let new = server.watch(&[event("ADDED", &a)]);
            more.send(line(&event("ERROR", &status(410, "Expired")))).unwrap();
            new
        } else {
            server.expect(Answer::Body(410, status(410, "Gone")));
            let new = server.watch(&[event("ADDED", &a)]);
            drop(more);
            new
        };
        let asked = server.wait_for(if as_event { 2 } else { 3 });
        assert!(asked.is_streamed_list());
        assert!(source.has_nothing_to_say());
        new.send(line(&event("ADDED", &c))).unwrap();
        new.send(line(&end_of_list("Node", "21"))).unwrap();
        let before = source.until(&["a 10.0.1.0/24", "c 10.0.2.0/24"]);
        assert_eq!(before.len(), 1, "what holds another's network goes in the same step: {before:?}");
    }
}

#[test]
fn a_list_that_breaks_off_takes_nothing_away() {
    let server = Server::start();
    let [a, b] = [node("a", "10.0.1.0/24", 1), node("b", "10.0.2.0/24", 2)];
    let more = server.watch(&[event("ADDED", &a), event("ADDED", &b), end_of_list("Node", "3")]);
    let mut source = Source::start(&[&server]);
    source.until(&["a 10.0.1.0/24", "b 10.0.2.0/24"]);
    let broken = server.watch(&[event("ADDED", &a)]);
    more.send(line(&event("ERROR", &status(410, "Expired")))).unwrap();
    server.wait_for(2);
    let whole = server.watch(&[event("ADDED", &a)]);
    drop(broken);
    server.wait_for(3);
    assert!(source.has_nothing_to_say());
    whole.send(line(&end_of_list("Node", "5"))).unwrap();
    source.until(&["a 10.0.1.0/24"]);
}

#[test]
fn a_silent_watch_is_taken_for_dead_and_goes_on_elsewhere() {
    let (first, second) = (Server::start(), Server::start());
    let a = node("a", "10.0.1.0/24", 1);
    let _silent = first.watch(&[event("ADDED", &a), end_of_list("Node", "3")]);
    // What the second server is at, and then its watch.
    second.pages(&[(&[], "")], "8");
    let _next = second.watch(&[event("ADDED", &node("b", "10.0.2.0/24", 8))]);
    let mut source = Source::start(&[&first, &second]);
    source.until(&["a 10.0.1.0/24"]);
    source.until(&["a 10.0.1.0/24", "b 10.0.2.0/24"]);
    assert_eq!(second.wait_for(2).version(), "3");
}

#[test]
fn a_server_that_does_not_answer_is_passed_over() {
    let (first, second) = (Server::start(), Server::start());
    for _ in 0..10 {
        first.expect(Answer::Hang);
    }
    let _watch = second.watch(&[event("ADDED", &node("a", "10.0.1.0/24", 1)), end_of_list("Node", "3")]);
    Source::start(&[&first, &second]).until(&["a 10.0.1.0/24"]);
}

#[test]
fn a_server_that_was_set_back_is_listed_anew() {
    let server = Server::start();
    let [a, b] = [node("a", "10.0.1.0/24", 1), node("b", "10.0.2.0/24", 2)];
    let more = server.watch(&[event("ADDED", &a), event("ADDED", &b), end_of_list("Node", "100")]);
    let mut source = Source::start(&[&server]);
    source.until(&["a 10.0.1.0/24", "b 10.0.2.0/24"]);
    // It is away, and then has an older state: a watch from version 100 would wait for ever.
    server.expect(Answer::Body(503, status(503, "Unavailable")));
    server.pages(&[(&[], "")], "40");
    let _new = server.watch(&[event("ADDED", &a), end_of_list("Node", "40")]);
    drop(more);
    source.until(&["a 10.0.1.0/24"]);
}

#[test]
fn an_object_with_a_mistake_is_counted_and_the_rest_goes_on() {
    let server = Server::start();
    let bad = node("bad", "10.0.0", 1);
    let worse = r#"{"metadata":{"name":"worse","resourceVersion":"2"},"spec":{"podCIDRs":"all"}}"#;
    let more = server.watch(&[
        event("ADDED", &bad),
        event("ADDED", worse),
        event("ADDED", r#"{"metadata":7}"#),
        event("ADDED", &node("good", "10.0.1.0/24", 3)),
        end_of_list("Node", "3"),
    ]);
    let mut source = Source::start(&[&server]);
    source.until(&["good 10.0.1.0/24"]);
    assert_eq!(source.faults, 2);
    more.send(line(&event("MODIFIED", &node("bad", "10.0.2.0/24", 4)))).unwrap();
    source.until(&["bad 10.0.2.0/24", "good 10.0.1.0/24"]);
    assert_eq!(source.faults, 1);
    // What is bad again leaves in force what was good.
    more.send(line(&event("MODIFIED", &node("bad", "10.0", 5)))).unwrap();
    more.send(line(&event("DELETED", &node("good", "10.0.1.0/24", 6)))).unwrap();
    source.until(&["bad 10.0.2.0/24"]);
    assert_eq!(source.faults, 2);
}

#[test]
fn a_line_that_is_cut_off_is_asked_for_again() {
    let server = Server::start();
    let more = server.watch(&[event("ADDED", &node("a", "10.0.1.0/24", 1)), end_of_list("Node", "3")]);
    let mut source = Source::start(&[&server]);
    source.until(&["a 10.0.1.0/24"]);
    let change = event("MODIFIED", &node("a", "10.0.2.0/24", 5));
    let _next = server.watch(std::slice::from_ref(&change));
    more.send(Ok(Bytes::from(change[..40].to_owned()))).unwrap();
    drop(more);
    source.until(&["a 10.0.2.0/24"]);
    assert_eq!(server.asked()[1].version(), "3");
}

#[test]
fn a_kind_that_the_api_does_not_have_keeps_nothing_waiting() {
    // The server of these tests has no ServiceCIDRs.
    let server = Server::start();
    let _watch = server.watch(&[end_of_list("Node", "3")]);
    let source = Source::start(&[&server]);
    let first = source.updates.recv_timeout(LIMIT).unwrap();
    assert!(first.deltas.is_empty() && first.faults == 0);
    let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
    assert_eq!(kinds.map(|kind| kind.without().is_some()), [false, false, false, true]);
    assert!(source.contacts.oldest(Instant::now(), jiff::Timestamp::now()).is_some());
    drop(server.runtime);
}

#[test]
fn rights_that_are_missing_keep_back_only_what_cannot_be_done_without() {
    let server = Server::start();
    let _watches: Vec<_> = (0..3).map(|_| server.watch(&[end_of_list("Node", "3")])).collect();
    let forbid = |kinds: &[&'static str]| server.script.lock().unwrap().forbidden = kinds.to_vec();
    let start = || {
        let settings = ApiSettings { servers: vec![server.address.clone()], ..ApiSettings::default() };
        let needs = Needs { pods: Pods::On("one".into()), ..Needs::NONE };
        let wanted = Wanted { proxy: true, dns: true, needs };
        Source::of(settings, impatient(), wanted)
    };
    forbid(&["namespaces", "pods", "servicecidrs"]);
    start().updates.recv_timeout(LIMIT).unwrap();
    // A right that is given is used without a restart.
    forbid(&["namespaces"]);
    wait("list of pods", || (!server.script.lock().unwrap().pods.is_empty()).then_some(()));

    forbid(&["services"]);
    let source = start();
    let waited = source.updates.recv_timeout(Duration::from_millis(500));
    assert!(waited.is_err(), "services are to be known before anything is done");
    forbid(&[]);
    source.updates.recv_timeout(LIMIT).unwrap();
}

#[test]
fn events_are_written_once_for_the_object_that_they_concern() {
    let server = Server::start();
    let _watch = server.watch(&[end_of_list("Node", "3")]);
    let source = Source::start(&[&server]);
    let notice = |service: &str| Notice {
        about: About::Service(ObjectName::new("shop", service)),
        reason: "FailedToStartServiceHealthcheck",
        action: "Listen",
        note: "taken".to_owned(),
    };
    for service in ["web", "web", "api"] {
        (source.notices)(notice(service));
    }
    let events = wait("events", || {
        let events = server.script.lock().unwrap().events.clone();
        (events.len() >= 3).then_some(events)
    });
    let about: Vec<_> =
        events.iter().map(|(_, event)| event["regarding"]["name"].as_str().unwrap()).collect();
    assert_eq!(about, ["one", "web", "api"]);
    let (path, first) = &events[0];
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/default/events");
    assert_eq!((&first["reason"], &first["type"]), (&"Starting".into(), &"Normal".into()));
    let (path, second) = &events[1];
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!((&second["type"], &second["reportingInstance"]), (&"Warning".into(), &"one".into()));
}

/// A source for a server of names.
fn with_dns(server: &Server, needs: Needs) -> Source {
    let settings = ApiSettings { servers: vec![server.address.clone()], ..ApiSettings::default() };
    Source::of(settings, impatient(), Wanted { proxy: true, dns: true, needs })
}

#[test]
fn imports_are_watched_where_somebody_asks_and_the_api_has_them() {
    let [beta, alpha] = *Kind::ServiceImport.paths() else { panic!("two versions") };
    let server = Server::start();
    let absent = |paths: &[&'static str]| server.script.lock().unwrap().absent = paths.to_vec();
    let asked = || server.script.lock().unwrap().imports.clone();
    absent(&[beta, alpha]);
    let _watch = server.watch(&[end_of_list("Node", "3")]);
    let source = with_dns(&server, Needs { imports: true, ..Needs::NONE });
    source.updates.recv_timeout(LIMIT).unwrap();
    assert_eq!(asked().len(), 0, "nothing waits for a kind that is not there");
    absent(&[beta]);
    let list = wait("list of imports", || asked().first().cloned());
    assert_eq!((&*list.path, list.is_streamed_list()), (alpha, true), "the older version");

    let server = Server::start();
    let _watch = server.watch(&[end_of_list("Node", "3")]);
    let asked = || server.script.lock().unwrap().imports.clone();
    let source = with_dns(&server, Needs::NONE);
    source.updates.recv_timeout(LIMIT).unwrap();
    assert_eq!(asked().len(), 0, "nobody asks for them");
    source.demand.set(&Needs { imports: true, ..Needs::NONE });
    assert_eq!(wait("list of imports", || asked().first().cloned()).path, beta, "the newest version");
}

#[test]
fn pods_are_watched_as_far_as_somebody_asks_for_them() {
    let server = Server::start();
    let _watch = server.watch(&[end_of_list("Node", "3")]);
    let source = with_dns(&server, Needs::NONE);
    source.updates.recv_timeout(LIMIT).unwrap();
    let asked = || server.script.lock().unwrap().pods.clone();
    assert_eq!(asked().len(), 0, "nobody asks for pods");
    for (pods, selector) in [(Pods::On("one".into()), Some("spec.nodeName%3Done")), (Pods::All, None)] {
        let before = asked().len();
        let needs = Needs { pods, ..Needs::NONE };
        source.demand.set(&needs);
        source.demand.set(&needs);
        let last = wait("list of pods", || asked().get(before).cloned());
        assert!(last.is_streamed_list());
        assert_eq!(last.parameters.get("fieldSelector").map(String::as_str), selector);
        assert_eq!(asked().len(), before + 1);
    }
}
