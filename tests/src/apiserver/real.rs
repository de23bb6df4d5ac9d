//! A real API server in the place of the test's own: the same objects, put by server-side apply, and the same nodes,
//! which reach it through a forwarder on the host that they take for it.
//!
//! The kubeconfig of the environment names it. It must be one that nobody needs, with no controllers at work: Nodes,
//! and objects in `default`, come and go.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use axum::http::{Method, Request, Uri};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::object::Key;
use super::{PORT, Resource, identify, lock};
use crate::bed::Host;
use crate::{Error, Result};

/// The variable that names the kubeconfig.
pub const VARIABLE: &str = "SLUICE_TEST_KUBECONFIG";

/// The content types of an object to apply, and of what to change in one.
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// A connection to the server; what was put goes when it is dropped.
pub struct RealServer {
    runtime: Runtime,
    client: Client,
    url: Uri,
    kubeconfig: PathBuf,
    put: Mutex<Vec<Value>>,
}

impl std::fmt::Debug for RealServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RealServer({})", self.url)
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let what = what.into();
    move |error| Error::answer(what, error)
}

impl RealServer {
    /// The server that the environment names, if it names one.
    pub fn named() -> Result<Option<Self>> {
        std::env::var_os(VARIABLE).map(|path| Self::by(Path::new(&path))).transpose()
    }

    /// The server of a kubeconfig.
    pub fn by(kubeconfig: &Path) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| Error::answer(kubeconfig.display().to_string(), error);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Error::file("start", "a client's threads"))?;
        let read = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(&error))?;
        let options = KubeConfigOptions::default();
        let config = runtime.block_on(Config::from_custom_kubeconfig(read, &options));
        let config = config.map_err(|error| wrong(&error))?;
        let url = config.cluster_url.clone();
        let inside = runtime.enter();
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        drop(inside);
        let server = Self { runtime, client, url, kubeconfig: kubeconfig.to_owned(), put: Mutex::default() };
        let nodes = server.ask(&Method::GET, "/api/v1/nodes", None)?;
        let names = nodes["items"].as_array().into_iter().flatten();
        let names = names.filter_map(|node| node["metadata"]["name"].as_str());
        let foreign: Vec<_> = names.filter(|name| !name.starts_with("node")).collect();
        if !foreign.is_empty() {
            let reason = format!("the server has nodes of its own, {foreign:?}: this is no place for tests");
            return Err(wrong(&reason));
        }
        Ok(server)
    }

    fn ask(&self, method: &Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value> {
        let (content, body) = body.unzip();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content.unwrap_or("application/json"))
            .body(body.map_or_else(Vec::new, |body| body.to_string().into_bytes()))
            .map_err(|error| Error::answer(path, error))?;
        self.runtime.block_on(self.client.request(request)).map_err(failed(format!("{method} {path}")))
    }

    /// Creates or replaces an object, its status too.
    pub fn put(&self, object: &Value) -> Result<()> {
        let (resource, key) = identify(object)?;
        let query = "fieldManager=sluice-tests&force=true";
        let path = path(resource, &key);
        let mut whole = object.clone();
        let status = whole.as_object_mut().and_then(|whole| whole.remove("status"));
        lock(&self.put).push(object.clone());
        self.ask(&Method::PATCH, &format!("{path}?{query}"), Some((APPLY, &whole)))?;
        if let Some(status) = status {
            let mut part =
                json!({ "apiVersion": object["apiVersion"], "kind": object["kind"], "status": status });
            part["metadata"] = json!({ "name": key.1 });
            // Not by apply, which takes a Node's addresses for a map by their type, and refuses two internal ones.
            self.ask(&Method::PATCH, &format!("{path}/status"), Some((MERGE, &part)))?;
        }
        Ok(())
    }

    /// Removes an object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let (resource, key) = identify(object)?;
        self.ask(&Method::DELETE, &path(resource, &key), None).map(|_| ())
    }

    /// Writes the kubeconfig of nodes that reach the server by a forwarder at this address.
    pub fn kubeconfig(&self, path: &Path, forwarder: &str) -> Result<()> {
        let text =
            std::fs::read_to_string(&self.kubeconfig).map_err(Error::file("read", &self.kubeconfig))?;
        let read = serde_saphyr::from_str::<Value>(&text);
        let mut config = read.map_err(|error| Error::answer(self.kubeconfig.display().to_string(), error))?;
        let folder = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        let name = self.url.host().unwrap_or_default().trim_matches(['[', ']']);
        for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
            let cluster = &mut cluster["cluster"];
            cluster["server"] = json!(format!("https://{forwarder}:{PORT}"));
            if cluster["tls-server-name"].is_null() {
                cluster["tls-server-name"] = json!(name);
            }
            make_absolute(cluster, folder);
        }
        for user in config["users"].as_array_mut().into_iter().flatten() {
            make_absolute(&mut user["user"], folder);
        }
        std::fs::write(path, config.to_string()).map_err(Error::file("write", path))
    }

    /// Forwards connections to addresses of a host, as long as this process lives.
    pub fn forward(&self, host: &Host, addresses: &[IpAddr]) -> Result<()> {
        let name = self.url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.url.port_u16().unwrap_or(443);
        let found = (name.as_str(), port).to_socket_addrs().map_err(Error::file("look up", &name))?.next();
        let target = found.ok_or_else(|| Error::Missing(format!("address of {name}")))?;
        for address in addresses {
            let address = SocketAddr::new(*address, PORT);
            let listen = || TcpListener::bind(address).map_err(Error::file("listen on", address.to_string()));
            let listener = host.inside(listen)?;
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    // A server that is away is what the client then sees.
                    if let Ok(server) = TcpStream::connect(target) {
                        let _broken = join(&client, &server);
                    }
                }
            });
        }
        Ok(())
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        for object in std::mem::take(&mut *lock(&self.put)) {
            // Gone is as good.
            let _gone = self.delete(&object);
        }
    }
}

fn path(resource: &Resource, (namespace, name): &Key) -> String {
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let api = format!("{root}/{}", resource.api_version());
    if resource.namespaced {
        format!("{api}/namespaces/{namespace}/{}/{name}", resource.plural)
    } else {
        format!("{api}/{}/{name}", resource.plural)
    }
}

/// Paths in a kubeconfig are relative to the file.
fn make_absolute(part: &mut Value, folder: &Path) {
    for field in ["certificate-authority", "client-certificate", "client-key", "tokenFile"] {
        if let Some(path) = part[field].as_str().map(|path| folder.join(path)) {
            part[field] = json!(path);
        }
    }
}

/// Copies both ways, on threads of their own.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            // However it ends, the other side is told.
            let _ended = io::copy(&mut from, &mut to);
            let _ended = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
