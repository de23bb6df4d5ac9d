//! The server's authority, its certificate, a client's certificate, and the listener that speaks TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::{Error, Result};

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Who signs the certificates of a server and its clients.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::answer("TLS of the API server", error)
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "testbed");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?);
        Ok(Self { issuer: issuer.map_err(failed)? })
    }

    /// Its own certificate, as PEM.
    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a client of this name.
    pub(super) fn client(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// What a server at these names and addresses needs.
    pub(super) fn server(&self, names: Vec<String>) -> Result<TlsAcceptor> {
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).map_err(failed)?;
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_client_cert_verifier(clients.map_err(failed)?)
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(failed)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether it showed a certificate of our authority.
    pub(super) certified: bool,
}

/// Connections whose handshake is done.
pub(super) struct Connections {
    local: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
}

impl Connections {
    /// Accepts connections on a listener; must be called in a runtime.
    pub(super) fn on(listener: std::net::TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let local = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let Ok((stream, address)) = listener.accept().await else { continue };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                // One client's handshake does not hold up another's.
                tokio::spawn(async move {
                    if stream.set_nodelay(true).is_ok()
                        && let Ok(stream) = acceptor.accept(stream).await
                    {
                        let certified = stream.get_ref().1.peer_certificates().is_some();
                        // The server may be stopping.
                        let _gone = sender.send((stream, Peer { address, certified })).await;
                    }
                });
            }
        });
        Ok(Self { local, ready })
    }
}

impl Listener for Connections {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.local, certified: false })
    }
}

impl Connected<IncomingStream<'_, Connections>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.remote_addr().clone()
    }
}
