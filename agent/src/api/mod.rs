//! The Kubernetes API as a source of objects.
//!
//! ```text
//! access ─ servers ─▶ feed (one task a kind) ─▶ known ─▶ hub ─▶ the loop
//!                      stream, json, kind
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

use std::{io, sync::Arc, thread};

use tokio::{runtime, sync::mpsc::Receiver, task::JoinSet};
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
use feed::Feed;
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

impl Wanted {
    /// The kinds, each with the selector that goes with it.
    fn kinds(&self) -> Vec<(Kind, Option<String>)> {
        let mut kinds: Vec<_> = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr]
            .into_iter()
            .map(|kind| (kind, None))
            .collect();
        if self.namespaces {
            kinds.push((Kind::Namespace, None));
        }
        match &self.pods {
            Pods::None => {}
            Pods::On(node) => kinds.push((Kind::Pod, Some(format!("spec.nodeName={node}")))),
            Pods::All => kinds.push((Kind::Pod, None)),
        }
        kinds
    }
}

/// The source, not yet running.
pub struct ApiSource {
    kinds: Vec<(Kind, Option<String>)>,
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
        let kinds = wanted.kinds();
        let contacts = Arc::new(Contacts::new(kinds.iter().map(|(kind, _)| *kind))?);
        let notices = events::inbox(contacts.clone());
        Ok(Self { kinds, servers: Arc::new(Servers::new(access)), contacts, timing, node, notices })
    }

    /// What is told of it.
    pub fn contacts(&self) -> Arc<Contacts> {
        self.contacts.clone()
    }

    /// Where to leave what is to be written as an Event.
    pub fn notices(&self) -> Notices {
        self.notices.0.clone()
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
        let hub = Arc::new(Hub::new(self.kinds.iter().map(|(kind, _)| *kind), send));
        info!(kinds = ?self.kinds.iter().map(|(kind, _)| kind.name()).collect::<Vec<_>>(), "watching the API");
        let mut tasks = JoinSet::new();
        let writer = Writer {
            node: self.node,
            servers: self.servers.clone(),
            contacts: self.contacts.clone(),
            timing: self.timing.clone(),
        };
        let (_, notices) = self.notices;
        tasks.spawn(writer.run(notices));
        for (kind, selector) in self.kinds {
            let feed = Feed {
                kind,
                selector,
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
