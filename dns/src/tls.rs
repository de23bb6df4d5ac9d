//! DNS over TLS (RFC 7858) and over HTTPS (RFC 8484): who the upstream must prove to be, and whom we trust to say so.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{ConfigError, ForwardOptions, Tls};

/// Where Debian and its like keep the certificates that the system trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How connections are encrypted.
#[derive(Clone)]
pub(crate) struct Encryption {
    /// Whom we trust, and who we are.
    pub(crate) config: Arc<ClientConfig>,
    /// Over HTTPS: the path that is asked for.
    pub(crate) https: Option<Arc<str>>,
    tls: Tls,
}

impl Encryption {
    /// What the options say of it; none: questions and answers are open to all.
    pub(crate) fn of(options: &ForwardOptions) -> Result<Option<Self>, ConfigError> {
        if let Some(path) = options.https.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(ConfigError::HttpsPath(path.clone()));
        }
        match (&options.tls, &options.https) {
            (None, None) => Ok(None),
            (tls, https) => Self::new(&tls.clone().unwrap_or_default(), https.as_deref()).map(Some),
        }
    }

    /// Reads the configuration and the certificates it trusts.
    fn new(config: &Tls, https: Option<&str>) -> Result<Self, ConfigError> {
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
        let mut client = match &config.client {
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
        if https.is_some() {
            client.alpn_protocols = vec![b"h2".to_vec()];
        }
        for name in config.server_name.iter().chain(config.server_names.iter().map(|(_, name)| name)) {
            ServerName::try_from(name.as_str()).map_err(|_| ConfigError::ServerName(name.clone()))?;
        }
        Ok(Self { config: Arc::new(client), https: https.map(Arc::from), tls: config.clone() })
    }

    /// Who an upstream must prove to be.
    pub(crate) fn name_of(&self, upstream: SocketAddr) -> ServerName<'static> {
        let named = self.tls.name_of(&upstream).and_then(|name| ServerName::try_from(name.to_owned()).ok());
        named.unwrap_or_else(|| ServerName::from(upstream.ip()))
    }

    /// The same as requests over HTTPS say it.
    pub(crate) fn authority_of(&self, upstream: SocketAddr) -> Arc<str> {
        self.tls.name_of(&upstream).map_or_else(|| upstream.ip().to_string().into(), Arc::from)
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption")
            .field("tls", &self.tls)
            .field("https", &self.https)
            .finish_non_exhaustive()
    }
}
