//! The text of one manifest file to objects and complaints: pure.

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
    serde::de::DeserializeOwned,
};
use sluice_model::{IpFamily, Object};

use super::located::Located;
use crate::convert::{self, ConvertError, KubeImport, Readiness};

/// An object of a manifest, with what folder mode needs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub object: Object,
    /// The line on which it begins.
    pub line: u64,
    /// `spec.ipFamilies` of a service, where given: which slices the endpoints controller makes.
    pub families: Option<Vec<IpFamily>>,
}

/// What one file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The objects of its good documents.
    pub entries: Vec<Entry>,
    /// What is wrong with the others.
    pub complaints: Vec<Complaint>,
    /// Kinds that are none of our business, as they stand there.
    pub ignored: Vec<String>,
}

/// Something wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Complaint {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: ManifestProblem,
}

/// What may be wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestProblem {
    /// Not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// A document that is no Kubernetes object.
    #[error("not a Kubernetes object: {0} is missing")]
    NotAnObject(&'static str),
    /// A field of the wrong type.
    #[error("{object}: {field}: {message}")]
    Field {
        /// Kind and name, as far as they are known.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// An object that cannot be right.
    #[error(transparent)]
    Object(#[from] ConvertError),
}

impl Manifest {
    /// Reads a file's text. A document with a mistake in it costs no other document.
    pub fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        for (offset, document) in documents(text) {
            match Located::parse(document) {
                Ok(None) => {}
                Ok(Some(value)) => manifest.document(&value, offset),
                Err(error) => {
                    let (message, line) = syntax_error(&error);
                    manifest.complain(offset + line, ManifestProblem::Syntax(message));
                }
            }
        }
        manifest
    }

    fn complain(&mut self, line: u64, problem: impl Into<ManifestProblem>) {
        self.complaints.push(Complaint { line, problem: problem.into() });
    }

    /// Takes in one document, or one element of a list. `offset` is the number of lines before the document.
    fn document(&mut self, value: &Located, offset: u64) {
        let line = offset + value.line();
        let Some(kind) = value.text("kind") else {
            return self.complain(line, ManifestProblem::NotAnObject("kind"));
        };
        let Some(version) = value.text("apiVersion") else {
            return self.complain(line, ManifestProblem::NotAnObject("apiVersion"));
        };
        match (version, kind) {
            ("v1", "Service") => self.object(value, offset, |object: &Service| {
                Ok(Some((Object::Service(convert::service(object)?), convert::service_families(object))))
            }),
            ("v1", "Pod") => self.object(value, offset, |object: &Pod| {
                Ok(Some((Object::Pod(convert::pod(object, Readiness::Assumed)?), None)))
            }),
            ("v1", "Node") => self.object(value, offset, |object: &Node| {
                Ok(Some((Object::Node(convert::node(object)?), None)))
            }),
            ("v1", "Namespace") => self.object(value, offset, |object: &Namespace| {
                Ok(Some((Object::Namespace(convert::namespace(object)?), None)))
            }),
            ("networking.k8s.io/v1", "ServiceCIDR") => self.object(value, offset, |object: &ServiceCIDR| {
                Ok(Some((Object::ServiceCidr(convert::service_cidr(object)?), None)))
            }),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.object(value, offset, |object: &EndpointSlice| {
                    Ok(convert::slice(object)?.map(|slice| (Object::EndpointSlice(slice), None)))
                });
            }
            ("multicluster.x-k8s.io/v1alpha1" | "multicluster.x-k8s.io/v1beta1", "ServiceImport") => {
                self.object(value, offset, |object: &KubeImport| {
                    Ok(Some((Object::ServiceImport(convert::import(object)?), None)))
                });
            }
            // Any list, `v1 List` as well as `v1 ServiceList`: its elements say themselves what they are.
            (_, kind) if kind.ends_with("List") && value.get("items").is_some() => {
                for element in value.get("items").map(Located::elements).unwrap_or_default() {
                    self.document(element, offset);
                }
            }
            (version, kind) => self.ignored.push(format!("{version} {kind}")),
        }
    }

    fn object<K: DeserializeOwned>(
        &mut self,
        value: &Located,
        offset: u64,
        convert: impl FnOnce(&K) -> Result<Option<(Object, Option<Vec<IpFamily>>)>, ConvertError>,
    ) {
        let parsed: Result<K, _> = serde_path_to_error::deserialize(value.to_value());
        let object = match parsed {
            Ok(object) => object,
            Err(error) => {
                let field = error.path().to_string();
                let message = error.inner().to_string();
                let line = offset + value.line_of(&field);
                return self.complain(line, ManifestProblem::Field { object: title(value), field, message });
            }
        };
        match convert(&object) {
            Ok(Some((object, families))) => {
                self.entries.push(Entry { object, line: offset + value.line(), families });
            }
            Ok(None) => self.ignored.push(title(value)),
            Err(error) => self.complain(offset + value.line_of(&error.field), error),
        }
    }
}

/// Kind and name of an object that may be incomplete.
fn title(value: &Located) -> String {
    let kind = value.text("kind").unwrap_or("?");
    let metadata = value.get("metadata");
    let name = metadata.and_then(|m| m.text("name")).unwrap_or("?");
    match metadata.and_then(|m| m.text("namespace")) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The documents of a file, each with the number of lines before it. A line that begins with `---` ends a
/// document wherever it stands (YAML 1.2, section 9.1.2), so a mistake in one document cannot hide the next.
fn documents(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut starts = vec![(0, 0)];
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if at != 0 && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            starts.push((number as u64, at));
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, at)| *at).chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(move |((lines, start), end)| (lines, &text[start..end]))
}

