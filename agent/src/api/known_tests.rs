//! What lists and events make of what is known, in whatever order they come.

use proptest::prelude::*;
use sluice_model::{Changes, Object, Snapshot};

use super::*;

fn node(name: &str, network: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"5"}},"spec":{{"podCIDRs":["{network}"]}}}}"#)
}

fn list(known: &mut Known, objects: &[String]) -> Vec<Delta> {
    known.begin_list();
    for object in objects {
        assert_eq!(known.listed(Happened::Changed, object.as_bytes()).as_deref(), Some("5"));
    }
    known.end_list()
}

fn names(deltas: &[Delta]) -> Vec<String> {
    deltas
        .iter()
        .map(|delta| match delta {
            Delta::Put(Object::Node(node)) => format!("+{}", node.name),
            Delta::Remove(ObjectKey::Node(name)) => format!("-{name}"),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_list_taken_anew_gives_what_differs_and_removals_first() {
    let mut known = Known::new(Kind::Node);
    let [a, b, c] = ["a", "b", "c"].map(|name| node(name, "10.0.0.0/24"));
    assert_eq!(names(&list(&mut known, &[a.clone(), b.clone()])), ["+a", "+b"]);
    assert_eq!(names(&list(&mut known, &[a.clone(), b])), [""; 0]);
    assert_eq!(names(&list(&mut known, &[c, node("a", "10.0.1.0/24")])), ["-b", "+c", "+a"]);
    assert_eq!(known.len(), 2);
}

#[test]
fn a_list_that_breaks_off_takes_nothing_away_and_is_not_believed() {
    let mut known = Known::new(Kind::Node);
    let [a, b] = ["a", "b"].map(|name| node(name, "10.0.0.0/24"));
    list(&mut known, std::slice::from_ref(&a));
    let changed = node("a", "10.0.9.0/24");
    known.begin_list();
    known.listed(Happened::Changed, changed.as_bytes());
    known.listed(Happened::Changed, b.as_bytes());
    // The connection is lost here. The next list has the same, and it must get to the loop.
    assert_eq!(names(&list(&mut known, &[changed.clone(), b.clone()])), ["+a", "+b"]);
    known.begin_list();
    known.listed(Happened::Deleted, b.as_bytes());
    assert_eq!(names(&list(&mut known, &[changed])), ["-b"]);
}

#[test]
fn an_object_with_a_mistake_is_told_once_and_what_it_was_stays() {
    let mut known = Known::new(Kind::Node);
    let (good, bad) = (node("a", "10.0.0.0/24"), node("a", "10.0.0.0"));
    let new = node("n", "nonsense");
    list(&mut known, std::slice::from_ref(&good));
    for _ in 0..2 {
        assert!(list(&mut known, &[bad.clone(), new.clone()]).is_empty());
    }
    assert_eq!(known.faults(), 2);
    let told = known.take_untold();
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with("Node a: spec.podCIDRs[0]: "), "{told:?}");
    // Mended: as it was before, but the loop is told again, as it may have been something else in between.
    assert_eq!(names(&list(&mut known, &[good])), ["+a"]);
    assert_eq!(known.faults(), 0);
    // Gone while it cannot be used: gone.
    let (_, delta) = known.event(Happened::Changed, bad.as_bytes());
    assert_eq!((delta, known.faults()), (None, 1));
    let (_, delta) = known.event(Happened::Deleted, bad.as_bytes());
    assert_eq!((names(&Vec::from_iter(delta)), known.faults()), (vec!["-a".to_owned()], 0));
}

#[test]
fn what_nobody_reads_of_an_object_does_not_keep_it_out() {
    // As a load balancer's controller may leave it behind.
    let service = br#"{"metadata":{"namespace":"d","name":"s"},"spec":{},
        "status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":null}]}}"#;
    let delta = Known::new(Kind::Service).event(Happened::Changed, service).1;
    assert!(matches!(delta, Some(Delta::Put(Object::Service(_)))), "{delta:?}");
    let ready = r#"{"metadata":{"namespace":"d","name":"p"},"spec":{},"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    let delta = Known::new(Kind::Pod).event(Happened::Changed, ready.as_bytes()).1;
    let Some(Delta::Put(Object::Pod(pod))) = delta else { panic!("{delta:?}") };
    assert!(pod.ready);
}

