//! Keeps the services' maps as the cluster wants them.

use std::collections::{BTreeMap, BTreeSet};

use sluice_ebpf_common::FrontendKey;
use sluice_model::{Changes, ObjectName, Snapshot};

use crate::{
    DesiredService, MapStore, NodeView, Observed, ServiceKey, StoreError, desired_services,
    observed::Shown,
    plan::{Ids, plan_service},
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
}

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
        })
    }

    /// Brings the maps in line with the snapshot, where it changed. The first call takes the snapshot as
    /// complete, whatever `changes` says: services that the maps hold and it does not are removed.
    pub fn sync(&mut self, snapshot: &Snapshot, changes: &Changes) -> SyncReport {
        let mut report = SyncReport::default();
        if self.adopting || changes.everything {
            let gone = self.known.keys().map(|key| key.service.clone()).collect::<BTreeSet<_>>();
            let all = snapshot.services.keys().cloned().chain(gone).collect();
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

    /// Reads the maps back, so that what others changed there is seen, and brings everything in line.
    pub fn repair(&mut self, snapshot: &Snapshot) -> SyncReport {
        match self.store.dump() {
            Ok(observed) => {
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

    /// Whether a pass left something undone, so that another is wanted without a change.
    pub fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    fn sync_services(&mut self, snapshot: &Snapshot, names: &BTreeSet<ObjectName>, report: &mut SyncReport) {
        let wanted: BTreeMap<ServiceKey, DesiredService> =
            names.iter().flat_map(|name| desired_services(snapshot, name, &self.node)).collect();
        let first = |name: &ObjectName| {
            let name = name.clone();
            ServiceKey {
                service: name,
                port: "".into(),
                protocol: sluice_model::Protocol::Tcp,
                family: sluice_model::IpFamily::V4,
            }
        };
        let gone: Vec<ServiceKey> = names
            .iter()
            .flat_map(|name| {
                self.known
                    .range(first(name)..)
                    .map(|(key, _)| key)
                    .take_while(move |key| key.service == *name)
            })
            .filter(|key| !wanted.contains_key(key))
            .cloned()
            .collect();
        for key in &gone {
            self.release(key);
        }
        // An address that moves to another service is taken over before its old service goes.
        for (key, desired) in wanted {
            self.put(&key, desired, report);
        }
        for key in gone {
            if let Some(id) = self.known.get(&key).map(|known| known.id)
                && self.apply(&key, id, None, report)
            {
                self.known.remove(&key);
                self.taken.remove(&id);
            }
        }
    }

    fn put(&mut self, key: &ServiceKey, mut desired: DesiredService, report: &mut SyncReport) {
        desired.frontends.retain(|frontend, _| match self.claims.get(frontend) {
            Some(holder) if holder != key => {
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
        let id = match self.known.get(key) {
            Some(known) => known.id,
            None => self.adopt(&desired).unwrap_or_else(|| self.ids.service()),
        };
        self.taken.insert(id);
        self.known.insert(key.clone(), Known { id, frontends: desired.frontends.keys().copied().collect() });
        self.apply(key, id, Some(&desired), report);
    }

    /// Gives up a service's claims.
    fn release(&mut self, key: &ServiceKey) {
        for frontend in self.known.get(key).into_iter().flat_map(|known| &known.frontends) {
            if self.claims.get(frontend) == Some(key) {
                self.claims.remove(frontend);
            }
        }
    }

    /// The id under which the maps know a service from before the start: the one its addresses lead to.
    fn adopt(&self, desired: &DesiredService) -> Option<u32> {
        let held = desired.frontends.keys().filter_map(|key| self.observed.frontends.get(key));
        held.map(|frontend| frontend.service).find(|id| !self.taken.contains(id))
    }

    /// Plans and applies one service; false where something failed.
    fn apply(
        &mut self,
        key: &ServiceKey,
        id: u32,
        desired: Option<&DesiredService>,
        report: &mut SyncReport,
    ) -> bool {
        for op in plan_service(&self.observed, &mut self.ids, id, desired) {
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
        let nobody = ServiceKey {
            service: ObjectName::new("", "remains"),
            port: "".into(),
            protocol: sluice_model::Protocol::Tcp,
            family: sluice_model::IpFamily::V4,
        };
        for id in self.observed.service_ids().difference(&self.taken.clone()) {
            self.apply(&nobody, *id, None, report);
        }
    }
}
