//! The order of change, held against every prefix of every plan; and the loop's convergence.

#![expect(clippy::panic, reason = "the maps under test fail the test where a packet would meet a hole")]

mod maps;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use maps::{Backends, Checked, Maps, View, node, service_for, wanted};
use proptest::prelude::*;
use sluice_ebpf_common::{Frontend, MemberKey, SERVICE_DROP_IF_EMPTY};
use sluice_model::{Changes, Object, ObjectKey, ObjectName, Service, Snapshot};
use sluice_proxy::{MapOp, Proxy};
use steps::{Step, advance, name, service_object, step};

/// The maps hold what the snapshot says, and nothing else.
fn assert_converged(maps: &Maps, snapshot: &Snapshot) {
    let none = MapOp::RemoveService { id: 0 };
    let held: BTreeMap<View, Backends> = maps
        .views()
        .map(|(view, frontend)| (view, maps.backends_behind(service_for(view, frontend), &none)))
        .collect();
    let wanted: BTreeMap<View, Backends> =
        wanted(snapshot).into_iter().map(|(view, (_, backends))| (view, backends)).collect();
    assert_eq!(held, wanted);
    let ids = |frontend: &Frontend| [frontend.service, frontend.local];
    let used: BTreeSet<u32> = maps.held.frontends.values().flat_map(ids).filter(|id| *id != 0).collect();
    // This node's endpoints of a service whose policy asks for them no more stay for datagrams under way, and only
    // while they serve; then they are among those of the cluster, too.
    let at = |id: &u32| maps.held.backends.get(id).map(|backend| (backend.addr, backend.port));
    let served: BTreeSet<_> =
        used.iter().flat_map(|id| maps.held.backends_of(*id)).filter_map(|id| at(&id)).collect();
    for id in maps.held.service_ids().difference(&used) {
        let held: Vec<_> = maps.held.backends_of(*id).filter_map(|id| at(&id)).collect();
        let remains = held.is_empty()
            || maps.held.services[id].count != 0
            || held.iter().any(|at| !served.contains(at));
        assert!(!remains, "remains of a service that is gone: {id}");
    }
    for (id, service) in &maps.held.services {
        let members: BTreeSet<MemberKey> = maps.held.members_of(*id).collect();
        assert_eq!(
            members.len() as u32,
            if service.affinity == 0 { 0 } else { service.count },
            "members of {id}"
        );
        assert!(service.flags & SERVICE_DROP_IF_EMPTY == 0 || service.count == 0);
    }
    let slots: u32 = maps.held.services.values().map(|service| service.count).sum();
    assert_eq!(maps.held.slots.len(), slots as usize, "remains of slots");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_every_plan_is_valid(steps in proptest::collection::vec(step(), 1..25)) {
        let store = Checked::default();
        let mut proxy = Proxy::new(store.clone(), node()).unwrap();
        let mut snapshot = Snapshot::default();
        for step in steps {
            let before = snapshot.clone();
            let mut changes = advance(&mut snapshot, &step);
            if step.restart {
                // A new process with the same maps, which looks at everything.
                proxy = Proxy::new(store.clone(), node()).unwrap();
                changes = Changes::everything();
            }
            store.0.borrow_mut().expect(&[&before, &snapshot]);
            let report = proxy.sync(&snapshot, &changes);
            prop_assert!(report.errors.is_empty(), "{:?}", report.errors);
            assert_converged(&store.0.borrow(), &snapshot);
            prop_assert_eq!(&proxy.repair(&snapshot, &Changes::everything()).operations, &0, "a second pass changed something");
        }
    }

    #[test]
    fn a_failed_operation_is_made_good_on_the_next_pass(
        steps in proptest::collection::vec(step(), 2..10),
        fail_at in 1usize..60,
    ) {
        let store = Checked::default();
        store.0.borrow_mut().fail_at = Some(fail_at);
        let mut proxy = Proxy::new(store.clone(), node()).unwrap();
        let mut snapshot = Snapshot::default();
        for step in steps {
            let changes = advance(&mut snapshot, &step);
            let report = proxy.sync(&snapshot, &changes);
            if !report.errors.is_empty() {
                prop_assert!(proxy.is_unfinished());
                let again = proxy.sync(&snapshot, &Changes::default());
                prop_assert!(again.errors.is_empty(), "{:?}", again.errors);
            }
            assert_converged(&store.0.borrow(), &snapshot);
        }
    }
}

