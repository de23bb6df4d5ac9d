//! DNS over TLS (RFC 7858): who the upstream must prove to be, and to whom we trust to say so.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{ConfigError, Tls};

/// Where Debian and its like keep the certificates that the system trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How connections are encrypted.
#[derive(Clone)]
pub(crate) struct Encryption {
    /// Whom we trust, and who we are.
    pub(crate) config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Encryption {
    /// Reads the configuration and the certificates it trusts.
    pub(crate) fn new(config: &Tls) -> Result<Self, ConfigError> {
        let file = config.ca_file.as_deref().unwrap_or(Path::new(SYSTEM_ROOTS));
        let bad = |problem: String| ConfigError::Certificates { file: file.to_owned(), problem };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))? {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            // The system's file may hold what cannot be read; a file that was given may not.
            let added = roots.add(certificate);
            if config.ca_file.is_some() {
                added.map_err(|error| bad(error.to_string()))?;
            }
        }
        if roots.is_empty() {
            return Err(bad("no certificate in it".to_owned()));
        }
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(error.to_string()))?
            .with_root_certificates(roots);
        let client = match &config.client {
            None => client.with_no_client_auth(),
            Some((certificate, key)) => {
                let of = |file: &Path, problem: String| ConfigError::Certificates {
                    file: file.to_owned(),
                    problem,
                };
                let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
                let chain = chain.map_err(|error| of(certificate, error.to_string()))?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, error.to_string()))?;
                client.with_client_auth_cert(chain, secret).map_err(|error| of(key, error.to_string()))?
            }
        };
        let server_name = config
            .server_name
            .clone()
            .map(|name| ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name)))
            .transpose()?;
        Ok(Self { config: Arc::new(client), server_name })
    }

    /// Who an upstream must prove to be.
    pub(crate) fn name_of(&self, upstream: SocketAddr) -> ServerName<'static> {
        self.server_name.clone().unwrap_or_else(|| ServerName::from(upstream.ip()))
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
