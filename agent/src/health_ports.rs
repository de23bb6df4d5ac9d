//! The servers behind `healthCheckNodePort`: a load balancer asks each node whether it has endpoints of a service
//! (row 37 of the behaviour table). What they say is [`sluice_proxy::health_port`]'s business; here are sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use sluice_ebpf_common::NODE_ADDRESS_PORTS;
use sluice_model::{Changes, IpFamily, ObjectName, Snapshot};
use sluice_proxy::{HealthPort, health_port};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::{debug, info};

use crate::{config::NodePortAddress, health::Health};

/// The header by which a load balancer weighs this node.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// A port that cannot be served; it is tried again with every pass.
#[derive(Debug, thiserror::Error)]
#[error("{service}: cannot serve healthCheckNodePort {port} on {address}: {source}")]
pub struct HealthPortError {
    /// The service.
    pub service: ObjectName,
    /// The port.
    pub port: u16,
    /// Where.
    pub address: IpAddr,
    /// Why.
    pub source: io::Error,
}

/// Where the ports are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On all addresses.
    Everywhere,
    /// On these.
    Addresses(BTreeSet<IpAddr>),
}

impl Place {
    /// Where node ports are served (row 11 of the behaviour table), as far as the node holds the addresses.
    pub fn of(
        wanted: &[NodePortAddress],
        addresses: &BTreeMap<IpAddr, u32>,
        held: impl Iterator<Item = IpAddr>,
    ) -> Self {
        if wanted.contains(&NodePortAddress::All) {
            return Self::Everywhere;
        }
        let held: BTreeSet<IpAddr> = held.collect();
        // An address of the link alone is not one without its device.
        let is_link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let serving = addresses.iter().filter(|(_, flags)| *flags & NODE_ADDRESS_PORTS != 0);
        Self::Addresses(
            serving.map(|(ip, _)| *ip).filter(|ip| held.contains(ip) && !is_link_local(ip)).collect(),
        )
    }
}

/// The servers of this node.
pub struct HealthPorts {
    runtime: Handle,
    health: Arc<Health>,
    servers: BTreeMap<ObjectName, Server>,
    place: Place,
    /// Services with a port that could not be had.
    failed: BTreeSet<ObjectName>,
}

/// A service's.
struct Server {
    port: u16,
    said: Arc<Said>,
    /// Each ends when its sender is dropped.
    listeners: BTreeMap<IpAddr, oneshot::Sender<()>>,
}

/// What the handlers of one service know.
struct Said {
    service: ObjectName,
    health: Arc<Health>,
    local_endpoints: RwLock<BTreeMap<IpFamily, usize>>,
}

impl HealthPorts {
    /// Serves nothing yet.
    pub fn new(runtime: Handle, health: Arc<Health>) -> Self {
        let (servers, failed) = (BTreeMap::new(), BTreeSet::new());
        Self { runtime, health, servers, place: Place::Everywhere, failed }
    }

    /// Serves what the changed services ask for, and what could not be served before.
    pub fn sync(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        node: &str,
        place: Place,
    ) -> Vec<HealthPortError> {
        let mut names = std::mem::take(&mut self.failed);
        if changes.everything || self.place != place {
            names.extend(snapshot.services.keys().chain(self.servers.keys()).cloned());
        } else {
            names.extend(changes.services.iter().cloned());
        }
        self.place = place;
        let wanted: BTreeMap<ObjectName, Option<HealthPort>> =
            names.into_iter().map(|name| (name.clone(), health_port(snapshot, &name, node))).collect();
        // What is given up goes first: another service may have got its port.
        for (name, wanted) in &wanted {
            let port = wanted.as_ref().map(|wanted| wanted.port);
            if let Some(server) = self.servers.get(name)
                && port != Some(server.port)
            {
                info!(service = %name, port = server.port, "health checks are no longer answered");
                self.servers.remove(name);
            }
        }
        let mut errors = Vec::new();
        for (name, wanted) in wanted {
            if let Some(wanted) = wanted {
                self.serve(&name, wanted, &mut errors);
            }
        }
        self.failed = errors.iter().map(|error| error.service.clone()).collect();
        errors
    }

    fn serve(&mut self, name: &ObjectName, wanted: HealthPort, errors: &mut Vec<HealthPortError>) {
        let port = wanted.port;
        let health = &self.health;
        let server = self.servers.entry(name.clone()).or_insert_with(|| Server {
            port,
            said: Arc::new(Said {
                service: name.clone(),
                health: health.clone(),
                local_endpoints: RwLock::default(),
            }),
            listeners: BTreeMap::new(),
        });
        *server.said.local_endpoints.write().unwrap_or_else(PoisonError::into_inner) = wanted.local_endpoints;
        let addresses = match &self.place {
            Place::Everywhere => BTreeSet::from([IpAddr::V6(Ipv6Addr::UNSPECIFIED)]),
            Place::Addresses(addresses) => addresses.clone(),
        };
        // A link that ended by itself (its task is gone) is made anew.
        server.listeners.retain(|address, stop| addresses.contains(address) && !stop.is_closed());
        for address in addresses {
            if server.listeners.contains_key(&address) {
                continue;
            }
            match listen(&self.runtime, SocketAddr::new(address, port), &server.said) {
                Ok(stop) => {
                    info!(service = %name, %address, port, "health checks are answered");
                    server.listeners.insert(address, stop);
                }
                Err(source) => {
                    errors.push(HealthPortError { service: name.clone(), port, address, source });
                }
            }
        }
    }
}

