//! The cluster's DNS on this node: an adapter between the loop and the DNS server.
//!
//! ```text
//!  configuration, Corefile, Snapshot ──▶ desired ──▶ the server (bound, or changed while it runs)
//!  Snapshot + Changes ─────────────────────────────▶ its publisher ──▶ kept (a file, for the next start)
//!                                        doors: /health, /ready, /metrics
//! ```

mod aliases;
mod corefile;
mod desired;
mod doors;
mod kept;
mod pages;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
};

use prometheus::Registry;
use sluice_dns::{Configurator, DnsError, Inherited, Publisher, Server};
use sluice_model::{Changes, Snapshot};
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};
use tracing::{error, info, warn};

use self::{aliases::Aliases, corefile::Reloads, doors::Doors, kept::KeptZone};
pub use self::{
    aliases::aliases,
    corefile::{BadCorefile, watch as watch_corefile},
    desired::{DoorAddresses, LocalAddresses, Wanted, addresses, default_service},
    doors::{DoorError, NamesState, routes as door_routes},
};
use crate::{
    api::{Demand, Needs},
    config::Config,
    failure::{Chain, Failure},
    http::DnsMetrics,
    socket_store::SocketStore,
};

/// What is kept in the state folder for the next start.
pub const FILES: [&str; 2] = [kept::FILE, corefile::KEPT];

/// The server, once it has addresses to serve at.
pub struct Names {
    runtime: Handle,
    metrics: DnsMetrics,
    state: NamesState,
    doors: Doors,
    kept: KeptZone,
    /// Who may keep the sockets between two agents.
    store: SocketStore,
    /// The Corefile in force, and the addresses that it binds.
    corefile: Option<(String, BTreeSet<IpAddr>)>,
    /// Corefiles that were taken and refused.
    reloads: Reloads,
    /// What the server should be like, as it was made out last, and of which addresses of the node.
    wanted: Option<(Wanted, LocalAddresses)>,
    running: Option<Running>,
    /// Names that pods of this node have by the runtime's wish.
    aliases: Aliases,
    /// Where to say what must be known of pods and services, if that is a question.
    demand: Option<Demand>,
    /// The lack of an address was told.
    told: bool,
}

