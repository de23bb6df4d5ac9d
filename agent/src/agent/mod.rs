//! A pass over the node: in the order in which nothing points at what is not there yet.
//!
//! 1. devices, addresses and settings;
//! 2. the datapath, loaded or adopted;
//! 3. what it must know: networks, the node's addresses, pods, services;
//! 4. programs, attached to devices (on a restart they are, and get their successors in place);
//! 5. routes, which send packets to them;
//! 6. DNS, which tells names of addresses that work by now;
//! 7. the plugin's description of the node, by which pods may come, and the container runtime's of the plugin.

mod node;
mod services;
mod tell;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use sluice_cni::store::Attachment;
use sluice_model::{Changes, IpFamily, Node, Object, Snapshot};
use sluice_netlink::Netlink;
use tracing::{debug, error, warn};

use crate::{
    config::{Config, PodNetwork},
    failure::Failure,
    foreign,
    health::{Eligibility, Health},
    health_ports::HealthPorts,
    links::News,
    metrics::Metrics,
    names::{self, Names},
    node::{Facts, Found, NodeOp},
    node_ports::{NodePorts, Taken},
    notice::{About, Notice, Notices},
    run::{Depth, Work},
    services::Services,
    source::{Delta, Update},
    sweep::{self, Crowd},
};

/// Everything that a pass works with.
pub struct Agent {
    config: Config,
    netlink: Netlink,
    services: Option<Services>,
    names: Option<Names>,
    health_ports: Option<HealthPorts>,
    node_ports: NodePorts,
    /// Node ports that others have, as they were told.
    taken_ports: BTreeSet<Taken>,
    notices: Option<Notices>,
    crowd: Crowd,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    on_ready: Option<Box<dyn FnOnce() + Send>>,
    snapshot: Snapshot,
    attachments: Vec<Attachment>,
    node: Option<(Found, Facts)>,
    /// What is to go once the routes no longer lead there.
    remains: Vec<NodeOp>,
    dirty: Dirty,
    /// Something failed that is to be tried again.
    unfinished: bool,
    /// Problems that were told, so that they are told once.
    told: BTreeSet<String>,
    /// Network configurations of others that were told.
    told_files: BTreeSet<PathBuf>,
    /// What failed in the last pass.
    failing: BTreeSet<String>,
}

/// What the next pass must look at.
#[derive(Default)]
struct Dirty {
    changes: Changes,
    /// What the node should be.
    node: bool,
    /// What the node is.
    look: bool,
    pods: bool,
    /// The oldest notice among the changes.
    seen: Option<Instant>,
}

impl Agent {
    /// Nothing is known yet. `on_ready` is called once, when the node serves.
    pub fn new(
        config: Config,
        netlink: Netlink,
        names: Option<Names>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        on_ready: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self {
            node_ports: NodePorts::new(config.guard_node_ports),
            taken_ports: BTreeSet::new(),
            config,
            netlink,
            services: None,
            names,
            health_ports: None,
            notices: None,
            crowd: Crowd::default(),
            metrics,
            health,
            on_ready: Some(Box::new(on_ready)),
            snapshot: Snapshot::default(),
            attachments: Vec::new(),
            node: None,
            remains: Vec::new(),
            dirty: Dirty::default(),
            unfinished: false,
            told: BTreeSet::new(),
            told_files: BTreeSet::new(),
            failing: BTreeSet::new(),
        }
    }

    /// Answers the health checks of services as well.
    pub fn with_health_ports(self, health_ports: HealthPorts) -> Self {
        Self { health_ports: Some(health_ports), ..self }
    }