#[test]
fn services_come_again_when_their_labels_are_asked_for() {
    let service =
        r#"{"metadata":{"namespace":"d","name":"s","resourceVersion":"5","labels":{"a":"b"}},"spec":{}}"#;
    let mut known = Known::new(Kind::Service);
    let labels = |known: &mut Known| {
        let deltas = list(known, &[service.to_owned()]);
        deltas
            .into_iter()
            .map(|delta| match delta {
                Delta::Put(Object::Service(service)) => service.labels.is_some(),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!([labels(&mut known), labels(&mut known)], [vec![false], vec![]]);
    known.keep_whole(true);
    known.keep_whole(true);
    assert_eq!([labels(&mut known), labels(&mut known)], [vec![true], vec![]]);
    known.keep_whole(false);
    assert_eq!(labels(&mut known), [false]);
}

#[test]
fn what_is_of_no_use_any_more_is_taken_back() {
    let slice = |label: &str| {
        format!(
            r#"{{"metadata":{{"namespace":"d","name":"s","labels":{{"kubernetes.io/service-name":"{label}"}}}},
                "addressType":"IPv4","endpoints":[]}}"#
        )
    };
    let mut known = Known::new(Kind::EndpointSlice);
    let mut change = |text: String| known.event(Happened::Changed, text.as_bytes()).1;
    assert!(matches!(change(slice("web")), Some(Delta::Put(Object::EndpointSlice(_)))));
    assert!(matches!(change(slice("")), Some(Delta::Remove(ObjectKey::EndpointSlice(_)))));
    assert_eq!(change(slice("")), None);
}

/// What may happen between an API server and the source.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// A list, of which only so many elements arrive.
    Broken(usize),
    Whole,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Network 9 is nonsense.
        (0..5u8, 0..10u8).prop_map(|(node, network)| Step::Put(node, network)),
        (0..5u8).prop_map(Step::Delete),
        (0..5usize).prop_map(Step::Broken),
        Just(Step::Whole),
    ]
}

proptest! {
    /// Whatever lists and events come, broken off or not: after a whole list the loop knows what the server
    /// has, as far as it can be used.
    #[test]
    fn a_whole_list_makes_everything_right(steps in prop::collection::vec(step(), 0..40), lost: Vec<bool>) {
        let mut known = Known::new(Kind::Node);
        let mut server: BTreeMap<u8, (u8, Option<u8>)> = BTreeMap::new();
        let mut snapshot = Snapshot::default();
        let mut lost = lost.into_iter().chain(std::iter::repeat(false));
        let text = |name: u8, network: u8| match network {
            9 => node(&format!("n{name}"), "nonsense"),
            _ => node(&format!("n{name}"), &format!("10.0.{network}.0/24")),
        };
        for step in steps.into_iter().chain([Step::Whole]) {
            let mut deltas = Vec::new();
            match step {
                Step::Put(name, network) => {
                    let kept = server.get(&name).and_then(|(_, good)| *good);
                    let lost = lost.next().unwrap();
                    // What cannot be used leaves in force what was known here, which a lost event never was.
                    let good = if network == 9 { kept } else { Some(network) };
                    if !lost {
                        server.insert(name, (network, good));
                        deltas.extend(known.event(Happened::Changed, text(name, network).as_bytes()).1);
                    } else if network != 9 {
                        server.insert(name, (network, good));
                    }
                }
                Step::Delete(name) => {
                    let there = server.remove(&name).is_some();
                    // A lost deletion of what was bad is a case of its own: see the test above.
                    if there {
                        deltas.extend(known.event(Happened::Deleted, text(name, 0).as_bytes()).1);
                    }
                }
                Step::Broken(count) => {
                    known.begin_list();
                    for (name, (network, _)) in server.iter().take(count) {
                        known.listed(Happened::Changed, text(*name, *network).as_bytes());
                    }
                }
                Step::Whole => {
                    let all: Vec<_> = server.iter().map(|(name, (network, _))| text(*name, *network)).collect();
                    deltas = list(&mut known, &all);
                }
            }
            for delta in deltas {
                match delta {
                    Delta::Put(object) => snapshot.apply(object, &mut Changes::default()),
                    Delta::Remove(key) => snapshot.remove(&key, &mut Changes::default()),
                }
            }
        }
        let found: Vec<String> =
            snapshot.nodes.values().map(|node| format!("{} {}", node.name, node.pod_cidrs[0])).collect();
        let usable = server.iter().filter(|(_, (network, _))| *network != 9);
        let wanted: Vec<String> =
            usable.map(|(name, (network, _))| format!("n{name} 10.0.{network}.0/24")).collect();
        for wanted in &wanted {
            prop_assert!(found.contains(wanted), "{wanted} is missing in {found:?}");
        }
        for found in &found {
            let name: u8 = found[1..2].parse().unwrap();
            prop_assert!(server.contains_key(&name), "{found} should be gone");
        }
    }
}