struct Running {
    /// What is in force.
    wanted: Wanted,
    configurator: Configurator,
    publisher: Publisher,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Names {
    /// No server yet. Its metrics will stand in `metrics`. Fails where a Corefile is configured that cannot be used,
    /// and none is kept that could.
    pub fn new(
        config: &Config,
        runtime: Handle,
        metrics: DnsMetrics,
        store: SocketStore,
    ) -> Result<Self, BadCorefile> {
        let mut names = Self {
            doors: Doors::new(runtime.clone()),
            runtime,
            metrics,
            state: NamesState::default(),
            kept: KeptZone::new(&config.state_dir),
            store,
            corefile: None,
            reloads: Reloads::default(),
            wanted: None,
            running: None,
            aliases: Aliases::new(),
            demand: None,
            told: false,
        };
        if let Some(path) = &config.corefile {
            let taken = match corefile::read(path).and_then(|text| check(config, text)) {
                Ok(taken) => taken,
                Err(error) => {
                    let kept = corefile::kept(&config.state_dir).map(|kept| check(config, kept));
                    let Some(Ok(kept)) = kept else { return Err(error) };
                    error!(error = %Chain(&error), "the Corefile is refused; the last good one stays in force");
                    kept
                }
            };
            corefile::keep(&config.state_dir, &taken.0);
            names.reloads.taken(&taken.0);
            names.corefile = Some(taken);
        }
        Ok(names)
    }

    /// What others may ask of the server.
    pub fn state(&self) -> NamesState {
        self.state.clone()
    }

    /// The Corefile in force.
    pub fn corefile(&self) -> Option<&str> {
        self.corefile.as_ref().map(|(text, _)| text.as_str())
    }

    /// What must be known of pods and services, as far as it can be told before the cluster is known.
    pub fn needs(&self, config: &Config) -> Needs {
        let wanted = desired::wanted(config, self.corefile(), &Snapshot::default(), &BTreeSet::new());
        // A Corefile was checked when it was read.
        wanted.map_or(Needs::NONE, |wanted| desired::needs(&wanted.dns))
    }

    /// Says from now on what must be known of pods and services.
    pub fn set_demand(&mut self, demand: Demand) {
        self.demand = Some(demand);
    }

    /// Whether a server answers.
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// The addresses at which this node serves DNS: those of the cluster's DNS, and those that a Corefile binds.
    pub fn addresses(&self, config: &Config, snapshot: &Snapshot) -> BTreeSet<IpAddr> {
        let bound = self.corefile.iter().flat_map(|(_, bound)| bound.iter().copied());
        desired::addresses(config, snapshot).into_iter().chain(bound).collect()
    }

    /// What does not go well, though the server does what it is told.
    pub fn troubles(&self) -> Vec<String> {
        let running = self.running.iter();
        let looping = running.flat_map(|running| running.configurator.looping_upstreams());
        looping
            .map(|upstream| {
                format!("DNS: questions to the upstream {upstream} come back: a loop; name others")
            })
            .collect()
    }

    /// Starts to serve what an earlier agent knew, until the cluster is known.
    pub fn restore(&mut self, config: &Config) {
        let Some(saved) = self.kept.read() else { return };
        let mut config = config.clone();
        config.cluster_dns.extend(saved.addresses());
        let wanted = desired::wanted(&config, self.corefile(), &Snapshot::default(), &BTreeSet::new());
        // Checked when it was read.
        let Ok(mut wanted) = wanted else { return };
        if wanted.dns.listen.is_empty() {
            return;
        }
        wanted.dns.allow_from = saved.clients().to_vec();
        match self.start(wanted, |publisher| publisher.restore(&saved)) {
            Ok(running) => {
                self.running = Some(running);
                info!("names are answered as they were known last");
            }
            Err(error) => warn!(error = %Chain(&error), "the zone of before is not served"),
        }
    }

    /// Takes in another Corefile, for the next [`Self::publish`]; one that cannot be used is refused.
    pub fn set_corefile(&mut self, config: &Config, text: String) {
        match check(config, text) {
            Ok(taken) => {
                info!("the Corefile has changed");
                corefile::keep(&config.state_dir, &taken.0);
                self.reloads.taken(&taken.0);
                self.corefile = Some(taken);
                self.wanted = None;
            }
            Err(error) => {
                self.reloads.refused();
                error!(error = %Chain(&error), "the Corefile is refused; the one before stays in force");
            }
        }
    }

    /// Says which names pods of this node have beside those of the cluster.
    pub fn set_aliases(&mut self, aliases: Aliases) {
        self.aliases = aliases;
        if let Some(running) = &self.running {
            running.publisher.set_aliases(&self.aliases);
        }
    }

    /// Where pages of the server are reached that the datapath leads to it, and where it listens for that.
    pub fn pages(&self) -> BTreeMap<SocketAddr, SocketAddr> {
        self.wanted.as_ref().map(|(wanted, _)| wanted.pages.clone()).unwrap_or_default()
    }

    /// Makes out what the server should be like, before [`Self::publish`]. `local`: the node's addresses.
    pub fn prepare(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        changes: &Changes,
        local: LocalAddresses,
    ) {
        let may_differ = changes.everything
            || !changes.nodes.is_empty()
            || !changes.service_cidrs.is_empty()
            || changes.services.contains(&config.dns_service)
            || self.wanted.as_ref().is_none_or(|(_, before)| *before != local);
        if may_differ {
            match desired::wanted(config, self.corefile(), snapshot, &local) {
                Ok(wanted) => self.wanted = Some((wanted, local)),
                // Checked when it was read; what it says of zones and networks depends on nothing else.
                Err(error) => error!(%error, "the Corefile cannot be read any more"),
            }
        }
    }

    /// Makes the server serve as it should, and gives it the snapshot.
    pub fn publish(&mut self, config: &Config, snapshot: &Snapshot, changes: &Changes) -> Vec<Failure> {
        let mut failures = Vec::new();
        let Some((wanted, _)) = self.wanted.clone() else { return failures };
        if let Some(demand) = &self.demand {
            demand.set(&desired::needs(&wanted.dns));
        }
        self.state.set_lameduck(wanted.lameduck);
        let doors = self.doors.set(wanted.doors, &self.state, &self.metrics);
        failures.extend(doors.into_iter().map(Failure::Door));
        failures.extend(self.serve(config, wanted, snapshot, changes).err().map(Failure::Dns));
        self.keep_sockets(config, snapshot);
        if let Some(Running { publisher, wanted, .. }) = &self.running {
            self.kept.keep(&self.runtime, publisher, &wanted.dns.allow_from);
        }
        failures
    }

    fn serve(
        &mut self,
        config: &Config,
        wanted: Wanted,
        snapshot: &Snapshot,
        changes: &Changes,
    ) -> Result<(), DnsError> {
        if wanted.dns.listen.is_empty() {
            if !self.told {
                warn!(
                    service = %config.dns_service,
                    "no address to serve DNS at: set clusterDNS, or give the service a clusterIP"
                );
            }
            self.told = true;
            self.stop();
            return Ok(());
        }
        self.told = false;
        if let Some(running) = self.running.as_mut().filter(|running| !running.task.is_finished()) {
            let mut applied = Ok(());
            if running.wanted != wanted {
                applied = running.configurator.apply(&wanted.dns, snapshot);
                if applied.is_ok() {
                    info!(addresses = ?wanted.dns.listen, "DNS has another configuration");
                    running.wanted = wanted;
                }
            }
            // The old configuration goes on where the new one cannot be had.
            running.publisher.publish(snapshot, changes);
            return applied;
        }
        self.stop();
        let running = self.start(wanted, |publisher| publisher.publish(snapshot, &Changes::everything()))?;
        self.running = Some(running);
        Ok(())
    }

    /// Leaves the sockets with the service manager, unless the cluster has other servers: while ours is dead, those answer
    /// at once what would wait in its sockets.
    fn keep_sockets(&mut self, config: &Config, snapshot: &Snapshot) {
        if !self.store.is_there() {
            return;
        }
        let has_others = snapshot
            .slices_of(&config.dns_service)
            .any(|slice| slice.endpoints.iter().any(|endpoint| endpoint.ready));
        let running = self.running.as_ref().filter(|_| !has_others);
        let sockets = running.map(|running| running.configurator.sockets()).unwrap_or_default();
        if let Some(running) = &self.running {
            running.configurator.set_kept(!has_others);
        }
        self.store.keep(&sockets);
    }

    /// Starts a server; what is `known` is told it before it answers its first query.
    fn start(&mut self, wanted: Wanted, known: impl FnOnce(&Publisher)) -> Result<Running, DnsError> {
        let _inside = self.runtime.enter();
        let server = match self.store.is_there() {
            true => Server::inherit(wanted.dns.clone(), Inherited::new(self.store.take()))?,
            false => Server::bind(wanted.dns.clone())?,
        };
        let registry = Registry::new();
        let registered = server.register_metrics(&registry).and_then(|()| self.reloads.register(&registry));
        match registered {
            Ok(()) => {
                *self.metrics.write().unwrap_or_else(PoisonError::into_inner) = Some(registry);
            }
            Err(error) => error!(%error, "the DNS server's metrics are not served"),
        }
        let (configurator, publisher) = (server.configurator(), server.publisher());
        publisher.set_aliases(&self.aliases);
        known(&publisher);
        self.state.set_publisher(Some(publisher.clone()));
        let (stop, stopped) = oneshot::channel();
        let task = self.runtime.spawn(async move {
            let shutdown = async {
                // An error means that the sender is gone, and with it everybody who could want an answer.
                let _ = stopped.await;
            };
            if let Err(error) = server.run(shutdown).await {
                error!(error = %Chain(&error), "the DNS server has stopped");
            }
        });
        info!(addresses = ?wanted.dns.listen, "serving DNS");
        Ok(Running { wanted, configurator, publisher, stop, task })
    }

    /// Serves nothing over HTTP any more: a successor does.
    pub fn close_doors(&mut self) {
        self.doors.close();
    }

    /// Ends the server where a successor serves beside it: its sockets are of no use any more.
    pub fn yield_to_successor(&mut self) {
        if let Some(running) = &self.running {
            running.configurator.set_kept(false);
        }
        self.store.keep(&[]);
        self.stop();
    }

    /// Ends the server, after it has answered what has arrived.
    pub fn stop(&mut self) {
        let Some(Running { wanted, publisher, stop, task, .. }) = self.running.take() else { return };
        self.state.set_publisher(None);
        // An error means that the server has ended by itself.
        let _ = stop.send(());
        if let Err(error) = self.runtime.block_on(task) {
            error!(%error, "the DNS server did not end well");
        }
        self.kept.finish(&self.runtime, &publisher, &wanted.dns.allow_from);
    }
}

/// The Corefile, if it can be used, and the addresses that it binds.
fn check(config: &Config, text: String) -> Result<(String, BTreeSet<IpAddr>), BadCorefile> {
    let path = || config.corefile.clone().unwrap_or_default();
    let wanted = desired::wanted(config, Some(&text), &Snapshot::default(), &BTreeSet::new())
        .map_err(|source| BadCorefile::Parse { path: path(), source })?;
    wanted.dns.check().map_err(|source| BadCorefile::Config { path: path(), source })?;
    Ok((text, wanted.dns.listen.iter().map(SocketAddr::ip).collect()))
}
