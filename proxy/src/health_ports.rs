//! Which ports tell a load balancer whether this node has endpoints of a service (row 37 of the behaviour table):
//! those of services of type LoadBalancer whose external traffic policy is Local.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluice_model::{IpFamily, ObjectName, Service, ServiceKind, Snapshot, TrafficPolicy};

/// What one service's port says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// `spec.healthCheckNodePort`, host byte order.
    pub port: u16,
    /// How many addresses of ready endpoints are on this node, in each family in which the service is served.
    pub local_endpoints: BTreeMap<IpFamily, usize>,
}

/// The port of a service, if it wants one.
pub fn health_port(snapshot: &Snapshot, name: &ObjectName, node: &str) -> Option<HealthPort> {
    let service = snapshot.services.get(name).filter(|service| service.is_proxied())?;
    let port = asked_for(service)?;
    let families: BTreeSet<IpFamily> = service.cluster_ips.iter().copied().map(IpFamily::of).collect();
    let count = |family| (family, local_addresses(snapshot, name, family, node).len());
    Some(HealthPort { port, local_endpoints: families.into_iter().map(count).collect() })
}

fn asked_for(service: &Service) -> Option<u16> {
    let wanted =
        service.kind == ServiceKind::LoadBalancer && service.external_traffic_policy == TrafficPolicy::Local;
    service.health_check_node_port.filter(|_| wanted)
}

/// The addresses on this node that take new connections. One that is in two slices, or serves several ports, counts
/// once.
fn local_addresses(snapshot: &Snapshot, name: &ObjectName, family: IpFamily, node: &str) -> BTreeSet<IpAddr> {
    let slices = snapshot
        .slices_of(name)
        .filter(|slice| slice.family == family && !slice.headless && !slice.ports.is_empty());
    slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node))
        .filter_map(|endpoint| endpoint.addresses.first().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use sluice_model::{Changes, Endpoint, EndpointPort, EndpointSlice, Hints, Object, Protocol};

    use super::*;

    fn name() -> ObjectName {
        ObjectName::new("shop", "web")
    }

    fn service() -> Service {
        Service {
            kind: ServiceKind::LoadBalancer,
            cluster_ips: vec!["10.96.0.1".parse().unwrap()],
            external_traffic_policy: TrafficPolicy::Local,
            health_check_node_port: Some(32000),
            ..Service::new(name())
        }
    }

    fn endpoint(address: &str, node: &str, ready: bool) -> Endpoint {
        Endpoint {
            addresses: vec![address.parse().unwrap()],
            ready,
            serving: true,
            terminating: !ready,
            hostname: None,
            node: Some(node.into()),
            zone: None,
            hints: Hints::default(),
            pod: None,
        }
    }

    fn slice(slice: &str, family: IpFamily, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let port = |name: &str, port| EndpointPort { name: name.into(), protocol: Protocol::Tcp, port };
        EndpointSlice {
            name: ObjectName::new("shop", slice),
            service: Some(name()),
            imported: None,
            family,
            ports: vec![port("a", 80), port("b", 81)],
            endpoints,
            last_change: None,
            headless: false,
        }
    }

    fn asked(service: Service, slices: Vec<EndpointSlice>) -> Option<HealthPort> {
        let mut snapshot = Snapshot::default();
        snapshot.apply(Object::Service(service), &mut Changes::default());
        for slice in slices {
            snapshot.apply(Object::EndpointSlice(slice), &mut Changes::default());
        }
        health_port(&snapshot, &name(), "here")
    }

    #[test]
    fn only_load_balancers_with_the_policy_local_have_a_port() {
        let port = |service| asked(service, Vec::new()).map(|port| port.port);
        assert_eq!(port(service()), Some(32000));
        assert_eq!(port(Service { kind: ServiceKind::NodePort, ..service() }), None);
        assert_eq!(port(Service { external_traffic_policy: TrafficPolicy::Cluster, ..service() }), None);
        assert_eq!(port(Service { health_check_node_port: None, ..service() }), None);
        assert_eq!(port(Service { other_proxy: true, ..service() }), None);
        assert_eq!(port(Service { cluster_ips: Vec::new(), headless: true, ..service() }), None);
    }

    #[test]
    fn ready_addresses_of_this_node_count_once_in_their_family() {
        let both = vec!["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()];
        let slices = vec![
            slice(
                "one",
                IpFamily::V4,
                vec![
                    endpoint("10.1.0.1", "here", true),
                    endpoint("10.1.0.2", "there", true),
                    endpoint("10.1.0.3", "here", false),
                    endpoint("10.1.0.4", "here", true),
                ],
            ),
            slice("two", IpFamily::V4, vec![endpoint("10.1.0.1", "here", true)]),
            slice("three", IpFamily::V6, vec![endpoint("fd00::1", "here", true)]),
        ];
        let port = asked(Service { cluster_ips: both, ..service() }, slices.clone()).unwrap();
        assert_eq!(port.local_endpoints, [(IpFamily::V4, 2), (IpFamily::V6, 1)].into());
        let single = asked(service(), slices).unwrap();
        assert_eq!(single.local_endpoints, [(IpFamily::V4, 2)].into());
    }

    #[test]
    fn a_slice_without_ports_has_no_endpoints() {
        let mut empty = slice("one", IpFamily::V4, vec![endpoint("10.1.0.1", "here", true)]);
        empty.ports.clear();
        assert_eq!(asked(service(), vec![empty]).unwrap().local_endpoints, [(IpFamily::V4, 0)].into());
    }
}
