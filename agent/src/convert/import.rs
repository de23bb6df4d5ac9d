//! ServiceImports (KEP-1645): services of a set of clusters. `k8s-openapi` does not have them, so what is read of them is said
//! here; versions v1alpha1 and v1beta1 have it alike.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use sluice_model::{EndpointPort, Imported, ObjectName, ServiceImport};

use super::{
    ConvertError, Problem,
    error::Subject,
    field::{addresses, check_label, object_name, port, protocol},
};

/// The label that says of which import a slice holds endpoints.
const SERVICE_LABEL: &str = "multicluster.kubernetes.io/service-name";
/// The label that says in which cluster they are.
const CLUSTER_LABEL: &str = "multicluster.kubernetes.io/source-cluster";

/// A ServiceImport as the API has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct KubeImport {
    metadata: ObjectMeta,
    spec: Option<ImportSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ImportSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    ips: Option<Vec<String>>,
    ports: Option<Vec<ImportPort>>,
}

#[derive(Debug, Deserialize)]
struct ImportPort {
    name: Option<String>,
    protocol: Option<String>,
    port: i32,
}

/// Converts a ServiceImport.
pub fn import(object: &KubeImport) -> Result<ServiceImport, ConvertError> {
    let (subject, name) = object_name("ServiceImport", &object.metadata)?;
    check_label(&subject, "metadata.name", &name.name)?;
    let Some(spec) = &object.spec else { return Err(subject.error("spec", Problem::Missing)) };
    let headless = match spec.kind.as_deref() {
        Some("ClusterSetIP") => false,
        Some("Headless") => true,
        None | Some("") => return Err(subject.error("spec.type", Problem::Missing)),
        Some(other) => {
            let problem = Problem::Choice { text: other.to_owned(), allowed: "ClusterSetIP and Headless" };
            return Err(subject.error("spec.type", problem));
        }
    };
    let ips = addresses(&subject, "spec.ips", spec.ips.as_deref().unwrap_or_default())?;
    Ok(ServiceImport {
        headless,
        ips: if headless { Vec::new() } else { ips },
        ports: ports(&subject, spec.ports.as_deref().unwrap_or_default())?,
        labels: object.metadata.labels.clone().map(Arc::new),
        name,
    })
}

fn ports(subject: &Subject, entries: &[ImportPort]) -> Result<Vec<EndpointPort>, ConvertError> {
    let entries = entries.iter().enumerate().map(|(i, entry)| {
        Ok(EndpointPort {
            name: entry.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(subject, &format!("spec.ports[{i}].protocol"), entry.protocol.as_deref())?,
            port: port(subject, &format!("spec.ports[{i}].port"), entry.port)?,
        })
    });
    entries.collect()
}

/// What the labels of a slice say of an import.
pub(super) fn imported(metadata: &ObjectMeta, namespace: &Arc<str>) -> Option<Box<Imported>> {
    let label = |label| metadata.labels.as_ref()?.get(label).filter(|text| !text.is_empty());
    let service = ObjectName::new(namespace.clone(), label(SERVICE_LABEL)?.as_str());
    let cluster = label(CLUSTER_LABEL).map(String::as_str).unwrap_or_default().into();
    Some(Box::new(Imported { service, cluster }))
}
