//! Maps in memory that fail a test at the first operation after which a packet would meet a hole.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
};

use sluice_ebpf_common::{
    Backend, FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_OUTSIDE, Frontend, FrontendKey, SlotKey,
};
use sluice_model::{ObjectName, Snapshot};
use sluice_proxy::{
    DesiredService, MapOp, MapStore, NodeView, Observed, Scope, StoreError, desired_services,
};

/// Where a service's connections may go.
pub(crate) type Backends = BTreeSet<(IpAddr, u16)>;

/// A frontend as clients on this node see it, or (true) as clients outside do.
pub(crate) type View = (FrontendKey, bool);

/// Maps in memory, which check the invariant after every single operation.
#[derive(Default)]
pub(crate) struct Maps {
    pub(crate) held: Observed,
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
    pub(crate) fail_at: Option<usize>,
}

#[derive(Clone, Default)]
pub(crate) struct Checked(pub(crate) Rc<RefCell<Maps>>);

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

    pub(crate) fn views(&self) -> impl Iterator<Item = (View, &Frontend)> {
        self.held
            .frontends
            .iter()
            .flat_map(|(key, frontend)| [false, true].map(|outside| ((*key, outside), frontend)))
    }

    pub(crate) fn backends_behind(&self, service: u32, op: &MapOp) -> Backends {
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
    pub(crate) fn expect(&mut self, states: &[&Snapshot]) {
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
pub(crate) fn service_for((_, outside): View, frontend: &Frontend) -> u32 {
    let local = frontend.flags & FRONTEND_LOCAL_INSIDE != 0
        || outside && frontend.flags & FRONTEND_LOCAL_OUTSIDE != 0;
    if local { frontend.local } else { frontend.service }
}

pub(crate) fn node() -> NodeView {
    NodeView { name: "n1".into(), fast_path: true, ..NodeView::default() }
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
pub(crate) fn wanted(snapshot: &Snapshot) -> BTreeMap<View, (ObjectName, Backends)> {
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
