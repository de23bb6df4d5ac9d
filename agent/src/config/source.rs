//! Where the agent learns of the cluster: from a folder, or from the Kubernetes API.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{Config, ConfigError};
use crate::api::SERVICE_ACCOUNT;

/// The source of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of manifests.
    Folder(PathBuf),
    /// The Kubernetes API.
    Api(ApiSettings),
}

/// The way to the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiSettings {
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Addresses that go before that of the kubeconfig.
    pub servers: Vec<String>,
    /// The address that a pod is told, where there is a service account. It is a service's, as a rule.
    pub in_cluster: Option<String>,
}

impl Config {
    /// The source of objects; without one, an error that says how to name it.
    pub fn source(&self) -> Result<Source, ConfigError> {
        let account = Path::new(SERVICE_ACCOUNT).join("token").exists();
        self.source_in(account, |name| env::var(name).ok())
    }

    fn source_in(
        &self,
        account: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Source, ConfigError> {
        let kubeconfig = self.kubeconfig.clone();
        if let Some(folder) = &self.manifests {
            if kubeconfig.is_some() || !self.api_servers.is_empty() {
                let problem = "is set, and so is an API server: there is one source only".to_owned();
                return Err(ConfigError::Value { setting: "manifests", problem });
            }
            return Ok(Source::Folder(folder.clone()));
        }
        let in_cluster = match variable("KUBERNETES_SERVICE_HOST") {
            Some(host) if account && kubeconfig.is_none() => {
                let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                Some(format!("https://{host}:{port}"))
            }
            _ => None,
        };
        let source = ApiSettings { kubeconfig, servers: self.api_servers.clone(), in_cluster };
        if source.kubeconfig.is_none() && source.servers.is_empty() && source.in_cluster.is_none() {
            return Err(ConfigError::NoSource);
        }
        Ok(Source::Api(source))
    }
}

/// The addresses of API servers, each with its scheme.
pub(super) fn api_servers(texts: &[String]) -> Result<Vec<String>, ConfigError> {
    let parse = |text: &String| {
        let whole = if text.contains("://") { text.clone() } else { format!("https://{text}") };
        let uri = whole.parse::<axum::http::Uri>().ok();
        let good = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if good {
            return Ok(whole.trim_end_matches('/').to_owned());
        }
        let problem =
            format!("{text:?} is not an address such as 192.0.2.1:6443 or https://api.example:6443");
        Err(ConfigError::Value { setting: "apiServers", problem })
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config(settings: Settings) -> Config {
        Config::new(Settings { node_name: Some("one".into()), ..settings }).unwrap()
    }

    fn in_pod(name: &str) -> Option<String> {
        match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("8443".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_source_is_what_is_named_and_else_the_cluster_around() {
        let nothing = config(Settings::default());
        assert!(matches!(nothing.source_in(true, |_| None), Err(ConfigError::NoSource)));
        assert!(matches!(nothing.source_in(false, in_pod), Err(ConfigError::NoSource)));
        let around =
            ApiSettings { in_cluster: Some("https://[fd00::1]:8443".into()), ..ApiSettings::default() };
        assert_eq!(nothing.source_in(true, in_pod).unwrap(), Source::Api(around));

        let folder = config(Settings { manifests: Some("/m".into()), ..Settings::default() });
        assert_eq!(folder.source_in(true, in_pod).unwrap(), Source::Folder("/m".into()));

        let file = config(Settings { kubeconfig: Some("/k".into()), ..Settings::default() });
        let expected = ApiSettings { kubeconfig: Some("/k".into()), ..ApiSettings::default() };
        assert_eq!(file.source_in(true, in_pod).unwrap(), Source::Api(expected));

        let both =
            Settings { manifests: Some("/m".into()), kubeconfig: Some("/k".into()), ..Settings::default() };
        assert!(matches!(config(both).source_in(false, |_| None), Err(ConfigError::Value { .. })));
    }

    #[test]
    fn addresses_of_servers_may_leave_out_the_scheme() {
        let list = ["192.0.2.1:6443", "http://[fd00::1]:8080/", "https://api.example"].map(str::to_owned);
        let expected = ["https://192.0.2.1:6443", "http://[fd00::1]:8080", "https://api.example"];
        assert_eq!(api_servers(&list).unwrap(), expected);
        for bad in ["", "ftp://a", "https://", "a b"] {
            assert!(api_servers(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
