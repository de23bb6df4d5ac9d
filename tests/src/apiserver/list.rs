//! Lists, whole or in pages. All pages of a list show the same moment.

use std::fmt::Write as _;
use std::ops::Bound;

use serde_json::json;

use super::Resource;
use super::answer::Refusal;
use super::fault::Faults;
use super::object::Key;
use super::request::Options;
use super::store::{Objects, Store};

/// The text of a list.
pub(super) fn list(
    store: &Store,
    resource: &'static Resource,
    options: &Options,
    faults: &Faults,
) -> Result<String, Refusal> {
    let (objects, version, start, kept) = match &options.continued {
        None => {
            let (objects, version) = store.objects(resource);
            if let Some(wanted) = options.version.filter(|&wanted| wanted > version) {
                let message = format!("Too large resource version: {wanted}, current: {version}");
                return Err(Refusal { retry_after: Some(1), ..Refusal::new(504, "Timeout", message) });
            }
            (objects, version, Bound::Unbounded, None)
        }
        Some(token) => {
            let (id, after) =
                read_token(token).ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
            let kept = store.kept_list(id).filter(|_| !faults.page_expires()).ok_or_else(|| {
                let message =
                    "The provided continue parameter is too old to display a consistent list result.";
                Refusal::new(410, "Expired", message)
            })?;
            (kept.0, kept.1, Bound::Excluded(after), Some(id))
        }
    };
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut items = String::new();
    let mut count = 0;
    let mut last: Option<&Key> = None;
    let mut more = false;
    for (key, object) in objects.range((start, Bound::Unbounded)) {
        if !object.is_selected(&options.selection) {
            continue;
        }
        if count == limit {
            more = true;
            break;
        }
        if count > 0 {
            items.push(',');
        }
        items.push_str(object.item());
        last = Some(key);
        count += 1;
    }
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let (true, Some((namespace, name))) = (more, last) {
        let id = kept.unwrap_or_else(|| store.keep_list(Objects::clone(&objects), version));
        metadata["continue"] = json!(format!("{id}:{namespace}/{name}"));
    }
    let (kind, api_version) = (resource.kind, resource.api_version());
    let mut text = String::with_capacity(items.len() + 256);
    let _infallible = write!(
        text,
        r#"{{"kind":"{kind}List","apiVersion":"{api_version}","metadata":{metadata},"items":[{items}]}}"#
    );
    Ok(text)
}

/// A continue token: which list, and after which object.
fn read_token(token: &str) -> Option<(u64, Key)> {
    let (id, key) = token.split_once(':')?;
    let (namespace, name) = key.split_once('/')?;
    Some((id.parse().ok()?, (namespace.to_owned(), name.to_owned())))
}
