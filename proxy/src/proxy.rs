//! Keeps the services' maps as the cluster wants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use sluice_ebpf_common::{Addr, Be16, FRONTEND_ADDRESS, FrontendKey};
use sluice_model::{Changes, IpFamily, ObjectName, Protocol, Snapshot};

use crate::{
    DesiredService, MapStore, NodeView, Observed, Scope, ServiceKey, StoreError,
    counters::{self, WithoutLocal},
    desired_services,
    observed::Shown,
    plan::{Ids, PlannedIds, plan_service},
};

/// What the proxy must know of its node.
pub type ProxyConfig = NodeView;

/// What a pass did.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Operations applied.
    pub operations: usize,
    /// What failed; the services concerned are tried again on the next pass.
    pub errors: Vec<SyncError>,
}

/// Why a service is not as the cluster wants it.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A map refused an entry.
    #[error("{service}: {source}")]
    Store {
        /// The service's port.
        service: ServiceKey,
        /// Why.
        source: StoreError,
    },
    /// Two services claim one address and port; the first keeps it.
    #[error("{service}: {frontend} belongs to {holder}")]
    Conflict {
        /// The service that goes without.
        service: ServiceKey,
        /// What both claim, as text.
        frontend: String,
        /// The service that has it.
        holder: ServiceKey,
    },
    /// The maps could not be read back.
    #[error("reading the services' maps back: {0}")]
    Dump(#[source] StoreError),
}

/// What a service's port has in the maps.
struct Known {
    id: u32,
    frontends: BTreeSet<FrontendKey>,
}

/// The services' part of the datapath.
pub struct Proxy<S> {
    store: S,
    node: NodeView,
    observed: Observed,
    ids: Ids,
    /// What each service's port has in the maps.
    known: BTreeMap<ServiceKey, Known>,
    /// The ids in `known`.
    taken: BTreeSet<u32>,
    /// Which service's port has an address, among those that are wanted.
    claims: BTreeMap<FrontendKey, ServiceKey>,
    /// Services whose last pass failed, or that lack an address that another one holds.
    unfinished: BTreeSet<ObjectName>,
    /// The maps may hold services of before the start that nobody has claimed yet.
    adopting: bool,
    /// How many repairs there have been since the last thorough one.
    repairs: u32,
}

/// Every so many repairs everything is worked out anew, though nobody changed the maps.
const THOROUGH: u32 = 20;

impl<S: MapStore> Proxy<S> {
    /// Reads the maps; changes nothing until the first [`Self::sync`].
    pub fn new(store: S, node: NodeView) -> Result<Self, StoreError> {
        let observed = store.dump()?;
        let ids = Ids::after(&observed);
        Ok(Self {
            store,
            node,
            observed,
            ids,
            known: BTreeMap::new(),
            taken: BTreeSet::new(),
            claims: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            adopting: true,
            repairs: 0,
        })
    }

    /// Says where pages of this node's DNS server are reached, for the next pass; see [`NodeView::local_pages`].
    pub fn set_local_pages(&mut self, pages: BTreeMap<SocketAddr, SocketAddr>) {
        if self.node.local_pages != pages {
            self.node.local_pages = pages;
            self.unfinished.extend(self.node.local_dns.clone());
        }
    }

    /// Brings the maps in line with the snapshot, where it changed. The first call takes the snapshot as
    /// complete, whatever `changes` says: services that the maps hold and it does not are removed.
    pub fn sync(&mut self, snapshot: &Snapshot, changes: &Changes) -> SyncReport {
        let mut report = SyncReport::default();
        // The node's zone decides which endpoints are near.
        if self.adopting || changes.everything || changes.nodes.contains(&self.node.name) {
            let gone = self.known.keys().map(|key| key.service.clone()).collect::<BTreeSet<_>>();
            let dns = self.node.local_dns.clone();
            let all = snapshot.services.keys().cloned().chain(gone).chain(dns).collect();
            self.sync_services(snapshot, &all, &mut report);
            self.remove_unclaimed(&mut report);
            self.adopting = false;
        } else {
            let mut names = std::mem::take(&mut self.unfinished);
            names.extend(changes.services.iter().cloned());
            self.sync_services(snapshot, &names, &mut report);
        }
        report
    }

    /// Reads the maps back, so that what others changed there is seen, and brings everything in line. Where nobody
    /// changed anything only `changes` are looked at, but for every [`THOROUGH`]th time.
    pub fn repair(&mut self, snapshot: &Snapshot, changes: &Changes) -> SyncReport {
        match self.store.dump() {
            Ok(observed) => {
                self.repairs = (self.repairs + 1) % THOROUGH;
                if self.repairs != 0 && !self.adopting && observed == self.observed {
                    tracing::debug!("the services' maps are as they were left");
                    return self.sync(snapshot, changes);
                }
                tracing::debug!(maps = ?observed.differing(&self.observed), "not as they were left");
                self.observed = observed;
                self.sync(snapshot, &Changes::everything())
            }
            Err(error) => SyncReport { operations: 0, errors: vec![SyncError::Dump(error)] },
        }
    }

