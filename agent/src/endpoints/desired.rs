//! The EndpointSlices that a service should have: pure, and what kube-controller-manager's EndpointSlice
//! controller would make of the same objects.
//!
//! Slices differ by family and by set of ports: a named target port may be another number in another pod.
//! There is no upper bound of endpoints for a slice, as nothing here travels through an API server.

use std::{collections::BTreeMap, sync::Arc};

use sluice_model::{
    Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, ObjectName, Pod, PortName, Protocol, Service,
    ServiceKind, ServicePort, TargetPort,
};

/// A port set, comparable.
type PortKey = Vec<(PortName, Protocol, u16)>;

/// Whether the service's selector selects these labels. A service without a selector selects nothing:
/// somebody else makes its endpoints.
pub fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    !service.selector.is_empty() && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The slices of `service`, in the order of their names. `families` is what `spec.ipFamilies` asks for, if
/// it does; `pods` are the pods of the service's namespace; `zone` tells the zone of a node.
pub fn desired<'a>(
    service: &Service,
    families: Option<&[IpFamily]>,
    pods: impl Iterator<Item = &'a Pod>,
    zone: impl Fn(&str) -> Option<Arc<str>>,
) -> Vec<EndpointSlice> {
    // The controller leaves ExternalName services alone even if they have a selector.
    if service.selector.is_empty() || service.kind == ServiceKind::ExternalName {
        return Vec::new();
    }
    let families = families_of(service, families);
    let mut groups: BTreeMap<(IpFamily, PortKey), Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.filter(|pod| selects(service, &pod.labels)) {
        let ports = port_key(service, pod);
        for &family in &families {
            if let Some(endpoint) = endpoint(service, pod, family, &zone) {
                groups.entry((family, ports.clone())).or_default().push(endpoint);
            }
        }
    }
    let mut numbers: BTreeMap<IpFamily, usize> = BTreeMap::new();
    groups
        .into_iter()
        .map(|((family, ports), endpoints)| {
            let number = numbers.entry(family).or_default();
            *number += 1;
            EndpointSlice {
                name: slice_name(&service.name, family, *number),
                service: Some(service.name.clone()),
                imported: None,
                headless: service.headless,
                family,
                ports: ports
                    .into_iter()
                    .map(|(name, protocol, port)| EndpointPort { name, protocol, port })
                    .collect(),
                endpoints,
                last_change: None,
            }
        })
        .collect()
}

fn slice_name(service: &ObjectName, family: IpFamily, number: usize) -> ObjectName {
    let family = match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    };
    ObjectName::new(service.namespace.clone(), format!("{}-sluice-{family}-{number}", service.name))
}

/// The families of the cluster addresses; for a headless service what its manifest asks for, or both.
fn families_of(service: &Service, asked: Option<&[IpFamily]>) -> Vec<IpFamily> {
    if !service.cluster_ips.is_empty() {
        return service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
    }
    match asked {
        Some(asked) if !asked.is_empty() => asked.to_vec(),
        _ => IpFamily::ALL.to_vec(),
    }
}

/// The numbers of the service's ports in this pod. A named target port that the pod does not have is left out.
fn port_key(service: &Service, pod: &Pod) -> PortKey {
    let resolve = |port: &ServicePort| match &port.target_port {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod
            .ports
            .iter()
            .find(|candidate| candidate.name == *name && candidate.protocol == port.protocol)
            .map(|candidate| candidate.port),
    };
    service.ports.iter().filter_map(|port| Some((port.name.clone(), port.protocol, resolve(port)?))).collect()
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    family: IpFamily,
    zone: &impl Fn(&str) -> Option<Arc<str>>,
) -> Option<Endpoint> {
    let addresses: Vec<_> = pod.addresses.iter().copied().filter(|ip| IpFamily::of(*ip) == family).collect();
    if addresses.is_empty() {
        return None;
    }
    let published_here = pod.subdomain.as_ref() == Some(&service.name.name);
    Some(Endpoint {
        addresses,
        ready: service.publish_not_ready_addresses || (pod.ready && !pod.terminating),
        serving: pod.ready,
        terminating: pod.terminating,
        hostname: pod.hostname.clone().filter(|_| published_here),
        node: pod.node.clone(),
        zone: pod.node.as_deref().and_then(zone),
        hints: Hints::default(),
        pod: Some(pod.name.clone()),
    })
}
