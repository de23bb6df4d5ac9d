//! Starting and ending the agent.
//!
//! ```text
//! records ──┐                     ┌─ maps, devices, routes
//! folder  ──┼─ events ─▶ the loop ┼─ names ─▶ DNS server ┐
//! links   ──┘   (thread)          └─ health, metrics ────┼─ tokio
//!                                        HTTP server ────┘
//! ```
//!
//! The end takes nothing away: programs, maps, devices and routes stay, and the node goes on without an agent. DNS goes on
//! for a while, so that a successor can take over ([`handover`]).

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use sluice_netlink::Netlink;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};
use tracing::{debug, error, info, warn};

use crate::{
    agent::Agent,
    api::{Access, AccessError, ApiSource, Needs, Shared, Timing, Wanted},
    capabilities,
    config::{Config, PodNetwork, Source},
    ending::{Signals, another_text},
    folder::{FolderError, FolderSource, Input, PodAddresses},
    foreign,
    handover::{self, Predecessor, Waiting},
    health::Health,
    health_ports::HealthPorts,
    http::{self, DnsMetrics, ListenError, Site},
    links,
    lock::{AgentLock, LockError},
    manager,
    metrics::Metrics,
    names::{BadCorefile, Names, NamesState, watch_corefile},
    nf_conntrack,
    notice::Notices,
    records::{self, RecordsError, pod_addresses},
    run::{self, Event},
    socket_store::SocketStore,
};

/// Why the agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The asynchronous runtime, a thread, or the signals.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The metrics.
    #[error("cannot make the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The folder of manifests.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The way to the API.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The plugin's records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The Corefile.
    #[error(transparent)]
    Corefile(#[from] BadCorefile),
    /// An HTTP address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Another agent, as it seems.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] sluice_netlink::Error),
    /// Something else stands in the file now that was followed.
    #[error("{0} has changed; a supervisor should start the agent again, with what it says now")]
    Changed(PathBuf),
    /// The loop.
    #[error("the loop has stopped; a supervisor should start the agent again")]
    LoopStopped,
}

