//! An object as the server keeps it: its text, and what it is selected by.
//!
//! The text lacks `kind` and `apiVersion`, as items of a list do; a single object gets them back.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Resource;
use super::selector::Selector;

/// Namespace (empty for kinds without) and name.
pub(super) type Key = (String, String);

/// A stored object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    labels: BTreeMap<String, String>,
    fields: BTreeMap<&'static str, String>,
    text: String,
}

/// What a request selects.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) namespace: Option<String>,
    pub(super) labels: Selector,
    pub(super) fields: Selector,
}

impl Object {
    /// Takes in an object as of `version`.
    pub(super) fn new(resource: &Resource, key: Key, mut value: Map<String, Value>, version: u64) -> Self {
        value.remove("kind");
        value.remove("apiVersion");
        let metadata = value.entry("metadata").or_insert_with(|| json!({}));
        metadata["resourceVersion"] = json!(version.to_string());
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let labels = labels.collect();
        let whole = Value::Object(value);
        let fields = resource.selectable().iter().filter_map(|name| {
            let pointer = format!("/{}", name.replace('.', "/"));
            let text = whole.pointer(&pointer).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            Some((*name, text?))
        });
        let fields = fields.collect();
        Self { key, labels, fields, text: whole.to_string() }
    }

    /// The same as of another version: what a deletion shows.
    pub(super) fn at(&self, resource: &Resource, version: u64) -> Self {
        Self::new(resource, self.key.clone(), self.value(), version)
    }

    /// Its contents, without kind.
    pub(super) fn value(&self) -> Map<String, Value> {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// As an item of a list.
    pub(super) fn item(&self) -> &str {
        &self.text
    }

    /// As an object on its own.
    pub(super) fn whole(&self, resource: &Resource) -> String {
        let (kind, api_version) = (resource.kind, resource.api_version());
        format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}",{}"#, &self.text[1..])
    }

    /// Whether a request selects it.
    pub(super) fn is_selected(&self, selection: &Selection) -> bool {
        let (namespace, name) = &self.key;
        selection.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && selection.labels.matches(|label| self.labels.get(label).map(String::as_str))
            && selection.fields.matches(|field| match field {
                "metadata.name" => Some(name),
                "metadata.namespace" => Some(namespace),
                // A field that is not there is empty.
                other => Some(self.fields.get(other).map_or("", String::as_str)),
            })
    }
}
