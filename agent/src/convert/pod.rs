//! Pods.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod as KubePod, PodSpec, PodStatus};
use sluice_model::{ContainerPort, ObjectName, Pod};

use super::{
    ConvertError,
    error::Subject,
    field::{address, check_label, object_name, port, protocol},
};

/// What a pod without a condition Ready is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not ready: where a kubelet reports conditions.
    Reported,
    /// Ready: in folder mode, where nobody reports any.
    Assumed,
}

/// Converts a Pod.
pub fn pod(object: &KubePod, readiness: Readiness) -> Result<Pod, ConvertError> {
    let (subject, name) = object_name("Pod", &object.metadata)?;
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    // A pod that has ended keeps its status for a while, but its addresses may already be someone else's.
    let ended = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    Ok(Pod {
        addresses: if ended { Vec::new() } else { addresses(&subject, status)? },
        node: spec.and_then(|s| s.node_name.as_deref()).filter(|node| !node.is_empty()).map(Into::into),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        hostname: hostname(&subject, &name, spec)?,
        subdomain: subdomain(&subject, spec)?,
        ports: ports(&subject, spec)?,
        host_network: spec.and_then(|s| s.host_network).unwrap_or_default(),
        own_search: spec.is_some_and(has_own_search),
        ready: !ended && ready(status, readiness),
        terminating: object.metadata.deletion_timestamp.is_some(),
        name,
    })
}

fn has_own_search(spec: &PodSpec) -> bool {
    let is_of_cluster = spec.dns_policy.as_deref().is_none_or(|policy| policy.starts_with("ClusterFirst"));
    let searches = spec.dns_config.as_ref().and_then(|config| config.searches.as_deref());
    !is_of_cluster || searches.is_some_and(|searches| !searches.is_empty())
}

fn addresses(subject: &Subject, status: Option<&PodStatus>) -> Result<Vec<IpAddr>, ConvertError> {
    let Some(status) = status else { return Ok(Vec::new()) };
    let plural = status.pod_ips.as_deref().unwrap_or_default();
    if plural.is_empty() {
        let single = status.pod_ip.as_deref().filter(|text| !text.is_empty());
        return single.into_iter().map(|text| address(subject, "status.podIP", text)).collect();
    }
    plural
        .iter()
        .enumerate()
        .map(|(i, entry)| address(subject, &format!("status.podIPs[{i}].ip"), &entry.ip))
        .collect()
}

fn hostname(
    subject: &Subject,
    name: &ObjectName,
    spec: Option<&PodSpec>,
) -> Result<Option<Arc<str>>, ConvertError> {
    let given = spec.and_then(|s| s.hostname.as_deref()).filter(|text| !text.is_empty());
    if let Some(hostname) = given {
        check_label(subject, "spec.hostname", hostname)?;
        return Ok(Some(hostname.into()));
    }
    let has_subdomain = spec.and_then(|s| s.subdomain.as_deref()).is_some_and(|text| !text.is_empty());
    // A pod's name may have dots or be too long for a label; then it has no host name of its own.
    let is_label = name.name.len() <= 63 && !name.name.contains('.');
    Ok((has_subdomain && is_label).then(|| name.name.clone()))
}

fn subdomain(subject: &Subject, spec: Option<&PodSpec>) -> Result<Option<Arc<str>>, ConvertError> {
    let Some(text) = spec.and_then(|s| s.subdomain.as_deref()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    check_label(subject, "spec.subdomain", text)?;
    Ok(Some(text.into()))
}

/// The ports of all containers that run as long as the pod does: the containers, and the init containers
/// that are restarted for ever (sidecars).
fn ports(subject: &Subject, spec: Option<&PodSpec>) -> Result<Vec<ContainerPort>, ConvertError> {
    let Some(spec) = spec else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars.filter(|(_, c)| c.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().enumerate().map(|(i, c)| (format!("spec.containers[{i}]"), c));
    let all = containers.chain(sidecars.map(|(i, c)| (format!("spec.initContainers[{i}]"), c)));
    for (field, container) in all {
        container_ports(subject, &field, container, &mut list)?;
    }
    Ok(list)
}

fn container_ports(
    subject: &Subject,
    field: &str,
    container: &Container,
    list: &mut Vec<ContainerPort>,
) -> Result<(), ConvertError> {
    for (i, entry) in container.ports.iter().flatten().enumerate() {
        list.push(ContainerPort {
            name: entry.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(subject, &format!("{field}.ports[{i}].protocol"), entry.protocol.as_deref())?,
            port: port(subject, &format!("{field}.ports[{i}].containerPort"), entry.container_port)?,
        });
    }
    Ok(())
}

fn ready(status: Option<&PodStatus>, readiness: Readiness) -> bool {
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) => condition.status == "True",
        None => readiness == Readiness::Assumed,
    }
}
