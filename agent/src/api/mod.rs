//! The Kubernetes API as a source of objects.
//!
//! ```text
//! access ─ servers ─▶ feed (one task a kind) ─▶ known ─▶ hub ─▶ the loop
//!                      stream, wire, json, kind
//! ```
//!
//! One watch of each kind, whatever the number of those who need it, and none of what nobody needs. Where DNS is
//! served, services and slices are watched without selectors: the proxy does not want headless ones and those of other
//! proxies, but DNS tells the names of all of them, as CoreDNS does, and two watches would be two lists in memory; who
//! has no use for an object passes over it.
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
mod selection;
mod servers;
mod stream;
mod timing;
mod token;
mod wire;

use std::{collections::BTreeMap, io, sync::Arc, thread, time::Duration};

use tokio::{
    runtime,
    sync::{mpsc::Receiver, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{error, info, warn};

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
use selection::{Selection, Selector};
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
    /// Services are served.
    pub proxy: bool,
    /// DNS is served.
    pub dns: bool,
    /// What DNS needs that not every server of names does.
    pub needs: Needs,
}

/// What DNS needs that not every server of names does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Pods.
    pub pods: Pods,
    /// The labels of services.
    pub service_labels: bool,
    /// Services of a set of clusters.
    pub imports: bool,
}

impl Needs {
    /// Nothing.
    pub const NONE: Self = Self { pods: Pods::None, service_labels: false, imports: false };

    /// The kinds that depend on it, and which objects of each are watched where DNS is served.
    fn selections(&self) -> [(Kind, Selection); 4] {
        let of = |whole| Selection::Of(Selector { whole, ..Selector::default() });
        [
            (Kind::Pod, self.pods.selection()),
            (Kind::Service, of(self.service_labels)),
            (Kind::EndpointSlice, of(self.imports)),
            (Kind::ServiceImport, if self.imports { of(self.service_labels) } else { Selection::None }),
        ]
    }
}

impl Wanted {
    /// The kinds, and which objects of each.
    fn kinds(&self) -> Vec<(Kind, Selection)> {
        let all = || Selection::Of(Selector::default());
        let mut kinds = vec![(Kind::Node, all())];
        if self.dns {
            kinds.extend(self.needs.selections());
            kinds.push((Kind::Namespace, all()));
        } else if self.proxy {
            // What kube-proxy leaves out (row 1 of the behaviour table), which DNS wants to know.
            let without = |labels: &str, fields: Option<&str>| {
                let (labels, fields) = (Some(labels.to_owned()), fields.map(str::to_owned));
                Selection::Of(Selector { labels, fields, whole: false })
            };
            let services = "!service.kubernetes.io/service-proxy-name";
            kinds.push((Kind::Service, without(services, Some("spec.clusterIP!=None"))));
            kinds.push((Kind::EndpointSlice, without("!service.kubernetes.io/headless", None)));
        }
        if self.proxy || self.dns {
            kinds.push((Kind::ServiceCidr, all()));
        }
        kinds
    }
}

impl Pods {
    fn selection(&self) -> Selection {
        match self {
            Self::None => Selection::None,
            Self::On(node) => {
                let fields = Some(format!("spec.nodeName={node}"));
                Selection::Of(Selector { fields, ..Selector::default() })
            }
            Self::All => Selection::Of(Selector::default()),
        }
    }
}

/// Says what DNS needs, at any time.
#[derive(Clone, Debug)]
pub struct Demand(BTreeMap<Kind, watch::Sender<Selection>>);

impl Demand {
    /// This, and nothing else.
    pub fn set(&self, needs: &Needs) {
        for (kind, wanted) in needs.selections() {
            let Some(held) = self.0.get(&kind) else { continue };
            held.send_if_modified(|held| {
                let changed = *held != wanted;
                *held = wanted;
                changed
            });
        }
    }
}

/// The source, not yet running.
pub struct ApiSource {
    kinds: Vec<(Kind, Selection)>,
    demand: Demand,
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
        let of_dns = wanted.needs.selections().into_iter().filter(|_| wanted.dns);
        let demand = Demand(of_dns.map(|(kind, selection)| (kind, watch::channel(selection).0)).collect());
        let notices = events::inbox(contacts.clone());
        Ok(Self { kinds, servers: Arc::new(Servers::new(access)), contacts, timing, node, notices, demand })
    }

    /// What is told of it.
    pub fn contacts(&self) -> Arc<Contacts> {
        self.contacts.clone()
    }

    /// Where to leave what is to be written as an Event.
    pub fn notices(&self) -> Notices {
        self.notices.0.clone()
    }

    /// Where to say what DNS needs.
    pub fn demand(&self) -> Demand {
        self.demand.clone()
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
        tasks.spawn(tell_what_is_awaited(hub.clone(), self.timing.told_awaited));
        let (_, notices) = self.notices;
        tasks.spawn(writer.run(notices));
        for (kind, selection) in self.kinds {
            let demanded = self.demand.0.get(&kind).map(watch::Sender::subscribe);
            let selection = demanded.unwrap_or_else(|| watch::channel(selection).1);
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

/// Tells now and then what the first update waits for.
async fn tell_what_is_awaited(hub: Arc<Hub>, pause: Duration) {
    loop {
        sleep(pause).await;
        let awaited = hub.awaited();
        if awaited.is_empty() {
            return;
        }
        let kinds = awaited.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        warn!("nothing is changed on this node before the API has listed: {kinds}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_is_not_watched() {
        let kinds = |proxy, dns| -> Vec<String> {
            let wanted = Wanted { proxy, dns, needs: Needs::NONE };
            let text = |(kind, selection): (Kind, Selection)| match selection {
                Selection::None => format!("no {kind}"),
                Selection::Of(Selector { labels, fields, .. }) => {
                    let parts = [labels, fields].into_iter().flatten();
                    std::iter::once(kind.to_string()).chain(parts).collect::<Vec<_>>().join(" ")
                }
            };
            wanted.kinds().into_iter().map(text).collect()
        };
        assert_eq!(kinds(false, false), ["nodes"]);
        let proxy = [
            "nodes",
            "services !service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
            "endpointslices !service.kubernetes.io/headless",
            "servicecidrs",
        ];
        assert_eq!(kinds(true, false), proxy);
        let all = [
            "nodes",
            "no pods",
            "services",
            "endpointslices",
            "no serviceimports",
            "namespaces",
            "servicecidrs",
        ];
        assert_eq!(kinds(true, true), all);
        assert_eq!(kinds(false, true), all);
    }
}
