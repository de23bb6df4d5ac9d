//! EndpointSlices.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use k8s_openapi::api::discovery::v1::{Endpoint as KubeEndpoint, EndpointSlice as KubeSlice};
use sluice_model::{Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, ObjectName};

use super::{
    ConvertError, Problem,
    error::Subject,
    field::{address, object_name, port, protocol},
    import::imported,
};

/// The label that says whose endpoints a slice holds.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label of slices that are none of a proxy's business (row 1 of the behaviour table).
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// The annotation that says when the change that led to this slice happened (row 42 of the behaviour table).
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Converts an EndpointSlice; `None` for those that belong neither to a service nor to an import (no such label), or
/// that hold host names instead of addresses (`addressType: FQDN`).
pub fn slice(object: &KubeSlice) -> Result<Option<EndpointSlice>, ConvertError> {
    let (subject, name) = object_name("EndpointSlice", &object.metadata)?;
    let label = |label| object.metadata.labels.as_ref().and_then(|labels| labels.get(label));
    let service = label(SERVICE_LABEL).filter(|service| !service.is_empty());
    let imported = imported(&object.metadata, &name.namespace);
    if service.is_none() && imported.is_none() {
        return Ok(None);
    }
    let family = match object.address_type.as_str() {
        "IPv4" => IpFamily::V4,
        "IPv6" => IpFamily::V6,
        "FQDN" => return Ok(None),
        "" => return Err(subject.error("addressType", Problem::Missing)),
        other => {
            let problem = Problem::Choice { text: other.to_owned(), allowed: "IPv4, IPv6 and FQDN" };
            return Err(subject.error("addressType", problem));
        }
    };
    Ok(Some(EndpointSlice {
        service: service.map(|service| ObjectName::new(name.namespace.clone(), service.as_str())),
        imported,
        headless: label(HEADLESS_LABEL).is_some(),
        family,
        ports: ports(&subject, object)?,
        endpoints: object
            .endpoints
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, entry)| endpoint(&subject, &format!("endpoints[{i}]"), &name, family, entry))
            .collect::<Result<_, _>>()?,
        last_change: last_change(object),
        name,
    }))
}

fn ports(subject: &Subject, object: &KubeSlice) -> Result<Vec<EndpointPort>, ConvertError> {
    let mut list = Vec::new();
    for (i, entry) in object.ports.iter().flatten().enumerate() {
        // A port without a number stands for all ports; kube-proxy passes over it.
        let Some(number) = entry.port.filter(|number| *number != 0) else { continue };
        list.push(EndpointPort {
            name: entry.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(subject, &format!("ports[{i}].protocol"), entry.protocol.as_deref())?,
            port: port(subject, &format!("ports[{i}].port"), number)?,
        });
    }
    Ok(list)
}

fn endpoint(
    subject: &Subject,
    field: &str,
    slice: &ObjectName,
    family: IpFamily,
    entry: &KubeEndpoint,
) -> Result<Endpoint, ConvertError> {
    if entry.addresses.is_empty() {
        return Err(subject.error(format!("{field}.addresses"), Problem::Missing));
    }
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(entry.addresses.len());
    for (i, text) in entry.addresses.iter().enumerate() {
        let field = format!("{field}.addresses[{i}]");
        let ip = address(subject, &field, text)?;
        if IpFamily::of(ip) != family {
            return Err(subject.error(field, Problem::Family(ip)));
        }
        addresses.push(ip);
    }
    let conditions = entry.conditions.as_ref();
    let target = entry.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(Endpoint {
        addresses,
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        hostname: text(entry.hostname.as_deref()),
        node: text(entry.node_name.as_deref()),
        zone: text(entry.zone.as_deref()),
        hints: hints(entry),
        pod: target.and_then(|target| {
            let namespace = target.namespace.as_deref().unwrap_or(&slice.namespace);
            target.name.as_deref().map(|name| ObjectName::new(namespace, name))
        }),
    })
}

fn text(value: Option<&str>) -> Option<Arc<str>> {
    value.filter(|value| !value.is_empty()).map(Arc::from)
}

fn hints(entry: &KubeEndpoint) -> Hints {
    let Some(hints) = &entry.hints else { return Hints::default() };
    Hints {
        zones: hints.for_zones.iter().flatten().map(|zone| zone.name.as_str().into()).collect(),
        nodes: hints.for_nodes.iter().flatten().map(|node| node.name.as_str().into()).collect(),
    }
}

/// A stamp that does not parse is left out: it serves a metric only.
fn last_change(object: &KubeSlice) -> Option<SystemTime> {
    let stamp: jiff::Timestamp =
        object.metadata.annotations.as_ref()?.get(TRIGGER_ANNOTATION)?.parse().ok()?;
    Some(stamp.into())
}