#[test]
fn one_endpoint_more_costs_a_fixed_number_of_operations() {
    let store = Checked::default();
    let mut proxy = Proxy::new(store, node()).unwrap();
    let mut snapshot = Snapshot::default();
    let many = Step {
        service: 0,
        endpoints: Some((1..=200).collect()),
        draining: BTreeSet::new(),
        node_port: true,
        local: (false, false),
        affinity: false,
        restart: false,
    };
    let changes = advance(&mut snapshot, &many);
    proxy.sync(&snapshot, &changes);
    let more = Step { endpoints: Some((1..=201).collect()), ..many.clone() };
    let changes = advance(&mut snapshot, &more);
    // Ids, backend, slot, count.
    assert_eq!(proxy.sync(&snapshot, &changes).operations, 4);
    let changes = advance(&mut snapshot, &many);
    // Count, slot beyond, backend.
    assert_eq!(proxy.sync(&snapshot, &changes).operations, 3);
}

#[test]
fn a_repair_sees_what_others_have_taken_away_and_what_has_changed_meanwhile() {
    let store = Checked::default();
    let mut proxy = Proxy::new(store.clone(), node()).unwrap();
    let mut snapshot = Snapshot::default();
    let first = Step {
        service: 0,
        endpoints: Some([1, 2].into()),
        draining: BTreeSet::new(),
        node_port: true,
        local: (false, false),
        affinity: false,
        restart: false,
    };
    let changes = advance(&mut snapshot, &first);
    proxy.sync(&snapshot, &changes);
    let none = Changes::default();
    assert_eq!(proxy.repair(&snapshot, &none).operations, 0);
    // Somebody takes an address away.
    let key = *store.0.borrow().held.frontends.keys().next().unwrap();
    store.0.borrow_mut().held.apply(&MapOp::RemoveFrontend { key });
    assert!(proxy.repair(&snapshot, &none).operations > 0);
    assert_converged(&store.0.borrow(), &snapshot);
    // A change that comes with a repair, of which nobody else has changed anything.
    let changes = advance(&mut snapshot, &Step { service: 1, ..first });
    assert!(proxy.repair(&snapshot, &changes).operations > 0);
    assert_converged(&store.0.borrow(), &snapshot);
}

#[test]
fn two_services_with_one_address_are_an_error_that_names_both() {
    let store = Checked::default();
    let mut proxy = Proxy::new(store.clone(), node()).unwrap();
    let mut snapshot = Snapshot::default();
    let mut changes = Changes::default();
    let first = Step {
        service: 0,
        endpoints: Some([1].into()),
        draining: BTreeSet::new(),
        node_port: false,
        local: (false, false),
        affinity: false,
        restart: false,
    };
    for service in
        [service_object(&first), Service { name: ObjectName::new("default", "zz"), ..service_object(&first) }]
    {
        snapshot.apply(Object::Service(service), &mut changes);
    }
    let report = proxy.sync(&snapshot, &changes);
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["default/zz port \"\" TCP IPv4: 10.96.0.1:80/TCP belongs to default/svc0 port \"\" TCP IPv4"]
    );

    // The address passes to the second when the first goes.
    let mut changes = Changes::default();
    snapshot.remove(&ObjectKey::Service(name(0)), &mut changes);
    let report = proxy.sync(&snapshot, &changes);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    // The port, and the address as a whole.
    assert_eq!(store.0.borrow().held.frontends.len(), 2);
}
