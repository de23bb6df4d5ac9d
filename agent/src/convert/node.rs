//! Nodes, namespaces and ServiceCIDRs.

use k8s_openapi::api::{
    core::v1::{Namespace as KubeNamespace, Node as KubeNode},
    networking::v1::ServiceCIDR as KubeServiceCidr,
};
use sluice_model::{Namespace, Node, NodeAddress, NodeAddressKind, ServiceCidr};

use super::{
    ConvertError,
    field::{address, cluster_name, network},
};

/// The label that holds a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The taint of a node that the cluster autoscaler is about to remove (row 38 of the behaviour table).
const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Converts a Node.
pub fn node(object: &KubeNode) -> Result<Node, ConvertError> {
    let (subject, name) = cluster_name("Node", &object.metadata)?;
    let spec = object.spec.as_ref();
    let mut addresses = Vec::new();
    let listed = object.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    for (i, entry) in listed.iter().enumerate() {
        let kind = match entry.type_.as_str() {
            "InternalIP" => NodeAddressKind::Internal,
            "ExternalIP" => NodeAddressKind::External,
            _ => continue,
        };
        let address = address(&subject, &format!("status.addresses[{i}].address"), &entry.address)?;
        addresses.push(NodeAddress { kind, address });
    }
    let plural = spec.and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
    let single = spec.and_then(|s| s.pod_cidr.as_deref()).filter(|text| !text.is_empty());
    let pod_cidrs = match (plural, single) {
        ([], Some(text)) => vec![network(&subject, "spec.podCIDR", text)?],
        (plural, _) => plural
            .iter()
            .enumerate()
            .map(|(i, text)| network(&subject, &format!("spec.podCIDRs[{i}]"), text))
            .collect::<Result<_, _>>()?,
    };
    let tainted = spec.is_some_and(|s| s.taints.iter().flatten().any(|taint| taint.key == AUTOSCALER_TAINT));
    let zone = object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
    Ok(Node {
        name: name.into(),
        addresses,
        pod_cidrs,
        zone: zone.filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into()),
        draining: tainted || object.metadata.deletion_timestamp.is_some(),
    })
}

/// Converts a Namespace.
pub fn namespace(object: &KubeNamespace) -> Result<Namespace, ConvertError> {
    let (_, name) = cluster_name("Namespace", &object.metadata)?;
    Ok(Namespace { name: name.into(), labels: object.metadata.labels.clone().unwrap_or_default() })
}

/// Converts a ServiceCIDR.
pub fn service_cidr(object: &KubeServiceCidr) -> Result<ServiceCidr, ConvertError> {
    let (subject, name) = cluster_name("ServiceCIDR", &object.metadata)?;
    let listed = object.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    let cidrs = listed
        .iter()
        .enumerate()
        .map(|(i, text)| network(&subject, &format!("spec.cidrs[{i}]"), text))
        .collect::<Result<_, _>>()?;
    Ok(ServiceCidr { name: name.into(), cidrs })
}