    /// What the maps hold, as far as is known.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Services' ports of a family that drop traffic because this node has no endpoint of theirs.
    pub fn without_local(&self, family: IpFamily) -> WithoutLocal {
        counters::without_local(&self.observed, family)
    }

    /// Whether a pass left something undone, so that another is wanted without a change.
    pub fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    fn sync_services(&mut self, snapshot: &Snapshot, names: &BTreeSet<ObjectName>, report: &mut SyncReport) {
        let wanted: BTreeMap<ServiceKey, DesiredService> =
            names.iter().flat_map(|name| desired_services(snapshot, name, &self.node)).collect();
        let mut gone: Vec<ServiceKey> = names
            .iter()
            .flat_map(|name| {
                let held = self.known.range(first_key(name)..).map(|(key, _)| key);
                held.take_while(move |key| key.service == *name)
            })
            .filter(|key| !wanted.contains_key(key))
            .cloned()
            .collect();
        for key in &gone {
            self.release(key);
        }
        // Ids for all, then this node's endpoints before the frontends that name them (the order of the keys);
        // and an address that moves to another service is taken over before its old service goes.
        let mut planned = Vec::new();
        for (key, mut desired) in wanted {
            self.claim(&key, &mut desired, report);
            planned.push((key, desired));
        }
        for scope in [Scope::Cluster, Scope::Local] {
            for (key, desired) in planned.iter().filter(|(key, _)| key.scope == scope) {
                self.identify(key, desired);
            }
        }
        gone.extend(self.adopt_remains(&planned));
        let wanted: BTreeMap<&ServiceKey, &DesiredService> =
            planned.iter().map(|(key, desired)| (key, desired)).collect();
        // What a traffic policy asks for no longer stays for datagrams under way, while the service does: nothing but
        // the end of its endpoint takes a flow away from it (row 27 of the behaviour table). The frontends go on
        // naming it, so that it is found again after a restart.
        let remains: BTreeMap<&ServiceKey, DesiredService> = gone
            .iter()
            .filter(|key| key.scope == Scope::Local)
            .filter_map(|key| Some((key, self.remains(key, wanted.get(&in_scope(key, Scope::Cluster))?)?)))
            .collect();
        let with_local: BTreeSet<ServiceKey> = wanted
            .into_keys()
            .chain(remains.keys().copied())
            .filter(|key| key.scope == Scope::Local)
            .cloned()
            .collect();
        // After a failure the rest of a service waits: it may build on what is missing, or take away what the
        // part that failed still names.
        let mut failed = BTreeSet::new();
        for (key, desired) in &planned {
            let local = in_scope(key, Scope::Local);
            let local = if with_local.contains(&local) { self.id(&local) } else { 0 };
            let ids =
                PlannedIds { id: self.id(key), local, affinity: self.id(&in_scope(key, Scope::Cluster)) };
            if failed.contains(&key.service) || !self.apply(key, ids, Some(desired), report) {
                failed.insert(key.service.clone());
            }
        }
        // Backwards: the frontends before the endpoints of this node that they name.
        for key in gone.iter().rev() {
            let id = self.id(key);
            let desired = remains.get(key);
            if failed.contains(&key.service)
                || !self.apply(key, PlannedIds { id, local: 0, affinity: 0 }, desired, report)
            {
                failed.insert(key.service.clone());
                continue;
            }
            if desired.is_none() {
                self.known.remove(key);
                self.taken.remove(&id);
            }
        }
    }

    /// What is left of a service's endpoints of this node when no policy asks for them any more: those that are held
    /// and still serve.
    fn remains(&self, key: &ServiceKey, cluster: &DesiredService) -> Option<DesiredService> {
        let held = self.observed.backends_of(self.id(key)).filter_map(|id| self.observed.backends.get(&id));
        let serving = |at: &(Addr, Be16)| cluster.backends.contains(at) || cluster.draining.contains(at);
        let draining: BTreeSet<_> =
            held.map(|backend| (backend.addr, backend.port)).filter(serving).collect();
        (!draining.is_empty()).then(|| DesiredService { draining, ..DesiredService::default() })
    }

    /// The id of a service that has one; 0 otherwise.
    fn id(&self, key: &ServiceKey) -> u32 {
        self.known.get(key).map_or(0, |known| known.id)
    }

