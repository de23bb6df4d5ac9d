//! How to get at the API: addresses and credentials, from a kubeconfig, from the service account of a pod, or from
//! nothing but addresses. Read anew whenever a client is made, so that whatever has been rotated is taken up.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderValue, Request, header::USER_AGENT};
use kube::{
    Client, Config as ClientConfig,
    client::{Body, ClientBuilder},
    config::{
        AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo,
        NamedCluster, NamedContext,
    },
};
use tower::util::MapRequestLayer;

use super::token::{TokenError, TokenFile};
use crate::config::ApiSettings;

/// Where a pod finds its service account.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// The one name for cluster, user and context in a configuration that is made here.
const NAME: &str = "sluice";

/// Why there is no way to the API.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig, or what it refers to.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig names no server, and neither does anything else.
    #[error("kubeconfig {0} names no server for its current context")]
    NoServer(PathBuf),
    /// The service account, or an address.
    #[error("API server {server}: {source}")]
    Server {
        /// The address.
        server: String,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// Certificates, keys, or the command that gives credentials.
    #[error("cannot make a client for {server}: {source}")]
    Client {
        /// The address.
        server: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The file that a token is to be read from.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The task that makes the client has ended.
    #[error("the task that makes a client has ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The way to the API.
#[derive(Clone, Debug)]
pub struct Access {
    source: ApiSettings,
    /// Which of the configured addresses goes first.
    first: usize,
}

impl Access {
    /// Checks that what is needed is there, as far as it can be told without a server. `place` is another number for
    /// each node, so that nodes with the same configuration spread over the servers.
    pub fn new(source: ApiSettings, place: usize) -> Result<Self, AccessError> {
        let access = Self { first: place % source.servers.len().max(1), source };
        access.servers()?;
        Ok(access)
    }

    /// The addresses, in the order in which they are tried.
    pub fn servers(&self) -> Result<Vec<String>, AccessError> {
        let mut servers = self.source.servers.clone();
        servers.rotate_left(self.first);
        match (&self.source.kubeconfig, &self.source.in_cluster) {
            (Some(path), _) => {
                let own = server_of(&read(path)?);
                if servers.is_empty() {
                    servers.push(own.ok_or_else(|| AccessError::NoServer(path.clone()))?);
                }
            }
            // Last, as it may lead through the proxy that this agent is.
            (None, Some(service)) => servers.push(service.clone()),
            (None, None) => {}
        }
        Ok(servers)
    }

    /// A client for one of the addresses.
    pub async fn client(&self, server: &str) -> Result<Client, AccessError> {
        let wrong = |source| AccessError::Server { server: server.to_owned(), source: Box::new(source) };
        let kubeconfig = match &self.source.kubeconfig {
            Some(path) => with_server(read(path)?, server),
            None if self.source.in_cluster.is_some() => service_account(server, Path::new(SERVICE_ACCOUNT)),
            None => plain(server, None, AuthInfo::default()),
        };
        // A proxy that the environment names is one to the world outside, not to the node's own cluster.
        let proxied = cluster_of(&kubeconfig).is_some_and(|cluster| cluster.proxy_url.is_some());
        let options = KubeConfigOptions::default();
        let mut config = ClientConfig::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)?;
        config.proxy_url = config.proxy_url.filter(|_| proxied);
        config.connect_timeout = Some(CONNECT);
        // So that a server's log says who asks.
        config
            .headers
            .push((USER_AGENT, HeaderValue::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION")))));
        // Failures are to be seen, counted and waited for here, not below.
        config.default_retry = false;
        let token = token_file(&mut config.auth_info).as_deref().map(TokenFile::open).transpose()?;
        let server = server.to_owned();
        // A command that gives credentials blocks.
        tokio::task::spawn_blocking(move || {
            let builder = ClientBuilder::try_from(config)
                .map_err(|source| AccessError::Client { server, source: Box::new(source) })?;
            Ok(match token {
                None => builder.build(),
                Some(token) => {
                    let sign = move |mut request: Request<Body>| {
                        token.sign(&mut request);
                        request
                    };
                    builder.with_layer(&MapRequestLayer::new(sign)).build()
                }
            })
        })
        .await?
    }
}

/// Takes the token file out of credentials, where it is what they come to.
fn token_file(user: &mut AuthInfo) -> Option<PathBuf> {
    let others = user.token.is_some() || user.auth_provider.is_some() || user.username.is_some();
    user.token_file.take().filter(|_| !others).map(PathBuf::from)
}

fn read(path: &Path) -> Result<Kubeconfig, AccessError> {
    Kubeconfig::read_from(path)
        .map_err(|source| AccessError::Kubeconfig { path: path.to_owned(), source: Box::new(source) })
}

/// The name of the cluster of the current context.
fn current_cluster(kubeconfig: &Kubeconfig) -> Option<&str> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|named| named.name == *current)?;
    Some(&context.context.as_ref()?.cluster)
}

/// The cluster of the current context.
fn cluster_of(kubeconfig: &Kubeconfig) -> Option<&Cluster> {
    let name = current_cluster(kubeconfig)?;
    kubeconfig.clusters.iter().find(|named| named.name == name)?.cluster.as_ref()
}

fn server_of(kubeconfig: &Kubeconfig) -> Option<String> {
    cluster_of(kubeconfig)?.server.clone()
}

fn with_server(mut kubeconfig: Kubeconfig, server: &str) -> Kubeconfig {
    let name = current_cluster(&kubeconfig).map(str::to_owned);
    for named in kubeconfig.clusters.iter_mut().filter(|named| Some(&named.name) == name.as_ref()) {
        if let Some(cluster) = &mut named.cluster {
            cluster.server = Some(server.to_owned());
        }
    }
    kubeconfig
}

fn service_account(server: &str, folder: &Path) -> Kubeconfig {
    let file = |name: &str| Some(folder.join(name).to_string_lossy().into_owned());
    plain(server, file("ca.crt"), AuthInfo { token_file: file("token"), ..AuthInfo::default() })
}

fn plain(server: &str, authority: Option<String>, user: AuthInfo) -> Kubeconfig {
    let cluster =
        Cluster { server: Some(server.to_owned()), certificate_authority: authority, ..Cluster::default() };
    let context = Context { cluster: NAME.to_owned(), user: Some(NAME.to_owned()), ..Context::default() };
    Kubeconfig {
        clusters: vec![NamedCluster {
            name: NAME.to_owned(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: NAME.to_owned(),
            auth_info: Some(user),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: NAME.to_owned(),
            context: Some(context),
            ..NamedContext::default()
        }],
        current_context: Some(NAME.to_owned()),
        ..Kubeconfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate authority's certificate that nobody has the key of.
    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    async fn config(kubeconfig: Kubeconfig) -> ClientConfig {
        ClientConfig::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_service_account_is_a_token_file_and_an_authority() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), AUTHORITY).unwrap();
        let config = config(service_account("https://[fd00::1]:6443", folder.path())).await;
        assert_eq!(config.cluster_url.to_string(), "https://[fd00::1]:6443/");
        let token = folder.path().join("token");
        assert_eq!(config.auth_info.token_file.as_deref(), token.to_str());
        assert_eq!(config.root_cert.map(|list| list.len()), Some(1));
    }

    #[tokio::test]
    async fn configured_addresses_go_before_the_kubeconfigs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                    clusters: [{name: other, cluster: {server: 'https://other'}}, {name: k, cluster: {server: 'https://own:6443'}}]\n\
                    contexts: [{name: c, context: {cluster: k, user: u}}]\nusers: [{name: u, user: {token: t}}]\n";
        std::fs::write(&path, text).unwrap();
        let settings = ApiSettings { kubeconfig: Some(path.clone()), ..ApiSettings::default() };
        assert_eq!(Access::new(settings.clone(), 7).unwrap().servers().unwrap(), ["https://own:6443"]);
        let servers = ["https://a", "https://b"].map(str::to_owned).to_vec();
        let access = Access::new(ApiSettings { servers, ..settings }, 7).unwrap();
        assert_eq!(access.servers().unwrap(), ["https://b", "https://a"]);
        let config = config(with_server(read(&path).unwrap(), "https://a")).await;
        assert_eq!(config.cluster_url.host(), Some("a"));

        std::fs::write(&path, "apiVersion: v1\nkind: Config\n").unwrap();
        let settings = ApiSettings { kubeconfig: Some(path), ..ApiSettings::default() };
        assert!(matches!(Access::new(settings, 0), Err(AccessError::NoServer(_))));
    }

    #[test]
    fn what_a_pod_is_told_comes_last() {
        let settings = ApiSettings {
            servers: vec!["https://a".to_owned()],
            in_cluster: Some("https://10.96.0.1:443".to_owned()),
            kubeconfig: None,
        };
        let servers = Access::new(settings, 0).unwrap().servers().unwrap();
        assert_eq!(servers, ["https://a", "https://10.96.0.1:443"]);
        let missing = ApiSettings { kubeconfig: Some("/nowhere".into()), ..ApiSettings::default() };
        let said = Access::new(missing, 0).unwrap_err().to_string();
        assert!(said.starts_with("kubeconfig /nowhere: "), "{said}");
    }
}
