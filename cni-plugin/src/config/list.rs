//! A configuration list where a single configuration is expected: whoever calls the plugin by hand has only the list.

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::TYPE;
use crate::{
    error::{Error, Result},
    version::Version,
};

/// What a list says for all its plugins.
const COMMON: [&str; 4] = ["name", "cniVersion", "disableCheck", "disableGC"];

/// A cheap look for a list's key before the whole is parsed twice.
pub(super) fn is_likely(stdin: &[u8]) -> bool {
    let key = b"\"plugins\"";
    stdin.windows(key.len()).any(|window| window == key)
}

/// Our part of a list, with what the list says for all, as a runtime would hand it to us. What is no list stays.
pub(super) fn pick(value: Value) -> Result<Value> {
    let plugins = match value.get("plugins") {
        None => return Ok(value),
        Some(Value::Array(plugins)) => plugins,
        Some(_) => return Err(Error::config("plugins is not a list")),
    };
    let ours = plugins.iter().find(|plugin| plugin.get("type").and_then(Value::as_str) == Some(TYPE));
    let Some(Value::Object(ours)) = ours else {
        return Err(Error::config(format!("the list has no plugin of type {TYPE:?}")));
    };
    let mut ours = ours.clone();
    for key in COMMON {
        if let Some(value) = value.get(key) {
            ours.insert(key.to_owned(), value.clone());
        }
    }
    // Of several versions, the newest that we speak.
    let offered = value.get("cniVersions").and_then(Value::as_array).into_iter().flatten();
    let known = |offered: &Value| Version::parse(Some(offered.as_str()?)).ok();
    if let Some(version) = offered.chain(value.get("cniVersion")).filter_map(known).max() {
        ours.insert("cniVersion".to_owned(), version.to_string().into());
    }
    Ok(Value::Object(ours))
}

/// A truth value, which libcni also takes as a text.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> core::result::Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(value),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        other => Err(D::Error::custom(format_args!("expected true or false, found {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_part_gets_what_the_list_says_for_all_and_the_newest_version_that_we_speak() {
        let plugins = json!([{ "type": "other" }, { "type": "sluice-cni", "mtu": 1400 }]);
        let list = json!({
            "name": "n", "cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "9.0.0"], "disableCheck": true,
            "plugins": plugins,
        });
        let expected = json!({ "type": "sluice-cni", "mtu": 1400, "name": "n", "cniVersion": "1.1.0", "disableCheck": true });
        assert_eq!(pick(list).unwrap(), expected);
        let old = json!({ "name": "n", "cniVersion": "7.0.0", "plugins": plugins });
        assert_eq!(pick(old).unwrap()["cniVersion"], "7.0.0", "to be refused by its name");
        assert!(pick(json!({ "name": "n", "plugins": [] })).is_err());
    }
}