    /// Tells services' owners what they should know.
    pub fn with_notices(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Ends the agent. All stays as it is: the datapath goes on without, and DNS, given back here, until it is ended.
    pub fn stop(self) -> Option<Names> {
        self.names
    }

    fn add_default_service(&mut self) {
        if self.snapshot.services.contains_key(&self.config.dns_service) {
            return;
        }
        if let Some(service) = names::default_service(&self.config) {
            self.snapshot.apply(Object::Service(service), &mut self.dirty.changes);
        }
    }

    /// Whether it matters to this node's devices and routes what a Node has become: of other nodes only the way there does.
    fn concerns_routes(&self, node: &Node) -> bool {
        let before = self.snapshot.nodes.get(&node.name);
        let same = |before: &Node| before.addresses == node.addresses && before.pod_cidrs == node.pod_cidrs;
        node.name == self.config.node_name || !before.is_some_and(|before| same(before))
    }

    fn judge_node(&mut self) {
        let leaving = match self.snapshot.nodes.get(&self.config.node_name) {
            Some(node) => node.draining,
            // Deleted. A node that never was there is one that nobody describes, which is fine in a folder.
            None => self.dirty.changes.nodes.contains(&self.config.node_name),
        };
        self.health.set_node(if leaving { Eligibility::Leaving } else { Eligibility::Eligible });
    }

    fn finish(&mut self, dirty: &Dirty, failures: &[Failure]) {
        self.tell(failures);
        let serves = (!self.config.proxy || self.services.is_some())
            && self.names.as_ref().is_none_or(|names| {
                names.is_running() || names.addresses(&self.config, &self.snapshot).is_empty()
            });
        if serves {
            let done = |family: &IpFamily| !failures.iter().any(|failure| failure.keeps_back(*family));
            for family in IpFamily::ALL.into_iter().filter(done) {
                self.health.updated(family, Timestamp::now());
            }
            if let Some(seen) = dirty.seen {
                self.metrics.changed(seen.elapsed());
            }
            self.observe_programming(&dirty.changes);
        }
        if serves && let Some(on_ready) = self.on_ready.take() {
            self.health.set_ready();
            self.metrics.set_ready();
            on_ready();
        }
    }
}

impl Work for Agent {
    fn update(&mut self, update: Update) {
        self.metrics.set_faults(update.faults);
        let (mut endpoints, mut services) = (0, 0);
        let foreign = self.config.pod_network == PodNetwork::Foreign;
        for delta in update.deltas {
            match &delta {
                Delta::Put(Object::EndpointSlice(slice)) => {
                    endpoints += 1;
                    self.dirty.node |= foreign && foreign::is_outside(slice);
                }
                Delta::Remove(sluice_model::ObjectKey::EndpointSlice(_)) => {
                    endpoints += 1;
                }
                Delta::Put(Object::Service(_)) | Delta::Remove(sluice_model::ObjectKey::Service(_)) => {
                    services += 1;
                }
                Delta::Put(Object::Node(node)) => self.dirty.node |= self.concerns_routes(node),
                Delta::Remove(sluice_model::ObjectKey::Node(_)) => self.dirty.node = true,
                _ => {}
            }
            match delta {
                Delta::Put(object) => self.snapshot.apply(object, &mut self.dirty.changes),
                Delta::Remove(key) => self.snapshot.remove(&key, &mut self.dirty.changes),
            }
        }
        self.metrics.queued(endpoints, services, SystemTime::now());
        self.add_default_service();
        // Much of what the API tells (a node's conditions, say) changes nothing here: then there is no pass to wait for.
        if !self.dirty.changes.is_empty() {
            self.health.queued(update.seen);
            self.dirty.seen.get_or_insert(update.seen);
        }
        let changes = &self.dirty.changes;
        self.dirty.node |=
            !changes.service_cidrs.is_empty() || changes.services.contains(&self.config.dns_service);
        if !self.dirty.changes.nodes.is_empty() {
            self.judge_node();
        }
    }

    fn attachments(&mut self, attachments: Vec<Attachment>) {
        self.attachments = attachments;
        self.dirty.pods = true;
    }

