//! The Kubernetes API as a source of objects.
//!
//! ```text
//! access ─ servers ─▶ feed (one task a kind) ─▶ known ─▶ hub ─▶ the loop
//!                      stream, wire, json, kind
//! ```
//!
//! One watch of each kind, whatever the number of those who need it. Services and slices are watched without
//! selectors: the proxy does not want headless ones and those of other proxies, but DNS tells the names of all of
//! them, and two watches would be two lists in memory; who has no use for an object passes over it.
//!
//! The tasks have a thread of their own, so that ten thousand services which arrive at once keep no answer of the DNS
//! server waiting.

mod access;
mod backoff;
mod contact;
mod error;
mod events;
mod feed;
mod hub;
mod intern;
mod json;
mod kind;
mod known;
mod servers;
mod stream;
mod timing;
mod wire;

use std::{io, sync::Arc, thread};

use tokio::{
    runtime,
    sync::{mpsc::Receiver, watch},
    task::JoinSet,
};
use tracing::{error, info};

pub use access::{Access, AccessError, SERVICE_ACCOUNT};
pub use contact::{Contacts, Shared};
pub use kind::Kind;
pub use timing::Timing;

use crate::{
    notice::{Notice, Notices},
    source::Update,
};
use events::Writer;
use feed::{Feed, Selection};
use hub::Hub;
use servers::Servers;

/// Which of the cluster's pods are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// None: nobody asks for any.
    None,
    /// Those on one node, by its name: for the search paths that DNS walks for them.
    On(Arc<str>),
    /// All: for DNS names of pods that are to be true.
    All,
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which namespaces there are.
    pub namespaces: bool,
    /// Pods.
    pub pods: Pods,
}

impl Pods {
    fn selection(&self) -> Selection {
        match self {
            Self::None => Selection::None,
            Self::On(node) => Selection::Fields(format!("spec.nodeName={node}")),
            Self::All => Selection::All,
        }
    }
}

/// Says which pods are watched, at any time.
#[derive(Clone, Debug)]
pub struct PodsDemand(watch::Sender<Selection>);

impl PodsDemand {
    /// These pods and no others.
    pub fn set(&self, pods: &Pods) {
        self.0.send_if_modified(|held| {
            let wanted = pods.selection();
            let changed = *held != wanted;
            *held = wanted;
            changed
        });
    }
}

/// The source, not yet running.
pub struct ApiSource {
    kinds: Vec<Kind>,
    pods: PodsDemand,
    servers: Arc<Servers>,
    contacts: Arc<Contacts>,
    timing: Timing,
    node: Arc<str>,
    notices: (Notices, Receiver<Notice>),
}

impl ApiSource {
    /// Asks nobody yet. `node` is this node's name.
    pub fn new(
        access: Access,
        node: Arc<str>,
        wanted: &Wanted,
        timing: Timing,
    ) -> Result<Self, prometheus::Error> {
        let mut kinds = vec![Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr, Kind::Pod];
        if wanted.namespaces {
            kinds.push(Kind::Namespace);
        }
        let contacts = Arc::new(Contacts::new(kinds.iter().copied())?);
        let (pods, _) = watch::channel(wanted.pods.selection());
        let notices = events::inbox(contacts.clone());
        Ok(Self {
            kinds,
            servers: Arc::new(Servers::new(access)),
            contacts,
            timing,
            node,
            notices,
            pods: PodsDemand(pods),
        })
    }

    /// What is told of it.
    pub fn contacts(&self) -> Arc<Contacts> {
        self.contacts.clone()
    }

    /// Where to leave what is to be written as an Event.
    pub fn notices(&self) -> Notices {
        self.notices.0.clone()
    }

    /// Where to say which pods are watched.
    pub fn pods(&self) -> PodsDemand {
        self.pods.clone()
    }

    /// Runs until `send` says that nobody listens any more. The first update is sent when every kind has been
    /// listed.
    pub fn run(
        self,
        send: impl Fn(Update) -> bool + Send + Sync + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("api".into()).spawn(move || runtime.block_on(self.follow(send)))
    }

    async fn follow(self, send: impl Fn(Update) -> bool + Send + Sync + 'static) {
        let hub = Arc::new(Hub::new(self.kinds.iter().copied(), send));
        info!(kinds = ?self.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>(), "watching the API");
        let mut tasks = JoinSet::new();
        let writer = Writer {
            node: self.node,
            servers: self.servers.clone(),
            contacts: self.contacts.clone(),
            timing: self.timing.clone(),
        };
        let (_, notices) = self.notices;
        tasks.spawn(writer.run(notices));
        for kind in self.kinds {
            let selection = match kind {
                Kind::Pod => self.pods.0.subscribe(),
                _ => watch::channel(Selection::All).1,
            };
            let feed = Feed {
                kind,
                selection,
                servers: self.servers.clone(),
                hub: hub.clone(),
                contacts: self.contacts.clone(),
                timing: self.timing.clone(),
            };
            tasks.spawn(feed.run());
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                // A mistake of ours. Half a source would look like a quiet cluster: a new process begins anew.
                error!(%error, "a watch has stopped; a supervisor should start the agent again");
                std::process::exit(1);
            }
        }
    }
}
