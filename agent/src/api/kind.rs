//! The kinds of objects that are watched: where the API has them, and what becomes of one.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
    serde::de::DeserializeOwned,
};
use serde::Deserialize;
use sluice_model::{self as model, Object, ObjectKey, ObjectName};

use crate::convert::{self, ConvertError, KubeImport, Readiness};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    Namespace,
    Pod,
    ServiceImport,
}

/// What names an object, read without reading the rest of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Identity {
    metadata: IdentityMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct IdentityMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
}

impl Identity {
    /// The version of the collection that the object came with.
    pub fn version(&mut self) -> Option<String> {
        self.metadata.resource_version.take()
    }
}

/// An object that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A field is of another form than the API says.
    #[error("{object}: {field}: {message}")]
    Field {
        /// Kind and name.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// An object that cannot be right.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Node,
        Self::ServiceCidr,
        Self::Namespace,
        Self::Pod,
        Self::ServiceImport,
    ];

    /// The name in metrics and logs: the resource's, as in the API's paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Node => "nodes",
            Self::ServiceCidr => "servicecidrs",
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
            Self::ServiceImport => "serviceimports",
        }
    }

    /// The paths of the collection, over all namespaces: one for each version that can be read, the newest first.
    pub fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Service => &["/api/v1/services"],
            Self::EndpointSlice => &["/apis/discovery.k8s.io/v1/endpointslices"],
            Self::Node => &["/api/v1/nodes"],
            Self::ServiceCidr => &["/apis/networking.k8s.io/v1/servicecidrs"],
            Self::Namespace => &["/api/v1/namespaces"],
            Self::Pod => &["/api/v1/pods"],
            Self::ServiceImport => &[
                "/apis/multicluster.x-k8s.io/v1beta1/serviceimports",
                "/apis/multicluster.x-k8s.io/v1alpha1/serviceimports",
            ],
        }
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io",
            Self::ServiceCidr => "networking.k8s.io",
            Self::ServiceImport => "multicluster.x-k8s.io",
            Self::Service | Self::Node | Self::Namespace | Self::Pod => "",
        }
    }

    /// The lists in such an object that nobody here reads: who has set which field, a node's images, and, but for pods,
    /// conditions. These are read no more for what may be amiss with them: the API server takes a service's
    /// condition without a time, which `k8s-openapi` does not.
    pub(super) fn unread(self) -> &'static [&'static [u8]] {
        const LISTS: [&[u8]; 3] = [br#""managedFields":["#, br#""images":["#, br#""conditions":["#];
        match self {
            Self::Pod => &LISTS[..2],
            _ => &LISTS,
        }
    }

    /// What becomes of a node that is not shown these objects; `None` where nothing can be done without them.
    pub fn without(self) -> Option<&'static str> {
        match self {
            // The API has them since 1.33 only.
            Self::ServiceCidr => Some("serviceCIDRs must name the networks of services"),
            Self::Namespace => Some("names in namespaces without services do not exist"),
            Self::Pod => Some("search paths are not walked for pods, and pods have no verified names"),
            Self::ServiceImport => Some("imported services have no names"),
            Self::Service | Self::EndpointSlice | Self::Node => None,
        }
    }

    /// Whether anybody may give the API this kind, or take it away, at any time (a CustomResourceDefinition).
    pub(super) fn is_custom(self) -> bool {
        matches!(self, Self::ServiceImport)
    }

    fn title(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::ServiceImport => "ServiceImport",
        }
    }

    /// The key of an object with this identity; `None` if it has no name.
    pub fn key(self, identity: &Identity) -> Option<ObjectKey> {
        let name = identity.metadata.name.as_deref()?;
        let object = || ObjectName::new(identity.metadata.namespace.as_deref().unwrap_or("default"), name);
        Some(match self {
            Self::Service => ObjectKey::Service(object()),
            Self::EndpointSlice => ObjectKey::EndpointSlice(object()),
            Self::Pod => ObjectKey::Pod(object()),
            Self::ServiceImport => ObjectKey::ServiceImport(object()),
            Self::Node => ObjectKey::Node(name.into()),
            Self::ServiceCidr => ObjectKey::ServiceCidr(name.into()),
            Self::Namespace => ObjectKey::Namespace(name.into()),
        })
    }

    /// Kind and name for people.
    pub fn title_of(self, identity: &Identity) -> String {
        let name = identity.metadata.name.as_deref().unwrap_or("?");
        match identity.metadata.namespace.as_deref() {
            Some(namespace) => format!("{} {namespace}/{name}", self.title()),
            None => format!("{} {name}", self.title()),
        }
    }

    /// Reads an object and trims it; what is not kept is gone when this returns. `None` for objects that are of
    /// no use to anybody here. `whole`: what only some need is kept, too: the labels of services and imports, and of slices
    /// what makes them an import's.
    pub fn convert(self, identity: &Identity, text: &[u8], whole: bool) -> Result<Option<Object>, Fault> {
        Ok(match self {
            Self::Service => {
                let mut service = convert::service(&self.read::<Service>(identity, text)?)?;
                // Only a source that makes endpoints itself selects pods; of headless services DNS asks whether
                // there is a selector at all.
                if !service.headless {
                    service.selector = BTreeMap::new();
                }
                service.labels = service.labels.filter(|_| whole);
                Some(Object::Service(service))
            }
            Self::EndpointSlice => {
                let mut slice = convert::slice(&self.read::<EndpointSlice>(identity, text)?)?;
                if let Some(slice) = slice.as_mut().filter(|_| !whole) {
                    slice.imported = None;
                }
                let slice = slice.filter(|slice| slice.service.is_some() || slice.imported.is_some());
                slice.map(Object::EndpointSlice)
            }
            Self::Node => Some(Object::Node(convert::node(&self.read::<Node>(identity, text)?)?)),
            Self::ServiceCidr => {
                Some(Object::ServiceCidr(convert::service_cidr(&self.read::<ServiceCIDR>(identity, text)?)?))
            }
            Self::Namespace => {
                Some(Object::Namespace(convert::namespace(&self.read::<Namespace>(identity, text)?)?))
            }
            Self::Pod => {
                let pod = convert::pod(&self.read::<Pod>(identity, text)?, Readiness::Reported)?;
                Some(Object::Pod(model::Pod { labels: BTreeMap::new(), ports: Vec::new(), ..pod }))
            }
            Self::ServiceImport => {
                let mut import = convert::import(&self.read::<KubeImport>(identity, text)?)?;
                import.labels = import.labels.filter(|_| whole);
                Some(Object::ServiceImport(import))
            }
        })
    }

    fn read<K: DeserializeOwned>(self, identity: &Identity, text: &[u8]) -> Result<K, Fault> {
        // Knowing at each step where one is costs a tenth of the time.
        if let Ok(object) = serde_json::from_slice(text) {
            return Ok(object);
        }
        let mut reader = serde_json::Deserializer::from_slice(text);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| Fault::Field {
            object: self.title_of(identity),
            field: error.path().to_string(),
            message: error.inner().to_string(),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::read;

    #[test]
    fn an_object_that_cannot_be_read_is_named_with_its_field() {
        let text = br#"{"metadata":{"namespace":"shop","name":"web"},"spec":{"ports":[{"port":"http"}]}}"#;
        let identity: Identity = read(text).unwrap();
        let said = Kind::Service.convert(&identity, text, false).unwrap_err().to_string();
        assert!(said.starts_with("Service shop/web: spec.ports"), "{said}");
        assert_eq!(Kind::Service.key(&identity), Some(ObjectKey::Service(ObjectName::new("shop", "web"))));
    }

    #[test]
    fn a_slice_that_is_only_an_imports_is_kept_where_somebody_asks_for_those() {
        let label = |name: &str| format!(r#""{name}":"web""#);
        let (own, far) =
            (label("kubernetes.io/service-name"), label("multicluster.kubernetes.io/service-name"));
        let kept = |labels: &str, whole| {
            let text = format!(
                r#"{{"metadata":{{"name":"s","labels":{{{labels}}}}},"addressType":"IPv4","endpoints":[]}}"#
            );
            let identity: Identity = read(text.as_bytes()).unwrap();
            let object = Kind::EndpointSlice.convert(&identity, text.as_bytes(), whole).unwrap();
            let Some(Object::EndpointSlice(slice)) = object else { return None };
            Some((slice.service.is_some(), slice.imported.is_some()))
        };
        let both = format!("{own},{far}");
        assert_eq!([kept(&far, false), kept(&both, false)], [None, Some((true, false))]);
        assert_eq!([kept(&far, true), kept(&both, true)], [Some((false, true)), Some((true, true))]);
    }

    #[test]
    fn labels_of_services_are_kept_where_somebody_asks_for_them() {
        let text = br#"{"metadata":{"namespace":"shop","name":"web","labels":{"app":"web"}},"spec":{}}"#;
        let identity: Identity = read(text).unwrap();
        for whole in [false, true] {
            let object = Kind::Service.convert(&identity, text, whole).unwrap();
            let Some(Object::Service(service)) = object else { panic!("a service") };
            assert_eq!(service.labels.map(|labels| labels.len()), whole.then_some(1));
        }
    }

    #[test]
    fn the_key_of_an_object_is_known_before_it_is_read() {
        let text =
            br#"{"metadata":{"name":"one","resourceVersion":"7"},"spec":{"podCIDRs":["10.0.0.0/24"]}}"#;
        let mut identity: Identity = read(text).unwrap();
        assert_eq!(identity.version().as_deref(), Some("7"));
        for kind in [Kind::Node, Kind::Namespace] {
            let object = kind.convert(&identity, text, false).unwrap().unwrap();
            assert_eq!(kind.key(&identity), Some(object.key()));
        }
    }
}
