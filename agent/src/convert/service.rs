//! Services.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Service as KubeService, ServicePort as KubePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use sluice_model::{
    IpFamily, LoadBalancerIngress, Service, ServiceKind, ServicePort, TargetPort, TrafficPolicy,
};

use super::{
    ConvertError, Problem,
    error::Subject,
    field::{address, addresses, check_label, network, object_name, port, protocol, without_zeroes},
};

/// The label that gives a service to another proxy (row 1 of the behaviour table).
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` where the manifest gives none: three hours.
const DEFAULT_AFFINITY: i32 = 10_800;

/// Converts a Service.
pub fn service(object: &KubeService) -> Result<Service, ConvertError> {
    let (subject, name) = object_name("Service", &object.metadata)?;
    check_label(&subject, "metadata.name", &name.name)?;
    let Some(spec) = &object.spec else { return Err(subject.error("spec", Problem::Missing)) };
    let kind = kind(&subject, spec)?;
    let (headless, cluster_ips) = cluster_ips(&subject, spec)?;
    let proxied = kind != ServiceKind::ExternalName;
    Ok(Service {
        kind,
        headless,
        cluster_ips: if proxied { cluster_ips } else { Vec::new() },
        external_name: external_name(&subject, spec, kind)?,
        ports: ports(&subject, spec.ports.as_deref().unwrap_or_default())?,
        selector: spec.selector.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().map(Arc::new),
        // kube-proxy passes over what is no address here, and the API server lets it through.
        external_ips: spec
            .external_ips
            .iter()
            .flatten()
            .filter_map(|text| without_zeroes(text).parse().ok())
            .collect(),
        load_balancer: load_balancer(&subject, object)?,
        load_balancer_names: load_balancer_names(object),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, text)| network(&subject, &format!("spec.loadBalancerSourceRanges[{i}]"), text))
            .collect::<Result<_, _>>()?,
        external_traffic_policy: policy(
            &subject,
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
        )?,
        internal_traffic_policy: policy(
            &subject,
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        )?,
        affinity: affinity(&subject, spec)?,
        publish_not_ready_addresses: spec.publish_not_ready_addresses.unwrap_or_default(),
        health_check_node_port: optional_port(
            &subject,
            "spec.healthCheckNodePort",
            spec.health_check_node_port,
        )?,
        other_proxy: object
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL)),
        name,
    })
}

/// The families that `spec.ipFamilies` asks for; `None` where it says nothing.
pub fn service_families(object: &KubeService) -> Option<Vec<IpFamily>> {
    let families = object.spec.as_ref()?.ip_families.as_ref()?;
    Some(
        families
            .iter()
            .filter_map(|text| match text.as_str() {
                "IPv4" => Some(IpFamily::V4),
                "IPv6" => Some(IpFamily::V6),
                _ => None,
            })
            .collect(),
    )
}

fn kind(subject: &Subject, spec: &ServiceSpec) -> Result<ServiceKind, ConvertError> {
    match spec.type_.as_deref() {
        None | Some("" | "ClusterIP") => Ok(ServiceKind::ClusterIp),
        Some("NodePort") => Ok(ServiceKind::NodePort),
        Some("LoadBalancer") => Ok(ServiceKind::LoadBalancer),
        Some("ExternalName") => Ok(ServiceKind::ExternalName),
        Some(other) => Err(subject.error(
            "spec.type",
            Problem::Choice {
                text: other.to_owned(),
                allowed: "ClusterIP, NodePort, LoadBalancer and ExternalName",
            },
        )),
    }
}

/// Whether the service is headless, and its cluster addresses.
fn cluster_ips(subject: &Subject, spec: &ServiceSpec) -> Result<(bool, Vec<IpAddr>), ConvertError> {
    let single = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
    let plural = spec.cluster_ips.as_deref().unwrap_or_default();
    if let (Some(single), Some(first)) = (single, plural.first())
        && single != first
    {
        return Err(subject.error(
            "spec.clusterIP",
            Problem::Contradiction { text: single.to_owned(), other: "spec.clusterIPs[0]" },
        ));
    }
    if single.or(plural.first().map(String::as_str)) == Some("None") {
        return Ok((true, Vec::new()));
    }
    let list = match (single, plural) {
        (Some(single), []) => vec![address(subject, "spec.clusterIP", single)?],
        (_, plural) => addresses(subject, "spec.clusterIPs", plural)?,
    };
    for (i, ip) in list.iter().enumerate() {
        if list[..i].iter().any(|before| before.is_ipv4() == ip.is_ipv4()) {
            let what = format!("an address of {ip}'s family");
            return Err(subject.error(format!("spec.clusterIPs[{i}]"), Problem::Duplicate(what)));
        }
    }
    Ok((false, list))
}

fn external_name(
    subject: &Subject,
    spec: &ServiceSpec,
    kind: ServiceKind,
) -> Result<Option<Arc<str>>, ConvertError> {
    if kind != ServiceKind::ExternalName {
        return Ok(None);
    }
    let text = spec.external_name.as_deref().unwrap_or_default();
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(subject.error("spec.externalName", Problem::Missing));
    }
    let ok = name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    if !ok {
        return Err(subject.error("spec.externalName", Problem::Name(text.to_owned())));
    }
    Ok(Some(name.into()))
}

fn ports(subject: &Subject, list: &[KubePort]) -> Result<Vec<ServicePort>, ConvertError> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(list.len());
    for (i, object) in list.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let name: Arc<str> = object.name.as_deref().unwrap_or_default().into();
        if name.is_empty() && list.len() > 1 {
            return Err(subject.error(field("name"), Problem::Missing));
        }
        let number = port(subject, &field("port"), object.port)?;
        let protocol = protocol(subject, &field("protocol"), object.protocol.as_deref())?;
        if ports.iter().any(|other| other.name == name) {
            return Err(subject.error(field("name"), Problem::Duplicate(format!("{name:?}"))));
        }
        if ports.iter().any(|other| other.port == number && other.protocol == protocol) {
            return Err(subject.error(field("port"), Problem::Duplicate(format!("{number}/{protocol}"))));
        }
        let target_port = match &object.target_port {
            None => TargetPort::Number(number),
            Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => {
                TargetPort::Number(port(subject, &field("targetPort"), *target)?)
            }
            Some(IntOrString::String(text)) if text.is_empty() => TargetPort::Number(number),
            Some(IntOrString::String(text)) => TargetPort::Name(text.as_str().into()),
        };
        ports.push(ServicePort {
            name,
            protocol,
            port: number,
            target_port,
            node_port: optional_port(subject, &field("nodePort"), object.node_port)?,
        });
    }
    Ok(ports)
}

/// A port for which 0 stands for none, as in the API.
fn optional_port(subject: &Subject, field: &str, number: Option<i32>) -> Result<Option<u16>, ConvertError> {
    number.filter(|number| *number != 0).map(|number| port(subject, field, number)).transpose()
}

fn ingress(object: &KubeService) -> &[k8s_openapi::api::core::v1::LoadBalancerIngress] {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_deref()).unwrap_or_default()
}

/// The names of entries that have no address.
fn load_balancer_names(object: &KubeService) -> Vec<Arc<str>> {
    let is_set = |text: &&String| !text.is_empty();
    let names = ingress(object).iter().filter(|entry| entry.ip.as_ref().filter(is_set).is_none());
    names
        .filter_map(|entry| entry.hostname.as_ref().filter(is_set))
        .map(|name| name.as_str().into())
        .collect()
}

fn load_balancer(subject: &Subject, object: &KubeService) -> Result<Vec<LoadBalancerIngress>, ConvertError> {
    let mut list = Vec::new();
    for (i, entry) in ingress(object).iter().enumerate() {
        let Some(text) = entry.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        list.push(LoadBalancerIngress {
            address: address(subject, &format!("status.loadBalancer.ingress[{i}].ip"), text)?,
            proxy_mode: entry.ip_mode.as_deref() == Some("Proxy"),
        });
    }
    Ok(list)
}

fn policy(subject: &Subject, field: &str, text: Option<&str>) -> Result<TrafficPolicy, ConvertError> {
    match text {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => {
            Err(subject
                .error(field, Problem::Choice { text: other.to_owned(), allowed: "Cluster and Local" }))
        }
    }
}

fn affinity(subject: &Subject, spec: &ServiceSpec) -> Result<Option<Duration>, ConvertError> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => {
            return Err(subject.error(
                "spec.sessionAffinity",
                Problem::Choice { text: other.to_owned(), allowed: "None and ClientIP" },
            ));
        }
    }
    let configured = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = configured.and_then(|config| config.timeout_seconds).unwrap_or(DEFAULT_AFFINITY);
    match u64::try_from(seconds) {
        Ok(value @ 1..=86_400) => Ok(Some(Duration::from_secs(value))),
        _ => {
            Err(subject
                .error("spec.sessionAffinityConfig.clientIP.timeoutSeconds", Problem::Seconds(seconds)))
        }
    }
}