    fn node_changed(&mut self, news: &News) {
        if let (News::RouteGone(destination), Some((found, _))) = (news, &self.node) {
            // What we have removed ourselves is no longer among what is known.
            if !found.routes.iter().any(|route| route.ours && route.destination == *destination) {
                return;
            }
        }
        self.dirty.look = true;
    }

    fn corefile(&mut self, text: String) {
        if let Some(names) = &mut self.names {
            names.set_corefile(&self.config, text);
            // It may bind other addresses.
            self.dirty.node = true;
        }
    }

    fn is_dirty(&self) -> bool {
        let dirty = &self.dirty;
        dirty.node || dirty.look || dirty.pods || !dirty.changes.is_empty()
    }

    fn pass(&mut self, depth: Depth) -> bool {
        let mut failures = Vec::new();
        let mut dirty = std::mem::take(&mut self.dirty);
        // DNS is held by this process alone, and services are compared with what their maps hold.
        let changes = dirty.changes.clone();
        // What failed is looked at again; services that failed the proxy remembers itself.
        let everything = self.node.is_none() || depth == Depth::Repair;
        dirty.changes.everything |= everything;
        let must_look = everything || self.unfinished;
        if dirty.look && !must_look && self.is_as_left() {
            debug!("no news of the node");
            dirty.look = false;
        }
        dirty.look |= must_look;
        dirty.node |= dirty.look;
        dirty.pods |= everything || self.unfinished;
        debug!(?depth, node = dirty.node, services = dirty.changes.services.len(), "pass");
        if dirty.node
            && let Err(failure) = self.set_up_node(dirty.look, &mut failures)
        {
            failures.push(failure);
        }
        if dirty.pods
            && !dirty.node
            && let Err(failure) = self.refresh_devices()
        {
            failures.push(failure);
        }
        if let Some(names) = &mut self.names {
            let found = self.node.iter().flat_map(|(found, _)| &found.addresses);
            let local = found.map(|(device, address)| (device.clone(), address.addr())).collect();
            names.prepare(&self.config, &self.snapshot, &changes, local);
        }
        if self.config.proxy
            && let Err(failure) = self.serve_services(depth, &dirty, &changes, &mut failures)
        {
            failures.push(failure);
        }
        if self.services.is_some() {
            self.answer_health_checks(&dirty, &mut failures);
            self.mind_node_ports(&dirty, everything, &mut failures);
        }
        if dirty.node {
            self.route(&mut failures);
        }
        if let Some(names) = &mut self.names {
            if dirty.pods {
                names.set_aliases(names::aliases(&self.attachments));
            }
            failures.extend(names.publish(&self.config, &self.snapshot, &changes));
        }
        if dirty.node
            && let Err(failure) = self.describe_node()
        {
            failures.push(failure);
        }
        self.finish(&dirty, &failures);
        self.unfinished =
            failures.iter().any(|failure| failure.part() != "services" && failure.part() != "health");
        failures.is_empty()
    }

    fn sweep(&mut self) -> Duration {
        let Some(services) = &mut self.services else { return sweep::PAUSE };
        let start = Instant::now();
        match services.sweep() {
            Ok(None) => sweep::rest(start.elapsed()),
            Ok(Some(census)) => {
                self.metrics.collected(&census);
                let capacity = services.flow_capacity().unwrap_or(0);
                if let Some(text) = self.crowd.judge(census.entries, capacity) {
                    warn!("{text}");
                    self.notice(Notice {
                        about: About::Node,
                        reason: "ConnectionTableFull",
                        action: "Collect",
                        note: text,
                    });
                }
                sweep::PAUSE.max(census.work * 10)
            }
            Err(error) => {
                error!(%error, "cannot look for connections that are over");
                sweep::PAUSE
            }
        }
    }

    fn count(&mut self) {
        if let Some(Err(error)) = self.services.as_ref().map(|services| services.count(&self.metrics)) {
            error!(%error, "cannot read the datapath's counters");
        }
    }
}
