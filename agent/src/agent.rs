//! A pass over the node: in the order in which nothing points at what is not there yet.
//!
//! 1. devices, addresses and settings;
//! 2. the datapath, loaded or adopted;
//! 3. what it must know: networks, the node's addresses, pods, services;
//! 4. programs, attached to devices (on a restart they are, and get their successors in place);
//! 5. routes, which send packets to them;
//! 6. DNS, which tells names of addresses that work by now;
//! 7. the plugin's description of the node, by which pods may come, and the container runtime's of the plugin.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use sluice_cni::{node::NodeConfig, store::Attachment};
use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_model::{Changes, IpFamily, Object, Snapshot};
use sluice_netlink::{MacAddress, Netlink, owned};
use tracing::{debug, error, info, warn};

use crate::{
    config::Config,
    conflist,
    failure::{Chain, Failure},
    health::{Eligibility, Health},
    health_ports::{HealthPorts, Place},
    metrics::{Metrics, PassRecord},
    names::{self, Names},
    node::{self, Facts, Found},
    notice::{About, Notice, Notices},
    routes,
    run::{Depth, Work},
    services::{Services, wanted_hooks},
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
    notices: Option<Notices>,
    crowd: Crowd,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    on_ready: Option<Box<dyn FnOnce() + Send>>,
    snapshot: Snapshot,
    attachments: Vec<Attachment>,
    node: Option<(Found, Facts)>,
    /// What is to go once the routes no longer lead there.
    remains: Vec<node::NodeOp>,
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
    node: bool,
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

    /// Steps 1 and the facts that the others need.
    fn set_up_node(&mut self, failures: &mut Vec<Failure>) -> Result<(), Failure> {
        let found = node::observe(&mut self.netlink).map_err(Failure::Observe)?;
        let facts = node::facts(&self.config, &self.snapshot, &found);
        for name in self.config.uplinks.iter().flatten().filter(|name| !facts.uplinks.contains(*name)) {
            failures.push(Failure::NoUplink(name.clone()));
        }
        let dns = match &self.names {
            Some(names) => dns_addresses(names.addresses(&self.config, &self.snapshot), &found),
            None => BTreeSet::new(),
        };
        let mac = |name: &str, gateway: &str| {
            let MacAddress(mac) = owned::bridge_mac(name, gateway);
            mac
        };
        let wanted = node::wanted(&self.config, &facts, &found, &dns, mac);
        let ops = node::plan(&wanted, &found);
        let done = ops.is_empty();
        for op in ops {
            info!(%op, "node");
            if let Err(source) = node::apply(&mut self.netlink, &op) {
                failures.push(Failure::Node { operation: op.to_string(), source });
            }
        }
        self.remains = node::remains(&wanted, &found);
        self.node = Some(if done {
            (found, facts)
        } else {
            let found = node::observe(&mut self.netlink).map_err(Failure::Observe)?;
            let facts = node::facts(&self.config, &self.snapshot, &found);
            (found, facts)
        });
        Ok(())
    }

    /// What a pod that comes or goes changes of what is on the node.
    fn refresh_devices(&mut self) -> Result<(), Failure> {
        if let Some((found, _)) = &mut self.node {
            found.devices = node::observe_devices(&mut self.netlink).map_err(Failure::Observe)?;
        }
        Ok(())
    }

    /// Steps 2 to 4.
    fn serve_services(
        &mut self,
        depth: Depth,
        dirty: &Dirty,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Failure> {
        let Some((found, facts)) = &self.node else { return Ok(()) };
        // The programs have the service device's index in them: one that was made anew needs programs anew.
        let device = found.devices.get(SERVICE_DEVICE).map_or(0, |device| device.index);
        // So does one whose pins somebody has removed.
        self.services.take_if(|services| {
            services.service_ifindex() != device || depth == Depth::Repair && !services.is_pinned()
        });
        let fresh = self.services.is_none();
        let services = match &mut self.services {
            Some(services) => services,
            None => {
                let services = Services::open(&self.config, device)?;
                for feature in &services.features().features {
                    self.metrics.set_feature(feature.name, feature.present);
                }
                self.services.insert(services)
            }
        };
        let whole = fresh || depth == Depth::Repair;
        // Nothing that fails here keeps the services from being served.
        if whole || dirty.node {
            failures.extend(services.set_facts(facts).err().map(Failure::from));
        }
        if whole || dirty.pods {
            failures.extend(services.adopt_pods(&self.config, &mut self.attachments, found).err());
        }
        let start = Instant::now();
        let errors = services.sync(&self.snapshot, &dirty.changes, whole);
        let pass = PassRecord {
            duration: start.elapsed(),
            full: whole || dirty.changes.everything,
            end: SystemTime::now(),
        };
        self.metrics.passed(pass, errors.is_empty());
        failures.extend(errors);
        if whole || dirty.node || dirty.pods {
            let wanted = wanted_hooks(&self.config, facts, &self.attachments, found);
            failures.extend(services.attach(&self.config, &wanted, &mut self.netlink, whole));
        }
        Ok(())
    }

    /// Health checks of load balancers; after the services that they speak of.
    fn answer_health_checks(&mut self, dirty: &Dirty, failures: &mut Vec<Failure>) {
        let (Some(health_ports), Some((found, facts))) = (&mut self.health_ports, &self.node) else { return };
        let held = found.addresses.iter().map(|(_, network)| network.addr());
        let place = Place::of(&self.config.node_port_addresses, &facts.addresses, held);
        let errors = health_ports.sync(&self.snapshot, &dirty.changes, &self.config.node_name, place);
        failures.extend(errors.into_iter().map(Failure::from));
    }

    /// Step 5.
    fn route(&mut self, failures: &mut Vec<Failure>) {
        let Some((found, facts)) = &self.node else { return };
        let (wanted, mut problems) = routes::desired(&self.config, &self.snapshot, facts);
        let (mut ops, others) = routes::plan(&wanted, &found.routes);
        if self.services.is_none() {
            // Without a datapath, service addresses would be sent where nobody takes them. Routes that are there
            // stay: they lead to programs that an earlier agent has left at work.
            ops.retain(|op| !op.is_to(SERVICE_DEVICE));
        }
        problems.extend(others);
        let mut problems: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
        let name = &self.config.node_name;
        match self.snapshot.nodes.get(name) {
            None => {
                problems.insert(format!("there is no Node {name}: this node has no networks for pods"));
            }
            Some(node) if node.pod_cidrs.is_empty() => {
                problems.insert(format!("Node {name} has no spec.podCIDRs yet: no pod is attached before"));
            }
            Some(_) => {}
        }
        for problem in problems.difference(&self.told) {
            warn!("{problem}");
        }
        self.told = problems;
        for op in ops {
            info!(%op, "routes");
            if let Err(source) = routes::apply(&mut self.netlink, &op) {
                failures.push(Failure::Node { operation: op.to_string(), source });
            }
        }
        for op in std::mem::take(&mut self.remains) {
            info!(%op, "node");
            if let Err(source) = node::apply(&mut self.netlink, &op) {
                failures.push(Failure::Node { operation: op.to_string(), source });
            }
        }
    }

    /// Step 7.
    fn describe_node(&mut self) -> Result<(), Failure> {
        let Some((_, facts)) = &self.node else { return Ok(()) };
        if facts.pod_cidrs.is_empty() {
            return Ok(());
        }
        let description = NodeConfig {
            pod_cidrs: facts.pod_cidrs.clone(),
            mtu: Some(facts.mtu),
            bpffs: Some(self.config.bpffs_dir.clone()),
        };
        if description.write(&self.config.state_dir)? {
            info!(networks = ?facts.pod_cidrs, "pods may be attached");
        }
        if self.services.is_some() || !self.config.proxy {
            self.tell_runtime()?;
        }
        Ok(())
    }

    /// Tells the container runtime of the plugin, and its owner who else does.
    fn tell_runtime(&mut self) -> Result<(), Failure> {
        let Some(folder) = &self.config.cni_conf_dir else { return Ok(()) };
        let others = conflist::others(folder)?;
        self.metrics.set_foreign_cni(others.len());
        for conflist::Other { path, wins } in others {
            if self.told_files.insert(path.clone()) {
                let path = path.display();
                if wins {
                    warn!("{path} goes before ours: the container runtime does not call this plugin");
                } else {
                    warn!("{path} is there beside ours; the container runtime passes over it");
                }
            }
        }
        if conflist::ensure(folder, &conflist::text(&self.config))? {
            info!(file = %folder.join(conflist::FILE).display(), "the container runtime is told");
        }
        Ok(())
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

    /// Tells failures when they come and when they are over, not each time that they are met again.
    fn tell(&mut self, failures: &[Failure]) {
        let mut texts = BTreeSet::new();
        for failure in failures {
            self.metrics.failed(failure.part());
            let text = Chain(failure).to_string();
            // The verifier has much to say, and never the same twice; its first line tells what it is about.
            let line = text.lines().next().unwrap_or_default().to_owned();
            if !self.failing.contains(&line) {
                error!(part = failure.part(), "{text}");
                if let (Some(notices), Some(notice)) = (&self.notices, failure.notice(&self.config.node_name))
                {
                    notices(notice);
                }
            }
            texts.insert(line);
        }
        for text in self.failing.difference(&texts) {
            info!("no longer: {text}");
        }
        self.failing = texts;
    }

    fn notice(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices(notice);
        }
    }

    /// How long endpoints took from their change to their effect (row 42 of the behaviour table).
    fn observe_programming(&self, changes: &Changes) {
        let now = SystemTime::now();
        let recent =
            |then: &SystemTime| now.duration_since(*then).is_ok_and(|age| age < Duration::from_secs(600));
        for slice in changes.services.iter().flat_map(|service| self.snapshot.slices_of(service)) {
            if let Some(trigger) = slice.last_change.filter(recent) {
                self.metrics.programmed(slice.family, trigger, now);
            }
        }
    }
}

/// The addresses of DNS that the service device holds: those that no other device has.
fn dns_addresses(mut addresses: BTreeSet<IpAddr>, found: &Found) -> BTreeSet<IpAddr> {
    let is_held = |ip: &IpAddr| {
        found.addresses.iter().any(|(device, address)| device != SERVICE_DEVICE && address.addr() == *ip)
    };
    addresses.retain(|ip| !ip.is_loopback() && !ip.is_unspecified() && !is_held(ip));
    addresses
}

impl Work for Agent {
    fn update(&mut self, update: Update) {
        self.metrics.set_faults(update.faults);
        let (mut endpoints, mut services) = (0, 0);
        for delta in update.deltas {
            match &delta {
                Delta::Put(Object::EndpointSlice(_))
                | Delta::Remove(sluice_model::ObjectKey::EndpointSlice(_)) => {
                    endpoints += 1;
                }
                Delta::Put(Object::Service(_)) | Delta::Remove(sluice_model::ObjectKey::Service(_)) => {
                    services += 1;
                }
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
        self.dirty.node |= !changes.nodes.is_empty()
            || !changes.service_cidrs.is_empty()
            || changes.services.contains(&self.config.dns_service);
        if !self.dirty.changes.nodes.is_empty() {
            self.judge_node();
        }
    }

    fn attachments(&mut self, attachments: Vec<Attachment>) {
        self.attachments = attachments;
        self.dirty.pods = true;
    }

    fn node_changed(&mut self) {
        self.dirty.node = true;
    }

    fn corefile(&mut self, text: String) {
        if let Some(names) = &mut self.names {
            names.set_corefile(&self.config, text);
            // It may bind other addresses.
            self.dirty.node = true;
        }
    }

    fn is_dirty(&self) -> bool {
        self.dirty.node || self.dirty.pods || !self.dirty.changes.is_empty()
    }

    fn pass(&mut self, depth: Depth) -> bool {
        let mut failures = Vec::new();
        let mut dirty = std::mem::take(&mut self.dirty);
        // DNS is held by this process alone: there is nothing to repair.
        let names_changes = dirty.changes.clone();
        // What failed is looked at again; services that failed the proxy remembers itself.
        let everything = self.node.is_none() || depth == Depth::Repair;
        dirty.changes.everything |= everything;
        dirty.node |= everything || self.unfinished;
        dirty.pods |= everything || self.unfinished;
        debug!(?depth, node = dirty.node, services = dirty.changes.services.len(), "pass");
        if dirty.node
            && let Err(failure) = self.set_up_node(&mut failures)
        {
            failures.push(failure);
        }
        if dirty.pods
            && !dirty.node
            && let Err(failure) = self.refresh_devices()
        {
            failures.push(failure);
        }
        if self.config.proxy
            && let Err(failure) = self.serve_services(depth, &dirty, &mut failures)
        {
            failures.push(failure);
        }
        if self.services.is_some() {
            self.answer_health_checks(&dirty, &mut failures);
        }
        if dirty.node {
            self.route(&mut failures);
        }
        if let Some(names) = &mut self.names {
            let found = self.node.iter().flat_map(|(found, _)| &found.addresses);
            let local = found.map(|(_, address)| address.addr()).collect();
            failures.extend(names.publish(&self.config, &self.snapshot, &names_changes, local));
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
