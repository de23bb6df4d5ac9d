//! A Kubernetes API server for tests: the kinds a node watches, in memory, and everything that can be wrong with a
//! server, at a test's command.
//!
//! It runs in the test's own process; only its sockets are made in a namespace of the bed, so that nodes reach it over
//! the bed's wires. It speaks what a node needs of the API and as the real server does: lists in pages,
//! watches from a version, bookmarks, streaming lists, selectors, events. Objects are put by the test, unchecked:
//! what a controller or an admission check would add is the test's own affair, but for a service's cluster addresses.

mod answer;
mod fault;
mod fill;
mod http;
mod kubeconfig;
mod list;
mod object;
mod real;
mod request;
mod resource;
mod selector;
mod store;
mod stream;
mod tls;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

pub use fault::{Behaviour, Blow, TOKEN};
pub use kubeconfig::Credentials;
pub use real::{RealServer, VARIABLE};
pub use resource::Resource;
pub use tls::Identity;

use crate::bed::Host;
use crate::{Error, Result, enter};
use fault::Faults;
use object::{Key, Object};
use store::Store;
use tls::{Authority, Connections, Peer};

/// The port that the server listens on.
pub const PORT: u16 = 6443;

/// A request that the server has answered, or begun to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose.
    pub client: IpAddr,
    /// The client's name for itself.
    pub agent: String,
    /// Such as `GET`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What follows the path.
    pub query: String,
    /// The answer's status.
    pub code: u16,
}

/// A watch that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    /// Whose.
    pub client: IpAddr,
    /// The watched kind's plural.
    pub kind: &'static str,
    /// The request's query.
    pub query: String,
}

/// What all connections share; outlives a stop of the server.
#[derive(Debug)]
struct Shared {
    store: Store,
    faults: Faults,
    seen: Mutex<Vec<Seen>>,
    watching: Mutex<Vec<(u64, Watching)>>,
    uids: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn log(&self, seen: Seen) {
        lock(&self.seen).push(seen);
    }

    /// Stores an object, with what every stored object has.
    fn put(&self, resource: &'static Resource, key: Key, mut value: Map<String, Value>) -> Arc<Object> {
        let old = self.store.objects(resource).0.get(&key).map(|object| object.value());
        let number = self.uids.fetch_add(1, Ordering::Relaxed);
        fill::fill(resource, &key, &mut value, old.as_ref(), number);
        self.store.put(resource, key, value)
    }
}

/// The entry of a running watch; gone when dropped.
struct Open(Arc<Shared>, u64);

impl Open {
    fn new(shared: &Arc<Shared>, resource: &'static Resource, seen: &Seen) -> Self {
        let id = shared.uids.fetch_add(1, Ordering::Relaxed);
        let watching = Watching { client: seen.client, kind: resource.plural, query: seen.query.clone() };
        lock(&shared.watching).push((id, watching));
        Self(shared.clone(), id)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0.watching).retain(|(id, _)| *id != self.1);
    }
}

/// The server. Dropped, it and all its connections are gone.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    authority: Authority,
    acceptor: TlsAcceptorDebug,
    /// The namespace that it listens in; this process's own without.
    netns: Option<PathBuf>,
    addresses: Vec<SocketAddr>,
    runtime: Mutex<Option<Runtime>>,
}