    /// Claims a service's addresses; those that another one holds are taken out and reported.
    ///
    /// Between the ports of one service an address changes hands without more ado.
    fn claim(&mut self, key: &ServiceKey, desired: &mut DesiredService, report: &mut SyncReport) {
        desired.frontends.retain(|frontend, flags| match self.claims.get(frontend) {
            // Services may share an address with different ports; one of them stands for the rest of it.
            Some(holder) if holder.service != key.service && *flags == FRONTEND_ADDRESS => false,
            Some(holder) if holder.service != key.service => {
                report.errors.push(SyncError::Conflict {
                    service: key.clone(),
                    frontend: Shown(frontend).to_string(),
                    holder: holder.clone(),
                });
                self.unfinished.insert(key.service.clone());
                false
            }
            _ => true,
        });
        self.release(key);
        self.claims.extend(desired.frontends.keys().map(|frontend| (*frontend, key.clone())));
        if let Some(known) = self.known.get_mut(key) {
            known.frontends = desired.frontends.keys().copied().collect();
        }
    }

    /// Gives up a service's claims.
    fn release(&mut self, key: &ServiceKey) {
        for frontend in self.known.get(key).into_iter().flat_map(|known| &known.frontends) {
            if self.claims.get(frontend) == Some(key) {
                self.claims.remove(frontend);
            }
        }
    }

    /// Sees to it that a service has an id: the one under which the maps know it from before the start, which is
    /// the one its addresses lead to, or a new one.
    fn identify(&mut self, key: &ServiceKey, desired: &DesiredService) {
        if self.known.contains_key(key) {
            return;
        }
        let cluster = self.known.get(&in_scope(key, Scope::Cluster));
        let frontends: BTreeSet<FrontendKey> = desired.frontends.keys().copied().collect();
        let adopted = match (key.scope, cluster) {
            (Scope::Local, Some(cluster)) => {
                let held = cluster.frontends.iter().filter_map(|key| self.observed.frontends.get(key));
                held.map(|frontend| frontend.local).find(|id| *id != 0 && !self.taken.contains(id))
            }
            _ => {
                let held = frontends.iter().filter_map(|key| self.observed.frontends.get(key));
                held.map(|frontend| frontend.service).find(|id| !self.taken.contains(id))
            }
        };
        let id = adopted.unwrap_or_else(|| self.ids.service());
        self.taken.insert(id);
        self.known.insert(key.clone(), Known { id, frontends });
    }

    /// The sets of this node's endpoints that no policy asks for and that frontends from before the start still name:
    /// they are known from here on.
    fn adopt_remains(&mut self, planned: &[(ServiceKey, DesiredService)]) -> Vec<ServiceKey> {
        let mut remains = Vec::new();
        for (key, desired) in planned.iter().filter(|(key, _)| key.scope == Scope::Cluster) {
            let key = in_scope(key, Scope::Local);
            if self.known.contains_key(&key) {
                continue;
            }
            let held = desired.frontends.keys().filter_map(|frontend| self.observed.frontends.get(frontend));
            let mut ids = held.map(|frontend| frontend.local);
            if let Some(id) = ids.find(|id| *id != 0 && !self.taken.contains(id)) {
                self.taken.insert(id);
                self.known.insert(key.clone(), Known { id, frontends: BTreeSet::new() });
                remains.push(key);
            }
        }
        remains
    }

    /// Plans and applies one service; false where something failed.
    fn apply(
        &mut self,
        key: &ServiceKey,
        ids: PlannedIds,
        desired: Option<&DesiredService>,
        report: &mut SyncReport,
    ) -> bool {
        for op in plan_service(&self.observed, &mut self.ids, ids, desired) {
            if let Err(source) = self.store.apply(&op) {
                tracing::error!(service = %key, %op, %source, "the datapath refused a change");
                report.errors.push(SyncError::Store { service: key.clone(), source });
                self.unfinished.insert(key.service.clone());
                return false;
            }
            tracing::trace!(service = %key, %op, "applied");
            self.observed.apply(&op);
            report.operations += 1;
        }
        true
    }

    /// Removes what the maps hold for services that the cluster no longer has.
    fn remove_unclaimed(&mut self, report: &mut SyncReport) {
        let nobody = first_key(&ObjectName::new("", "remains"));
        let mut unclaimed: Vec<u32> = self.observed.service_ids().difference(&self.taken).copied().collect();
        // Those that have frontends go first: the frontends name the others.
        unclaimed.sort_by_key(|id| self.observed.frontends_of(*id).next().is_none());
        for id in unclaimed {
            self.apply(&nobody, PlannedIds { id, local: 0, affinity: 0 }, None, report);
        }
    }
}

/// The first key that a service can have.
fn first_key(service: &ObjectName) -> ServiceKey {
    ServiceKey {
        service: service.clone(),
        port: "".into(),
        protocol: Protocol::Tcp,
        family: IpFamily::V4,
        scope: Scope::Local,
    }
}

/// The same service's port, with other endpoints.
fn in_scope(key: &ServiceKey, scope: Scope) -> ServiceKey {
    ServiceKey { scope, ..key.clone() }
}
