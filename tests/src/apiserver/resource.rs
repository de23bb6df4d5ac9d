//! The kinds that the server has, and what a path says about them.

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// The API group; empty for the core one.
    pub group: &'static str,
    /// The version of the group.
    pub version: &'static str,
    /// As in paths.
    pub plural: &'static str,
    /// As in objects.
    pub kind: &'static str,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
}

const fn resource(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { group, version: "v1", plural, kind, namespaced }
}

/// All of them.
pub(super) static RESOURCES: [Resource; 9] = [
    resource("", "services", "Service", true),
    resource("", "nodes", "Node", false),
    resource("", "pods", "Pod", true),
    resource("", "namespaces", "Namespace", false),
    resource("", "events", "Event", true),
    resource("events.k8s.io", "events", "Event", true),
    resource("discovery.k8s.io", "endpointslices", "EndpointSlice", true),
    resource("networking.k8s.io", "servicecidrs", "ServiceCIDR", false),
    // A custom kind, in the version that all implementations have.
    Resource {
        version: "v1alpha1",
        ..resource("multicluster.x-k8s.io", "serviceimports", "ServiceImport", true)
    },
];

impl Resource {
    /// `v1`, `discovery.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The kind of an object, by what it says of itself.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// The fields that its objects may be selected by, besides name and namespace.
    pub(super) fn selectable(&self) -> &'static [&'static str] {
        match self.plural {
            "pods" => {
                &["spec.nodeName", "spec.hostNetwork", "spec.restartPolicy", "status.phase", "status.podIP"]
            }
            "services" => &["spec.clusterIP", "spec.type"],
            "nodes" => &["spec.unschedulable"],
            "namespaces" => &["status.phase"],
            _ => &[],
        }
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads a path such as `/api/v1/namespaces/default/services/web`.
    pub(super) fn read(path: &'a str) -> Option<Self> {
        let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, plural, name) = match rest {
            ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
            ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name)),
            [plural, name] => (None, *plural, Some(*name)),
            [plural] => (None, *plural, None),
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|resource| {
            (resource.group, resource.version, resource.plural) == (group, version, plural)
        })?;
        let fits = resource.namespaced || namespace.is_none();
        // An object in a namespace has no name without it.
        let whole = !resource.namespaced || name.is_none() || namespace.is_some();
        (fits && whole).then_some(Self { resource, namespace, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let read =
            |path| Target::read(path).map(|target| (target.resource.kind, target.namespace, target.name));
        assert_eq!(read("/api/v1/services"), Some(("Service", None, None)));
        assert_eq!(read("/api/v1/namespaces/a/services/b"), Some(("Service", Some("a"), Some("b"))));
        assert_eq!(read("/api/v1/namespaces/a"), Some(("Namespace", None, Some("a"))));
        assert_eq!(read("/apis/discovery.k8s.io/v1/endpointslices"), Some(("EndpointSlice", None, None)));
        for path in
            ["/api/v1/secrets", "/api/v1/services/a", "/apis/apps/v1/nodes", "/api/v1/namespaces/a/nodes"]
        {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
