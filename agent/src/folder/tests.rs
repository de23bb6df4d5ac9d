//! The view of a folder: what a change of a file, a record or another node's status comes to.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use sluice_model::{Changes, Object, ObjectKey, ObjectName, Snapshot};

use super::{PodAddresses, PodStatus, View};
use crate::source::Delta;

/// A view and the snapshot that a loop would hold.
struct Fixture {
    view: View,
    snapshot: Snapshot,
}

impl Fixture {
    fn new() -> Self {
        Self { view: View::new("one".into()), snapshot: Snapshot::default() }
    }

    fn file(&mut self, name: &str, text: &str) -> Vec<String> {
        self.view.put_file(&Arc::from(name), text);
        self.step()
    }

    /// Applies what changed; gives the names of the objects.
    fn step(&mut self) -> Vec<String> {
        let deltas = self.view.take_deltas(SystemTime::UNIX_EPOCH);
        let mut changes = Changes::default();
        let mut names = Vec::new();
        for delta in deltas {
            let (sign, key) = match &delta {
                Delta::Put(object) => ('+', object.key()),
                Delta::Remove(key) => ('-', key.clone()),
            };
            names.push(format!("{sign}{}", super::files::Title(&key)));
            match delta {
                Delta::Put(object) => self.snapshot.apply(object, &mut changes),
                Delta::Remove(key) => self.snapshot.remove(&key, &mut changes),
            }
        }
        names
    }

    /// The endpoints of the service `web`: pod, address, node.
    fn endpoints(&self) -> Vec<String> {
        let web = ObjectName::new("default", "web");
        let slices = self.snapshot.slices_of(&web);
        let endpoints = slices.flat_map(|slice| slice.endpoints.iter());
        endpoints
            .map(|e| {
                let pod = e.pod.as_ref().map_or("-", |pod| &pod.name);
                format!("{pod} {} {}", e.addresses[0], e.node.as_deref().unwrap_or("-"))
            })
            .collect()
    }
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
    spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}\n";

fn pod(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec: {{{spec}}}\n"
    )
}

fn addresses(pods: &[(&str, &str)]) -> PodAddresses {
    pods.iter().map(|(name, ip)| (ObjectName::new("default", *name), vec![ip.parse().unwrap()])).collect()
}

#[test]
fn a_service_and_labelled_pods_are_enough() {
    let mut fixture = Fixture::new();
    let text = SERVICE.to_owned() + &pod("a", "nodeName: one") + &pod("b", "nodeName: two") + &pod("c", "");
    fixture.file("web.yaml", &text);
    assert_eq!(fixture.endpoints(), [""; 0], "nobody has an address yet");

    fixture.view.put_records(addresses(&[("a", "10.1.0.2"), ("b", "10.1.0.3"), ("x", "10.1.0.4")]));
    assert_eq!(fixture.step(), ["+Pod default/a", "+EndpointSlice default/web-sluice-ipv4-1"]);
    assert_eq!(fixture.endpoints(), ["a 10.1.0.2 one"], "b says that it is on another node");

    let status = PodStatus {
        node: "two".into(),
        pods: addresses(&[("a", "10.2.0.9"), ("b", "10.2.0.2"), ("c", "10.2.0.3")]),
    };
    fixture.view.put_other(&"two.yaml".into(), Some(status));
    fixture.step();
    assert_eq!(fixture.endpoints(), ["a 10.1.0.2 one", "b 10.2.0.2 two", "c 10.2.0.3 two"]);

    fixture.view.put_other(&"two.yaml".into(), None);
    fixture.step();
    assert_eq!(fixture.endpoints(), ["a 10.1.0.2 one"]);

    fixture.view.remove_file(&"web.yaml".into());
    let gone = fixture.step();
    assert!(gone.contains(&"-EndpointSlice default/web-sluice-ipv4-1".to_owned()), "{gone:?}");
    assert_eq!(fixture.snapshot, Snapshot::default());
}

