//! The order of change, held against every prefix of every plan; and the loop's convergence.

#![expect(clippy::panic, reason = "the maps under test fail the test where a packet would meet a hole")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::Duration,
};

use proptest::prelude::*;
use sluice_ebpf_common::{
    Backend, FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_OUTSIDE, Frontend, FrontendKey, MemberKey,
    SERVICE_DROP_IF_EMPTY, SlotKey,
};
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, Object, ObjectKey, ObjectName, Protocol,
    Service, ServiceKind, ServicePort, Snapshot, TargetPort, TrafficPolicy,
};
use sluice_proxy::{
    DesiredService, MapOp, MapStore, NodeView, Observed, Proxy, Scope, StoreError, desired_services,
};

/// Where a service's connections may go.
type Backends = BTreeSet<(IpAddr, u16)>;

/// A frontend as clients on this node see it, or (true) as clients outside do.
type View = (FrontendKey, bool);

/// Maps in memory, which check the invariant after every single operation.
#[derive(Default)]
struct Maps {
    held: Observed,
    /// What a connection may meet at this moment: for each frontend, the backends of the old and of the new
    /// state of the cluster. `None` in a list means that the frontend may be absent.
    allowed: BTreeMap<View, Vec<Option<Backends>>>,
    /// The backends, old and new, of the services that an address led or leads to.
    reachable: BTreeMap<View, Backends>,
    /// Frontends whose traffic policy changes.
    new_policy: BTreeSet<View>,
    /// Ids of backends that were removed: never to be seen again.
    retired: BTreeSet<u32>,
    operations: usize,
    /// Fails the operation with this number.
    fail_at: Option<usize>,
}

#[derive(Clone, Default)]
struct Checked(Rc<RefCell<Maps>>);

impl MapStore for Checked {
    fn dump(&self) -> Result<Observed, StoreError> {
        Ok(self.0.borrow().held.clone())
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), StoreError> {
        let mut maps = self.0.borrow_mut();
        maps.operations += 1;
        if maps.fail_at == Some(maps.operations) {
            return Err(StoreError::Full { map: "slots", capacity: 0 });
        }
        if let MapOp::PutBackend { id, .. } = op {
            assert!(!maps.retired.contains(id), "id {id} is used a second time");
            assert!(
                u64::from(*id) < maps.held.next_backend,
                "id {id} is used before it is marked as handed out"
            );
        }
        if let MapOp::RemoveBackend { id } = op {
            maps.retired.insert(*id);
        }
        maps.held.apply(op);
        maps.check(op);
        Ok(())
    }
}

impl Maps {
    /// Every lookup that a packet can make finds a complete, valid answer.
    fn check(&self, op: &MapOp) {
        for (view, frontend) in self.views() {
            let met = self.backends_behind(service_for(view, frontend), op);
            if let Some(allowed) = self.allowed.get(&view) {
                // While one list of backends becomes another, a connection may go to either's.
                // So may one through an address that is going, which leads to the service until it is gone.
                let union: BTreeSet<_> = self.reachable.get(&view).into_iter().flatten().copied().collect();
                // A policy that changes together with the endpoints may find none of the new by the old one.
                let may_refuse = self.new_policy.contains(&view)
                    || allowed.iter().any(|state| state.as_ref().is_none_or(BTreeSet::is_empty));
                assert!(met.is_subset(&union), "after {op}: {met:?} is neither old nor new");
                assert!(
                    !met.is_empty() || may_refuse,
                    "after {op}: refused, though endpoints were there throughout"
                );
            }
        }
        for (view, allowed) in &self.allowed {
            let may_be_absent = allowed.iter().any(Option::is_none);
            assert!(
                may_be_absent || self.held.frontends.contains_key(&view.0),
                "after {op}: a frontend was gone"
            );
        }
        // A client that is led to where it went last meets a backend of that service.
        for (key, id) in &self.held.members {
            let backend = self.held.backends.get(id).unwrap_or_else(|| panic!("after {op}: no backend {id}"));
            let at = (backend.addr, backend.port, backend.service);
            assert_eq!(at, (key.addr, key.port, key.service), "after {op}: a member names another backend");
        }
    }

