//! Kubeconfig files, with every way to say who one is.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::tls::Identity;
use crate::{Error, Result};

/// How a client says who it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A bearer token.
    Token(String),
    /// A bearer token in a file that may change.
    TokenFile(PathBuf),
    /// A certificate.
    Certificate(Identity),
}

/// Writes a kubeconfig; what it refers to lies beside it.
pub(super) fn write(path: &Path, url: &str, authority: &str, credentials: &Credentials) -> Result<()> {
    let beside = |extension: &str, text: &str| -> Result<PathBuf> {
        let file = path.with_extension(extension);
        std::fs::write(&file, text).map_err(Error::file("write", &file))?;
        Ok(file)
    };
    let user = match credentials {
        Credentials::Token(token) => json!({ "token": token }),
        Credentials::TokenFile(file) => json!({ "tokenFile": file }),
        Credentials::Certificate(identity) => json!({
            "client-certificate": beside("crt", &identity.certificate)?,
            "client-key": beside("key", &identity.key)?,
        }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "testbed",
            "cluster": { "server": url, "certificate-authority": beside("ca", authority)? },
        }],
        "users": [{ "name": "node", "user": user }],
        "contexts": [{ "name": "node", "context": { "cluster": "testbed", "user": "node" } }],
        "current-context": "node",
    });
    // JSON is YAML.
    std::fs::write(path, config.to_string()).map_err(Error::file("write", path))
}
