//! What is told of the agent itself, as text and JSON: the pages that every component of Kubernetes has beside its
//! metrics (row 40 of the behaviour table).

use std::{collections::BTreeSet, fmt::Write as _};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::Settings;

const WARNING: &str = "Warning: This page is for people; its form may change with any version.";

/// The paths of the metrics server.
pub const PATHS: [&str; 9] = [
    "/configz",
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/proxyMode",
    "/statusz",
    "/version",
];

/// What is set, as the file has it.
fn set(settings: &Settings) -> Map<String, Value> {
    let Ok(Value::Object(all)) = serde_json::to_value(settings) else { return Map::new() };
    all.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// What is set, as a file that can be read again: JSON is YAML.
pub fn settings_file(settings: &Settings) -> String {
    let mut set = set(settings);
    set.remove("kubeProxyConfig");
    format!("{:#}", Value::Object(set))
}

/// `/configz`: what is set; all else has its default.
pub fn configz(settings: &Settings) -> String {
    json!({ "sluice": set(settings) }).to_string()
}

/// `/flagz`: the same, a line each.
pub fn flagz(settings: &Settings) -> String {
    let mut page = format!("\nsluice flagz\n{WARNING}\n\n");
    for (name, value) in set(settings) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _infallible = writeln!(page, "{name}={value}");
    }
    page
}

/// `/statusz`: since when the agent runs, which version, and what does not go well.
pub fn statusz(started: Timestamp, now: Timestamp, troubles: &BTreeSet<String>) -> String {
    let up = now.duration_since(started).as_secs().max(0);
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        "\nsluice statusz\n{WARNING}\n\nStarted: {started:.0}\nUp: {} hr {:02} min {:02} sec\n\
         Binary version: {version}\n\nPaths: {}\n",
        up / 3600,
        up / 60 % 60,
        up % 60,
        PATHS.join(" ")
    );
    for trouble in troubles {
        let _infallible = writeln!(page, "Trouble: {trouble}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_tell_what_is_set_and_since_when() {
        let settings = Settings { node_name: Some("one".into()), mtu: Some(1400), ..Settings::default() };
        assert_eq!(configz(&settings), r#"{"sluice":{"mtu":1400,"nodeName":"one"}}"#);
        assert!(flagz(&settings).ends_with("\n\nmtu=1400\nnodeName=one\n"));
        let troubles = ["the disk is full".to_owned()].into();
        let page = statusz(Timestamp::UNIX_EPOCH, Timestamp::from_second(3 * 3600 + 61).unwrap(), &troubles);
        assert!(page.ends_with("\nTrouble: the disk is full\n"), "{page}");
        assert!(page.contains("Started: 1970-01-01T00:00:00Z\nUp: 3 hr 01 min 01 sec\n"), "{page}");
    }
}