    fn views(&self) -> impl Iterator<Item = (View, &Frontend)> {
        self.held
            .frontends
            .iter()
            .flat_map(|(key, frontend)| [false, true].map(|outside| ((*key, outside), frontend)))
    }

    fn backends_behind(&self, service: u32, op: &MapOp) -> Backends {
        let entry =
            self.held.services.get(&service).unwrap_or_else(|| panic!("after {op}: no service {service}"));
        (0..entry.count)
            .map(|index| {
                let id = self.held.slots.get(&SlotKey { service, index });
                let id = id.unwrap_or_else(|| panic!("after {op}: no slot {service}/{index}"));
                let backend = self.held.backends.get(id);
                let backend: &Backend = backend.unwrap_or_else(|| panic!("after {op}: no backend {id}"));
                assert_eq!(backend.service, service, "after {op}: backend {id} belongs elsewhere");
                (backend.addr.into(), backend.port.to_host())
            })
            .collect()
    }

    /// Prepares the check for a change from one snapshot to another.
    fn expect(&mut self, states: &[&Snapshot]) {
        self.allowed.clear();
        self.reachable.clear();
        let policies: Vec<BTreeMap<FrontendKey, u32>> =
            states.iter().map(|snapshot| flags(snapshot)).collect();
        let differ = |key: &FrontendKey| policies.iter().any(|state| state.get(key) != policies[0].get(key));
        let keys: BTreeSet<FrontendKey> =
            policies.iter().flat_map(BTreeMap::keys).copied().filter(differ).collect();
        self.new_policy = keys.into_iter().flat_map(|key| [(key, false), (key, true)]).collect();
        let per_state: Vec<_> = states.iter().map(|snapshot| wanted(snapshot)).collect();
        let mut of_service: BTreeMap<ObjectName, Backends> = BTreeMap::new();
        // All of a service's endpoints: while its policy changes, an address may meet new endpoints by the old
        // policy.
        for (snapshot, name) in
            states.iter().flat_map(|snapshot| snapshot.services.keys().map(move |name| (snapshot, name)))
        {
            for service in desired_services(snapshot, name, &node()).into_values() {
                of_service.entry(name.clone()).or_default().extend(addresses(&service));
            }
        }
        for view in per_state.iter().flat_map(BTreeMap::keys) {
            let states = per_state.iter().map(|state| state.get(view));
            let backends = states.clone().map(|state| state.map(|(_, backends)| backends.clone()));
            self.allowed.insert(*view, backends.collect());
            let services = states.flatten().flat_map(|(service, _)| &of_service[service]).copied().collect();
            self.reachable.insert(*view, services);
        }
    }
}

/// The service that the datapath asks for a client.
fn service_for((_, outside): View, frontend: &Frontend) -> u32 {
    let local = frontend.flags & FRONTEND_LOCAL_INSIDE != 0
        || outside && frontend.flags & FRONTEND_LOCAL_OUTSIDE != 0;
    if local { frontend.local } else { frontend.service }
}

fn node() -> NodeView {
    NodeView { name: "n1".into(), local_dns: None, fast_path: true }
}

/// The flags of every frontend.
fn flags(snapshot: &Snapshot) -> BTreeMap<FrontendKey, u32> {
    let services = snapshot.services.keys().flat_map(|name| desired_services(snapshot, name, &node()));
    services.flat_map(|(_, service)| service.frontends).collect()
}

fn addresses(service: &DesiredService) -> Backends {
    service.backends.iter().map(|(addr, port)| ((*addr).into(), port.to_host())).collect()
}