/// What the parser says, in one line and without the place, and the line of the place within the document.
/// Of something that is never closed the line where it was opened is told, not the end of the document.
fn syntax_error(error: &serde_saphyr::Error) -> (String, u64) {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let first = match first.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest,
        None => first,
    };
    let line = error.location().map_or(1, |place| place.line().max(1));
    let opened = first.rsplit_once(" at line ").and_then(|(rest, place)| {
        let (number, _) = place.split_once(',')?;
        Some((rest.to_owned(), number.parse().ok()?))
    });
    opened.unwrap_or_else(|| (first.to_owned(), line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: 80\n";

    fn names(manifest: &Manifest) -> Vec<String> {
        manifest.entries.iter().map(|entry| format!("{:?}", entry.object.key())).collect()
    }

    #[test]
    fn documents_lists_and_unknown_kinds() {
        let text = format!(
            "# a comment\n---\n{GOOD}---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {{name: shop}}\n\
             - {{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: shop}}}}\n--- # and another\napiVersion: apps/v1\nkind: Deployment\n"
        );
        let manifest = Manifest::parse(&text);
        assert_eq!(manifest.complaints, []);
        assert_eq!(names(&manifest), ["Service(default/web)", "Namespace(\"shop\")", "Pod(shop/p)"]);
        assert_eq!(manifest.ignored, ["apps/v1 Deployment"]);
        assert_eq!(manifest.entries[0].line, 3);
    }

    #[test]
    fn services_of_a_set_of_clusters() {
        let text = "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\nmetadata: {name: far}\nspec:\n  type: \
                    ClusterSetIP\n  ips: [10.112.0.1]\n  ports:\n  - {name: http, port: 80}\n";
        let beta = text.replace("v1alpha1", "v1beta1").replace("far", "near");
        let manifest = Manifest::parse(&format!("{text}---\n{beta}"));
        assert_eq!(names(&manifest), ["ServiceImport(default/far)", "ServiceImport(default/near)"]);
        for (good, bad, said) in [
            (
                "ClusterSetIP",
                "Other",
                "line 5: ServiceImport default/far: spec.type: \"Other\" is not one of",
            ),
            ("10.112.0.1", "10.112.0", "line 6: ServiceImport default/far: spec.ips[0]: \"10.112.0\" is not"),
            ("port: 80", "port: 0", "line 8: ServiceImport default/far: spec.ports[0].port: 0 is not a port"),
            ("port: 80", "port: http", "line 8: ServiceImport far: spec.ports[0].port: invalid type"),
        ] {
            let complaint = Manifest::parse(&text.replace(good, bad)).complaints[0].to_string();
            assert!(complaint.starts_with(said), "{complaint}");
        }
    }

    #[test]
    fn the_manual_is_right() {
        let manual = include_str!("../../../docs/manifests.md");
        let examples: Vec<_> =
            manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let read: Vec<_> = examples.iter().map(|text| Manifest::parse(text)).collect();
        assert_eq!(read.iter().map(|manifest| manifest.entries.len()).collect::<Vec<_>>(), [2, 2]);
        assert!(read.iter().all(|manifest| manifest.complaints.is_empty()), "{read:?}");
        let wrong = Manifest::parse(
            &GOOD
                .replace("metadata: {name: web}", "metadata:\n  name: web\n")
                .replace("10.96.0.1", "10.96.0"),
        );
        let complaint = wrong.complaints[0].to_string();
        assert!(manual.contains(&complaint), "the manual shows another message than {complaint:?}");
    }

    #[test]
    fn json_files_are_read() {
        let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        ]}"#;
        assert_eq!(names(&Manifest::parse(text)), ["Namespace(\"shop\")"]);
    }

    #[test]
    fn a_mistake_is_placed_and_costs_nothing_else() {
        let table = [
            // Wrong type, seen when the object is read.
            (GOOD.replace("port: 80", "port: http"), "line 7: Service web: spec.ports[0].port: invalid type"),
            // Wrong value, seen when it is converted.
            (
                GOOD.replace("port: 80", "port: 0"),
                "line 7: Service default/web: spec.ports[0].port: 0 is not a port",
            ),
            (
                GOOD.replace("10.96.0.1", "10.96.0"),
                "line 5: Service default/web: spec.clusterIP: \"10.96.0\" is not an IP",
            ),
            (GOOD.replace("name: web", "names: web"), "line 3: Service default/?: metadata.name: is missing"),
            // No YAML at all.
            (GOOD.replace("  ports:", "  ports: ]"), "line 6: not valid YAML"),
            (GOOD.replace("kind: Service\n", ""), "line 1: not a Kubernetes object: kind is missing"),
        ];
        for (bad, expected) in table {
            let alone = Manifest::parse(&bad);
            assert_eq!(alone.entries, []);
            let said = alone.complaints[0].to_string();
            assert!(said.starts_with(expected), "{said:?} is not {expected:?}");
            // The same between two good documents, three lines further down.
            let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
            let among = Manifest::parse(&format!("{other}---\n{bad}---\n{other}"));
            assert_eq!((among.entries.len(), among.complaints.len()), (2, 1), "{said}");
            assert_eq!(among.complaints[0].line, alone.complaints[0].line + 4, "{said}");
        }
    }
}