/// Starts to serve. The wildcard of IPv6 takes both families, where the node has both.
fn listen(runtime: &Handle, address: SocketAddr, said: &Arc<Said>) -> io::Result<oneshot::Sender<()>> {
    let socket = match TcpListener::bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))?
        }
        other => other?,
    };
    socket.set_nonblocking(true)?;
    let _inside = runtime.enter();
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Router::new().fallback(answer).with_state(said.clone());
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    let ended = async {
        // Nothing is ever sent: the other side is dropped.
        let _ = stopped.await;
    };
    runtime.spawn(async move {
        if let Err(error) = axum::serve(socket, routes).with_graceful_shutdown(ended).await {
            debug!(%error, %address, "a server of health checks has stopped");
        }
    });
    Ok(stop)
}

async fn answer(State(said): State<Arc<Said>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    let counts = said.local_endpoints.read().unwrap_or_else(PoisonError::into_inner).clone();
    let count = count(&counts, IpFamily::of(peer.ip().to_canonical()));
    let healthy = said.health.is_live(Instant::now());
    let status = if count > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, count.to_string()),
    ];
    (status, headers, body(&said.service, count, healthy)).into_response()
}

/// The endpoints in the family that is asked in, or in the only one that the service has.
fn count(counts: &BTreeMap<IpFamily, usize>, family: IpFamily) -> usize {
    counts.get(&family).or_else(|| counts.values().next()).copied().unwrap_or(0)
}

/// To the byte what kube-proxy says. Names are of letters, digits, dashes and dots.
fn body(service: &ObjectName, local_endpoints: usize, healthy: bool) -> String {
    let (namespace, name) = (&service.namespace, &service.name);
    format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use sluice_model::{Object, Service, ServiceKind, TrafficPolicy};

    use super::*;

    #[test]
    fn the_answer_is_kube_proxys_to_the_byte() {
        assert_eq!(
            body(&ObjectName::new("shop", "web"), 2, true),
            "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\
             \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
        );
    }

    #[test]
    fn a_family_that_the_service_lacks_is_told_of_the_other() {
        let single = [(IpFamily::V6, 3)].into();
        assert_eq!(count(&single, IpFamily::V4), 3);
        let dual = [(IpFamily::V4, 0), (IpFamily::V6, 3)].into();
        assert_eq!((count(&dual, IpFamily::V4), count(&dual, IpFamily::V6)), (0, 3));
    }

    #[test]
    fn health_is_told_where_node_ports_are_served() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = [
            (ip("192.0.2.1"), NODE_ADDRESS_PORTS),
            (ip("192.0.2.2"), 0),
            (ip("203.0.113.1"), NODE_ADDRESS_PORTS),
            (ip("fe80::1"), NODE_ADDRESS_PORTS),
        ];
        let held = || ["192.0.2.1", "192.0.2.2", "fe80::1"].map(ip).into_iter();
        let place = |wanted| Place::of(&[wanted], &addresses.into(), held());
        assert_eq!(place(NodePortAddress::Primary), Place::Addresses([ip("192.0.2.1")].into()));
        assert_eq!(place(NodePortAddress::All), Place::Everywhere);
    }

    fn snapshot(port: u16) -> Snapshot {
        let service = Service {
            kind: ServiceKind::LoadBalancer,
            cluster_ips: vec!["10.96.0.1".parse().unwrap()],
            external_traffic_policy: TrafficPolicy::Local,
            health_check_node_port: Some(port),
            ..Service::new(ObjectName::new("shop", "web"))
        };
        let mut snapshot = Snapshot::default();
        snapshot.apply(Object::Service(service), &mut Changes::default());
        snapshot
    }

    #[test]
    fn a_port_that_is_taken_is_told_and_had_once_it_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let health = Arc::new(Health::new(Duration::from_secs(30)));
        health.set_ready();
        health.updated(IpFamily::V4, Timestamp::now());
        let mut ports = HealthPorts::new(runtime.handle().clone(), health);
        let place = Place::Addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)].into());
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = holder.local_addr().unwrap().port();
        let snapshot = snapshot(taken);
        let mut sync = |changes| {
            ports
                .sync(&snapshot, &changes, "here", place.clone())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let [said] = &sync(Changes::everything())[..] else { panic!("one error") };
        assert!(
            said.starts_with(&format!("shop/web: cannot serve healthCheckNodePort {taken} on 127.0.0.1: ")),
            "{said}"
        );
        drop(holder);
        assert_eq!(sync(Changes::default()), [""; 0], "tried again without a change");
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).is_err(), "it is served");
    }
}