#[test]
fn a_change_costs_what_it_changes() {
    let mut fixture = Fixture::new();
    fixture.file("other.yaml", &SERVICE.replace("web", "other"));
    fixture.file("web.yaml", SERVICE);
    fixture.file("a.yaml", &(pod("a", "nodeName: one") + "status: {podIP: 10.1.0.2}\n"));
    // The same text again, and a text that says the same in other words, change nothing.
    assert_eq!(fixture.file("web.yaml", SERVICE), [""; 0]);
    assert_eq!(fixture.file("web.yaml", &(SERVICE.to_owned() + "# a comment\n")), [""; 0]);
    // A label that no service selects.
    let text =
        (pod("a", "nodeName: one") + "status: {podIP: 10.1.0.2}\n").replace("app: web", "app: web, v: '2'");
    assert_eq!(fixture.file("a.yaml", &text), ["+Pod default/a"]);
    // A pod that moves from one service to another.
    let moved = text.replace("app: web", "app: other");
    let changed = fixture.file("a.yaml", &moved);
    assert_eq!(
        changed,
        [
            "+Pod default/a",
            "+EndpointSlice default/other-sluice-ipv4-1",
            "-EndpointSlice default/web-sluice-ipv4-1"
        ]
    );
}

#[test]
fn slices_by_hand_take_the_place_of_made_ones() {
    let mut fixture = Fixture::new();
    fixture.file("web.yaml", &(SERVICE.to_owned() + &pod("a", "") + "status: {podIP: 10.1.0.2}\n"));
    assert_eq!(fixture.endpoints(), ["a 10.1.0.2 -"]);
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\n\
        addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [192.0.2.1]}]\n";
    fixture.file("slice.yaml", slice);
    assert_eq!(fixture.endpoints(), ["- 192.0.2.1 -"]);
    fixture.view.remove_file(&"slice.yaml".into());
    fixture.step();
    assert_eq!(fixture.endpoints(), ["a 10.1.0.2 -"]);
}

#[test]
fn pods_in_the_hosts_network_have_the_nodes_addresses() {
    let mut fixture = Fixture::new();
    fixture.file("web.yaml", &(SERVICE.to_owned() + &pod("a", "nodeName: two, hostNetwork: true")));
    assert_eq!(fixture.endpoints(), [""; 0]);
    let node = |address: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: two}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
        )
    };
    fixture.file("nodes.yaml", &node("192.0.2.2"));
    assert_eq!(fixture.endpoints(), ["a 192.0.2.2 two"]);
    fixture.file("nodes.yaml", &node("192.0.2.3"));
    assert_eq!(fixture.endpoints(), ["a 192.0.2.3 two"]);
}

#[test]
fn a_mistake_leaves_the_service_in_force() {
    let mut fixture = Fixture::new();
    fixture.file("web.yaml", SERVICE);
    assert_eq!(fixture.file("web.yaml", &SERVICE.replace("10.96.0.1", "10.96.0")), [""; 0]);
    let notes: Vec<_> = fixture.view.take_notes().iter().map(ToString::to_string).collect();
    assert!(notes[0].starts_with("web.yaml: line 4: Service default/web: spec.clusterIP:"), "{notes:?}");
    assert!(notes[1].contains("stays in force: Service default/web"), "{notes:?}");
    assert_eq!(fixture.snapshot.services.len(), 1);
    assert_eq!(fixture.view.bad_files(), 1);
}

#[test]
fn made_slices_carry_the_time_of_their_change_and_only_that() {
    let mut view = View::new("one".into());
    view.put_file(&"a".into(), &(SERVICE.to_owned() + &pod("a", "") + "status: {podIP: 10.1.0.2}\n"));
    let stamps = |deltas: Vec<Delta>| -> BTreeMap<ObjectKey, Option<SystemTime>> {
        let slices = deltas.into_iter().filter_map(|delta| match delta {
            Delta::Put(Object::EndpointSlice(slice)) => {
                Some((ObjectKey::EndpointSlice(slice.name), slice.last_change))
            }
            _ => None,
        });
        slices.collect()
    };
    let then = SystemTime::UNIX_EPOCH;
    assert_eq!(stamps(view.take_deltas(then)).values().collect::<Vec<_>>(), [&Some(then)]);
    view.put_file(&"b".into(), &pod("unready", "nodeName: one"));
    assert!(stamps(view.take_deltas(SystemTime::now())).is_empty(), "the slice is the same");
}