/// Runs the agent until it is told to end.
pub fn run(config: Config, source: Source) -> Result<(), StartError> {
    info!(version = env!("CARGO_PKG_VERSION"), node = %config.node_name, "sluice agent");
    if let Some(folder) = &config.sysctl_dir {
        sluice_netlink::sysctl::look_below(folder);
    }
    if config.proxy {
        nf_conntrack::apply(&config.nf_conntrack);
    }
    if config.pod_network == PodNetwork::Foreign {
        warn!(
            "pods are attached by another plugin: services are served to those on veth pairs; packets that are translated \
             on their way go past this node's netfilter rules, and so past network policies that are made of them"
        );
    }
    if let Some(score) = config.oom_score_adj
        && let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        debug!(%error, "oomScoreAdj has no effect");
    }
    if config.proxy && config.fast_path && config.cgroup_root.is_none() {
        warn!("no cgroup2 is mounted and cgroupRoot is not set: services are served without the fast path");
    }
    for capability in capabilities::missing(&config) {
        error!("this process lacks {capability}");
    }
    if let Err(error) = capabilities::raise_open_files() {
        warn!(%error, "cannot raise the number of files that may be open");
    }
    let store = SocketStore::of_process();
    let (lock, predecessor) = handover::take_lock(&config.state_dir, config.handover_wait)?;
    let _counting = config
        .program_stats
        .then(|| sluice_proxy::count_runs().inspect_err(|error| warn!(%error, "programStats has no effect")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let metrics = Arc::new(Metrics::new()?);
    let health = Arc::new(Health::new(config.resync_period));
    let dns_metrics = DnsMetrics::default();
    let (events, inbox) = mpsc::channel();
    let (state_dir, corefile) = (config.state_dir.clone(), config.corefile.clone());

    let mut names = match config.dns {
        true => Some(Names::new(&config, runtime.handle().clone(), dns_metrics.clone(), store)?),
        false => None,
    };
    let state = names.as_ref().map(Names::state);
    let http = serve_http(&runtime, &config, &health, &metrics, (dns_metrics, state), &events)?;
    // One that hands over answers until we do, and knows more.
    if let Some(names) = names.as_mut().filter(|_| predecessor.is_none()) {
        names.restore(&config);
    }
    let notices = start_sources(&config, source, names.as_mut(), &metrics, &health, &events)?;
    if let Some((path, names)) = corefile.zip(names.as_ref()) {
        let texts = events.clone();
        let known = names.corefile().map(str::to_owned);
        watch_corefile(path, known, move |text| texts.send(Event::Corefile(text)).is_ok())?;
    }
    let dns = names.as_ref().map(Names::state);
    let ready = move || {
        info!("ready");
        manager::ready();
        predecessor.map(Predecessor::relieve).unwrap_or_default();
    };
    let health_ports = config.proxy.then(|| HealthPorts::new(runtime.handle().clone(), health.clone()));
    let period = config.resync_period;
    let followed = config.followed.clone();
    let mut agent = Agent::new(config, Netlink::open()?, names, metrics, health, ready);
    if let Some(health_ports) = health_ports {
        agent = agent.with_health_ports(health_ports);
    }
    if let Some(notices) = notices {
        agent = agent.with_notices(notices);
    }
    manager::waiting();
    let ended = start_loop(agent, period, inbox)?;
    let node = Node { lock, http, events, ended, followed };
    let result = node.run(&runtime, dns, &state_dir);
    info!("ended; the datapath goes on");
    result
}

/// What an agent has of a node, apart from DNS.
struct Node {
    lock: AgentLock,
    http: Vec<JoinHandle<()>>,
    events: mpsc::Sender<Event>,
    ended: Ended,
    /// A file that should stay what it is, and what stands in it.
    followed: Option<(PathBuf, String)>,
}

/// Hears when the loop has ended, and gets DNS back. An error: not in order.
type Ended = oneshot::Receiver<Option<Names>>;

impl Node {
    /// Waits for the signal to end, and ends.
    fn run(mut self, runtime: &Runtime, dns: Option<NamesState>, state_dir: &Path) -> Result<(), StartError> {
        let mut signals = {
            let _inside = runtime.enter();
            Signals::new()?
        };
        runtime.block_on(async {
            tokio::select! {
                () = signals.next() => Ok(()),
                path = another_text(self.followed.take()) => Err(StartError::Changed(path)),
                ended = &mut self.ended => {
                    error!(orderly = ended.is_ok(), "the loop has stopped");
                    Err(StartError::LoopStopped)
                }
            }
        })?;
        info!("ending");
        manager::stopping();
        let lameduck = dns.map_or(Duration::ZERO, |dns| {
            dns.leave();
            dns.lameduck()
        });
        if lameduck.is_zero() {
            self.release(runtime)?.iter_mut().for_each(Names::stop);
            return Ok(());
        }
        let deadline = Instant::now() + lameduck;
        let waiting = {
            let _inside = runtime.enter();
            Waiting::new(state_dir)
        };
        if let Err(error) = &waiting {
            warn!(%error, "no successor can take over before the end");
        }
        let mut node = Some(self);
        let mut names = None;
        loop {
            let successor = runtime.block_on(async {
                let successor = async {
                    match &waiting {
                        Ok(waiting) => waiting.successor().await.ok(),
                        Err(_) => std::future::pending().await,
                    }
                };
                tokio::select! {
                    successor = successor => successor,
                    () = tokio::time::sleep_until(deadline.into()) => None,
                    () = signals.next() => None,
                }
            });
            if let Some(node) = node.take() {
                names = node.release(runtime)?;
            }
            let Some(successor) = successor else {
                names.iter_mut().for_each(Names::stop);
                return Ok(());
            };
            // One that has died may be followed by another.
            if runtime.block_on(successor.serves()) {
                names.iter_mut().for_each(Names::yield_to_successor);
                return Ok(());
            }
        }
    }

    /// Ends everything but DNS, so that another agent can begin.
    fn release(self, runtime: &Runtime) -> Result<Option<Names>, StartError> {
        // The loop may have ended in this very moment.
        let _ = self.events.send(Event::Stop);
        let mut names = runtime.block_on(self.ended).map_err(|_| StartError::LoopStopped)?;
        names.iter_mut().for_each(Names::close_doors);
        for task in self.http {
            task.abort();
            // Told to end, it has.
            let _ = runtime.block_on(task);
        }
        drop(self.lock);
        Ok(names)
    }
}

fn serve_http(
    runtime: &Runtime,
    config: &Config,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    (dns, names): (DnsMetrics, Option<NamesState>),
    events: &mpsc::Sender<Event>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let events = events.clone();
    let refresh = move || {
        let (sender, receiver) = oneshot::channel();
        // A loop that has ended drops the sender, and the receiver sees that.
        let _ = events.send(Event::Count(sender));
        receiver
    };
    let site = Site {
        health: health.clone(),
        metrics: metrics.clone(),
        dns,
        names,
        settings: Arc::new(config.set.clone()),
        started: jiff::Timestamp::now(),
        refresh: Arc::new(refresh),
    };
    let mut tasks = Vec::new();
    if let Some(address) = config.healthz_address {
        let listener = runtime.block_on(http::listen("/healthz", address))?;
        tasks.push(runtime.spawn(http::serve(listener, http::health_routes(site.clone()))));
    }
    if let Some(address) = config.metrics_address {
        let listener = runtime.block_on(http::listen("/metrics", address))?;
        tasks.push(runtime.spawn(http::serve(listener, http::metrics_routes(site))));
    }
    Ok(tasks)
}

/// Starts everything that tells the loop what happens; gives where the loop may leave notices, if anywhere.
fn start_sources(
    config: &Config,
    source: Source,
    names: Option<&mut Names>,
    metrics: &Metrics,
    health: &Health,
    events: &mpsc::Sender<Event>,
) -> Result<Option<Notices>, StartError> {
    let updates = events.clone();
    let send = move |update| updates.send(Event::Update(update)).is_ok();
    let (pods, notices) = match source {
        Source::Folder(folder) => {
            let (folder, pods) =
                FolderSource::open(&folder, config.node_name.clone(), config.publish_pod_status)?;
            folder.run(send)?;
            (Some(pods), None)
        }
        Source::Api(source) => {
            let access = Access::new(source, place(&config.node_name))?;
            let needs = names.as_ref().map_or(Needs::NONE, |names| names.needs(config));
            let wanted = Wanted { proxy: config.proxy, dns: config.dns, needs };
            let timing = Timing::usual(config.api_idle_timeout);
            let api = ApiSource::new(access, config.node_name.clone(), &wanted, timing)?;
            if let Some(names) = names {
                names.set_demand(api.demand());
            }
            metrics.registry.register(Box::new(Shared(api.contacts())))?;
            health.set_contacts(api.contacts());
            let notices = api.notices();
            api.run(send)?;
            (None, Some(notices))
        }
    };
    let attachments = events.clone();
    let foreign = config.pod_network == PodNetwork::Foreign;
    if foreign {
        foreign::watch(move |list| {
            if let Some(pods) = &pods {
                // The folder's view waits for the plugin's records, and there are none.
                let _ = pods.send(Input::Records(PodAddresses::new()));
            }
            attachments.send(Event::Attachments(list)).is_ok()
        })?;
    } else {
        watch_records(config, pods, attachments)?;
    }
    let changes = events.clone();
    links::watch(foreign, move |news| changes.send(Event::NodeChanged(news)).is_ok())?;
    Ok(notices)
}

/// Follows the plugin's records. The folder's view learns of the pods' addresses, too.
fn watch_records(
    config: &Config,
    pods: Option<mpsc::Sender<Input>>,
    attachments: mpsc::Sender<Event>,
) -> Result<(), StartError> {
    records::watch(config.state_dir.clone(), move |list| {
        if let Some(pods) = &pods {
            // The folder's view ends with the loop; one answer is enough.
            let _ = pods.send(Input::Records(pod_addresses(&list)));
        }
        attachments.send(Event::Attachments(list)).is_ok()
    })?;
    Ok(())
}

/// A number that is another one on each node, and the same one each time.
fn place(node: &str) -> usize {
    node.bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Starts the loop; the receiver hears when it has ended.
fn start_loop(mut agent: Agent, period: Duration, inbox: mpsc::Receiver<Event>) -> Result<Ended, StartError> {
    let (sender, ended) = oneshot::channel();
    thread::Builder::new().name("loop".into()).spawn(move || {
        let work = AssertUnwindSafe(move || {
            run::run(&inbox, &mut agent, period);
            agent.stop()
        });
        // A panic is a mistake of ours. The message has been printed; a new process starts from what is pinned.
        if let Ok(names) = panic::catch_unwind(work) {
            // Nobody listens if the process is ending.
            let _ = sender.send(names);
        }
    })?;
    Ok(ended)
}
