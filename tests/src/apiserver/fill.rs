//! What the real server fills in: names, identities, and cluster addresses of services that ask for none.

use serde_json::{Map, Value, json};

use super::Resource;
use super::object::Key;

/// Completes an object. `number` is one that no other object gets.
pub(super) fn fill(
    resource: &Resource,
    (namespace, name): &Key,
    value: &mut Map<String, Value>,
    old: Option<&Map<String, Value>>,
    number: u64,
) {
    let metadata = value.entry("metadata").or_insert_with(|| json!({}));
    metadata["name"] = json!(name);
    if resource.namespaced {
        metadata["namespace"] = json!(namespace);
    }
    let kept = |field: &str| old.and_then(|old| old.get("metadata")?.get(field).cloned());
    metadata["uid"] = kept("uid").unwrap_or_else(|| json!(format!("00000000-0000-4000-8000-{number:012x}")));
    metadata["creationTimestamp"] =
        kept("creationTimestamp").unwrap_or_else(|| json!("2026-01-01T00:00:00Z"));
    if resource.plural == "services"
        && let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
    {
        addresses(spec, old.and_then(|old| old.get("spec")), number);
    }
}

/// Cluster addresses, as far as the specification leaves them to the server: above those that tests give.
fn addresses(spec: &mut Map<String, Value>, old: Option<&Value>, number: u64) {
    let wants_none = spec.contains_key("clusterIP")
        || spec.contains_key("clusterIPs")
        || spec.get("type").is_some_and(|kind| kind == "ExternalName");
    if wants_none {
        return;
    }
    let given = old.and_then(|old| old.get("clusterIPs")).filter(|list| list.is_array());
    let list = given.cloned().unwrap_or_else(|| {
        let dual = spec.get("ipFamilyPolicy").is_some_and(|policy| policy != "SingleStack");
        let (high, low) = (128 + number / 256 % 128, number % 256);
        let list = [format!("10.96.{high}.{low}"), format!("fd00:96::8:{:x}", number % 0x10000)];
        json!(&list[..if dual { 2 } else { 1 }])
    });
    spec.insert("clusterIP".to_owned(), list[0].clone());
    spec.insert("clusterIPs".to_owned(), list);
}