/// What a snapshot says of every frontend.
fn wanted(snapshot: &Snapshot) -> BTreeMap<View, (ObjectName, Backends)> {
    let mut wanted = BTreeMap::new();
    for name in snapshot.services.keys() {
        let desired = desired_services(snapshot, name, &node());
        for (key, service) in desired.iter().filter(|(key, _)| key.scope == Scope::Cluster) {
            let mut local = key.clone();
            local.scope = Scope::Local;
            for (frontend, flags) in &service.frontends {
                for outside in [false, true] {
                    let ids = Frontend { service: 1, local: 2, flags: *flags };
                    let asked =
                        if service_for((*frontend, outside), &ids) == 1 { service } else { &desired[&local] };
                    wanted.insert((*frontend, outside), (name.clone(), addresses(asked)));
                }
            }
        }
    }
    wanted
}

/// A step of the cluster's life: service `service` gets these endpoints, or goes.
#[derive(Clone, Debug)]
struct Step {
    service: u8,
    endpoints: Option<BTreeSet<u8>>,
    draining: BTreeSet<u8>,
    node_port: bool,
    /// Traffic policy Local, inside and outside.
    local: (bool, bool),
    affinity: bool,
    restart: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let endpoints = proptest::collection::btree_set(1u8..12, 0..8);
    let draining = proptest::collection::btree_set(1u8..12, 0..3);
    let flags = (any::<bool>(), any::<(bool, bool)>(), any::<bool>(), proptest::bool::weighted(0.1));
    (0u8..4, proptest::option::weighted(0.85, endpoints), draining, flags).prop_map(
        |(service, endpoints, draining, (node_port, local, affinity, restart))| Step {
            service,
            endpoints,
            draining,
            node_port,
            local,
            affinity,
            restart,
        },
    )
}

fn name(service: u8) -> ObjectName {
    ObjectName::new("default", format!("svc{service}"))
}

fn service_object(step: &Step) -> Service {
    Service {
        kind: if step.node_port { ServiceKind::NodePort } else { ServiceKind::ClusterIp },
        cluster_ips: vec![Ipv4Addr::new(10, 96, 0, step.service + 1).into()],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: TargetPort::Number(8080),
            node_port: step.node_port.then_some(30_000 + u16::from(step.service)),
        }],
        external_traffic_policy: policy(step.local.1),
        internal_traffic_policy: policy(step.local.0),
        affinity: step.affinity.then_some(Duration::from_secs(60)),
        ..Service::new(name(step.service))
    }
}

fn policy(local: bool) -> TrafficPolicy {
    if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn slice_object(step: &Step, endpoints: &BTreeSet<u8>) -> EndpointSlice {
    let endpoint = |last: &u8, ready: bool| Endpoint {
        addresses: vec![Ipv4Addr::new(10, 244, 0, *last).into()],
        ready,
        serving: true,
        terminating: !ready,
        hostname: None,
        node: Some(if last.is_multiple_of(2) { "n1".into() } else { "n2".into() }),
        zone: None,
        hints: Hints::default(),
        pod: None,
    };
    let ready = endpoints.iter().map(|last| endpoint(last, true));
    let draining = step.draining.difference(endpoints).map(|last| endpoint(last, false));
    EndpointSlice {
        name: name(step.service),
        service: name(step.service),
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: ready.chain(draining).collect(),
        last_change: None,
    }
}

fn advance(snapshot: &mut Snapshot, step: &Step) -> Changes {
    let mut changes = Changes::default();
    match &step.endpoints {
        Some(endpoints) => {
            snapshot.apply(Object::Service(service_object(step)), &mut changes);
            snapshot.apply(Object::EndpointSlice(slice_object(step, endpoints)), &mut changes);
        }
        None => {
            snapshot.remove(&ObjectKey::Service(name(step.service)), &mut changes);
            snapshot.remove(&ObjectKey::EndpointSlice(name(step.service)), &mut changes);
        }
    }
    changes
}

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
            prop_assert_eq!(&proxy.repair(&snapshot).operations, &0, "a second pass changed something");
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