struct TlsAcceptorDebug(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

impl ApiServer {
    /// A server on a host, on [`PORT`] of each of the host's addresses.
    pub fn on(host: &Host, addresses: &[IpAddr]) -> Result<Self> {
        let addresses = addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
        Self::start_at(Some(host.netns_path()), addresses)
    }

    /// A server on a free port of this process's loopback address.
    pub fn local() -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        Self::start_at(None, vec![free.map_err(Error::file("listen on", "127.0.0.1"))?])
    }

    fn start_at(netns: Option<PathBuf>, addresses: Vec<SocketAddr>) -> Result<Self> {
        let shared = Shared {
            store: Store::new(),
            faults: Faults::new(),
            seen: Mutex::default(),
            watching: Mutex::default(),
            uids: AtomicU64::new(1),
        };
        let authority = Authority::new()?;
        let names = addresses.iter().map(|address| address.ip().to_string());
        let acceptor = authority.server(names.chain(["kubernetes.default.svc".to_owned()]).collect())?;
        let server = Self {
            shared: Arc::new(shared),
            authority,
            acceptor: TlsAcceptorDebug(acceptor),
            netns,
            addresses,
            runtime: Mutex::default(),
        };
        server.start()?;
        Ok(server)
    }

    /// Starts it again, with the objects that it has.
    pub fn start(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(Error::file("start", "the API server's threads"))?;
        for address in &self.addresses {
            let failed = |error| Error::file("listen on", address.to_string())(error);
            let bind = || TcpListener::bind(address).map_err(Error::file("listen on", address.to_string()));
            let listener = match &self.netns {
                Some(netns) => enter::inside(netns, bind)?,
                None => bind()?,
            };
            let inside = runtime.enter();
            let connections = Connections::on(listener, self.acceptor.0.clone()).map_err(failed)?;
            let service = http::router(self.shared.clone()).into_make_service_with_connect_info::<Peer>();
            runtime.spawn(async move { axum::serve(connections, service).await });
            drop(inside);
        }
        *lock(&self.runtime) = Some(runtime);
        Ok(())
    }

    /// Stops it: connections break, new ones are refused. Objects stay, and can be changed.
    pub fn stop(&self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }

    /// Where it is reached.
    pub fn urls(&self) -> Vec<String> {
        self.addresses.iter().map(|address| format!("https://{address}")).collect()
    }

    /// Creates or replaces an object, or all of a `List`'s.
    pub fn put(&self, object: Value) -> Result<()> {
        let wrong = |reason: &str| Error::answer(format!("object {object}"), reason);
        if object["kind"] == "List" {
            let items = object["items"].as_array().into_iter().flatten();
            return items.cloned().try_for_each(|item| self.put(item));
        }
        let (resource, key) = identify(&object)?;
        let value = object.as_object().ok_or_else(|| wrong("no object"))?;
        self.shared.put(resource, key, value.clone());
        Ok(())
    }

    /// Removes the object of this kind and name, which must be there.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let (resource, key) = identify(object)?;
        let gone = self.shared.store.remove(resource, &key);
        gone.map(drop).ok_or_else(|| Error::answer(format!("{} {key:?}", resource.kind), "is not there"))
    }

    /// Puts all objects of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        documents(manifest)?.into_iter().try_for_each(|object| self.put(object))
    }

    /// All objects of a kind, by its plural.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        let kinds = resource::RESOURCES.iter().filter(|resource| resource.plural == plural);
        let stores = kinds.map(|resource| self.shared.store.objects(resource).0);
        stores
            .flat_map(|objects| objects.values().map(|one| Value::Object(one.value())).collect::<Vec<_>>())
            .collect()
    }

    /// Forgets all versions before this moment: watches from there on, and lists half read, are gone (410). Streams
    /// that run go on.
    pub fn forget(&self) {
        self.shared.store.forget();
    }

    /// Changes how it behaves.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.shared.faults.set(change);
    }

    /// Hits the watches that are running; `kind` is a plural, or `*` for all.
    pub fn hit(&self, kind: &str, blow: Blow) {
        self.shared.faults.hit(kind, blow);
    }

    /// Refuses the next `count` requests for a kind (`*`: for anything).
    pub fn refuse(&self, kind: &str, code: u16, retry_after: Option<u32>, count: usize) {
        self.shared.faults.refuse(kind, code, retry_after, count);
    }

    /// All requests that were answered so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The watches that are running.
    pub fn watching(&self) -> Vec<Watching> {
        lock(&self.shared.watching).iter().map(|(_, watching)| watching.clone()).collect()
    }

    /// A client's certificate, signed by the server's authority.
    pub fn client_certificate(&self, name: &str) -> Result<Identity> {
        self.authority.client(name)
    }

    /// The certificate of the server's authority, as PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// Writes a kubeconfig for a client that reaches the server at its address of this number.
    pub fn kubeconfig(&self, path: &Path, address: usize, credentials: &Credentials) -> Result<()> {
        let url = &self.urls()[address];
        kubeconfig::write(path, url, &self.authority.pem(), credentials)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The kind and key of an object.
pub(crate) fn identify(object: &Value) -> Result<(&'static Resource, Key)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let resource = Resource::of(api_version, kind)
        .ok_or_else(|| Error::answer(format!("{api_version} {kind}"), "the API server has no such kind"))?;
    let namespace = match (resource.namespaced, text("/metadata/namespace")) {
        (false, _) => "",
        (true, "") => "default",
        (true, named) => named,
    };
    Ok((resource, (namespace.to_owned(), text("/metadata/name").to_owned())))
}

/// The objects of a manifest.
pub(crate) fn documents(manifest: &str) -> Result<Vec<Value>> {
    let read = serde_saphyr::from_multiple::<Option<Value>>(manifest);
    let read = read.map_err(|error| Error::answer("the manifest", error))?;
    Ok(read.into_iter().flatten().filter(|value| !value.is_null()).collect())
}
