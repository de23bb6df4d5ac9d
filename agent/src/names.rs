//! The cluster's DNS on this node: an adapter between the loop and the DNS server.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
};

use ipnet::IpNet;
use sluice_dns::{DnsConfig, DnsError, Publisher, Server, Upstreams};
use sluice_model::{Changes, Service, ServicePort, Snapshot, TargetPort};
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};
use tracing::{error, info, warn};

use crate::{config::Config, failure::Chain, http::DnsMetrics};

/// The port of DNS.
const PORT: u16 = 53;

/// The server, once it has addresses to serve at.
pub struct Names {
    runtime: Handle,
    metrics: DnsMetrics,
    running: Option<Running>,
    /// The lack of an address was told.
    told: bool,
}

struct Running {
    addresses: BTreeSet<IpAddr>,
    publisher: Publisher,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The addresses at which this node serves DNS: those that are configured, and those of the service.
pub fn addresses(config: &Config, snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let service = snapshot.services.get(&config.dns_service);
    let service = service.map(|service| service.cluster_ips.clone()).unwrap_or_default();
    config.cluster_dns.iter().copied().chain(service).collect()
}

/// The service that stands for the cluster's DNS where addresses are configured and nobody has made it: with it
/// the name and the datapath's entry are there as in any cluster.
pub fn default_service(config: &Config) -> Option<Service> {
    if !config.dns || config.cluster_dns.is_empty() {
        return None;
    }
    let port = |name: &str, protocol| ServicePort {
        name: name.into(),
        protocol,
        port: PORT,
        target_port: TargetPort::Number(PORT),
        node_port: None,
    };
    Some(Service {
        cluster_ips: config.cluster_dns.clone(),
        ports: vec![port("dns", sluice_model::Protocol::Udp), port("dns-tcp", sluice_model::Protocol::Tcp)],
        ..Service::new(config.dns_service.clone())
    })
}

impl Names {
    /// No server yet. Its metrics will stand in `metrics`.
    pub fn new(runtime: Handle, metrics: DnsMetrics) -> Self {
        Self { runtime, metrics, running: None, told: false }
    }

    /// Whether a server answers.
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// Makes the server serve at these addresses, and gives it the snapshot.
    pub fn publish(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        changes: &Changes,
    ) -> Result<(), DnsError> {
        let addresses = addresses(config, snapshot);
        if let Some(running) = &self.running
            && running.addresses == addresses
            && !running.task.is_finished()
        {
            running.publisher.publish(snapshot, changes);
            return Ok(());
        }
        self.stop();
        if addresses.is_empty() {
            if !self.told {
                warn!(
                    service = %config.dns_service,
                    "no address to serve DNS at: set clusterDNS, or give the service a clusterIP"
                );
            }
            self.told = true;
            return Ok(());
        }
        self.told = false;
        let running = self.start(config, snapshot, addresses)?;
        running.publisher.publish(snapshot, &Changes::everything());
        self.running = Some(running);
        Ok(())
    }

    fn start(
        &self,
        config: &Config,
        snapshot: &Snapshot,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<Running, DnsError> {
        let _inside = self.runtime.enter();
        let pods = snapshot.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
        let networks: BTreeSet<IpNet> = pods.chain(config.service_networks(snapshot)).collect();
        let upstreams = if config.dns_upstreams.is_empty() {
            Upstreams::ResolvConf(config.resolv_conf.clone())
        } else {
            Upstreams::Addresses(config.dns_upstreams.clone())
        };
        let server = Server::bind(DnsConfig {
            zone: config.cluster_domain.clone(),
            listen: addresses.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect(),
            ttl: config.dns_ttl,
            upstreams,
            networks: networks.into_iter().collect(),
            node: Some(config.node_name.to_string()),
            ..DnsConfig::default()
        })?;
        let registry = prometheus::Registry::new();
        match server.register_metrics(&registry) {
            Ok(()) => {
                *self.metrics.write().unwrap_or_else(PoisonError::into_inner) = Some(registry);
            }
            Err(error) => error!(%error, "the DNS server's metrics are not served"),
        }
        let publisher = server.publisher();
        let (stop, stopped) = oneshot::channel();
        let task = self.runtime.spawn(async move {
            let shutdown = async {
                // An error means that the sender is gone, and with it everybody who could want an answer.
                let _ = stopped.await;
            };
            if let Err(error) = server.run(shutdown).await {
                error!(error = %Chain(&error), "the DNS server has stopped");
            }
        });
        info!(addresses = ?addresses, "serving DNS");
        Ok(Running { addresses, publisher, stop, task })
    }

    /// Ends the server, after it has answered what has arrived.
    pub fn stop(&mut self) {
        let Some(Running { stop, task, .. }) = self.running.take() else { return };
        // An error means that the server has ended by itself.
        let _ = stop.send(());
        if let Err(error) = self.runtime.block_on(task) {
            error!(%error, "the DNS server did not end well");
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::Object;

    use super::*;
    use crate::config::Settings;

    fn config(cluster_dns: &[&str]) -> Config {
        let addresses = cluster_dns.iter().map(|text| text.parse().unwrap()).collect();
        Config::new(Settings {
            node_name: Some("one".into()),
            manifests: Some("/m".into()),
            cluster_dns: Some(addresses),
            ..Settings::default()
        })
        .unwrap()
    }

    #[test]
    fn dns_has_the_addresses_of_the_configuration_and_of_its_service() {
        let config = config(&["10.96.0.10", "fd00::a"]);
        let mut snapshot = Snapshot::default();
        assert_eq!(addresses(&config, &snapshot).len(), 2);
        let mut service = default_service(&config).unwrap();
        assert_eq!(service.name.to_string(), "kube-system/kube-dns");
        assert!(service.is_proxied() && service.ports.iter().all(|port| port.port == 53));
        service.cluster_ips = vec!["10.96.0.11".parse().unwrap()];
        snapshot.apply(Object::Service(service), &mut Changes::default());
        let addresses: Vec<_> = addresses(&config, &snapshot).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.96.0.10", "10.96.0.11", "fd00::a"]);
    }

    #[test]
    fn without_an_address_there_is_nothing_to_stand_for_dns() {
        assert_eq!(default_service(&config(&[])), None);
        assert!(addresses(&config(&[]), &Snapshot::default()).is_empty());
    }
}
