//! What of kube-proxy's configuration has no meaning here, and the remarks on it.

use serde_json::Value;

use super::defaults::is_default;

/// Why fields have no meaning here. A path ends a section's name with all that is in it.
const MEANINGLESS: &[(&str, &str)] = &[
    ("bindAddressHardFail", "an address that is taken is reported and tried again"),
    ("clientConnection", "the agent's way to the API has no such setting"),
    ("configSyncPeriod", "a watch needs no refreshing"),
    ("detectLocal", "belongs to another detectLocalMode"),
    (
        "enableProfiling",
        "there is no pprof; perf tells where the agent spends its time, and the metrics where the programs do",
    ),
    ("featureGates", "there are no feature gates"),
    ("iptables.masqueradeBit", "packets are not marked"),
    ("iptables.minSyncPeriod", "a change takes effect at once, at a cost of its own size"),
    ("iptables", "belongs to another mode"),
    ("ipvs", "endpoints are chosen at random, all with the same probability, whatever the mode"),
    ("logging.flushFrequency", "logs are never held back"),
    ("logging", "see logLevel and logFormat of the agent"),
    ("nftables.masqueradeBit", "packets are not marked"),
    ("nftables.minSyncPeriod", "a change takes effect at once, at a cost of its own size"),
    ("nftables", "belongs to another mode"),
    ("portRange", "is unused in kube-proxy, too"),
    ("showHiddenMetricsForVersion", "no metrics are hidden"),
    ("windowsRunAsService", "is for Windows"),
    ("winkernel", "is for Windows"),
];

/// A remark on each name that is left and set to something.
pub(super) fn leftovers(path: &str, value: &Value, remarks: &mut Vec<String>) {
    if is_nothing(value) || is_default(path, value) {
        return;
    }
    match value {
        Value::Object(fields)
            if path.is_empty() || MEANINGLESS.iter().all(|(name, _)| *name != path) || has_own(path) =>
        {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leftovers(&path, value, remarks);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if is_nothing(value) || is_default(&path, value) {
                    continue;
                }
                remarks.push(format!("{path}: {value} has no effect: {}", why(&path)));
            }
        }
        value => remarks.push(format!("{path}: {value} has no effect: {}", why(path))),
    }
}

/// Whether fields within a section have reasons of their own.
fn has_own(section: &str) -> bool {
    MEANINGLESS.iter().any(|(name, _)| name.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

/// The reason of the narrowest path.
fn why(path: &str) -> &'static str {
    let covers =
        |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let found = MEANINGLESS.iter().filter(|(name, _)| covers(name)).max_by_key(|(name, _)| name.len());
    found.map_or("there is no such field", |(_, why)| why)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => {
            matches!(&**text, "" | "0")
                || text.parse::<jiff::SignedDuration>().is_ok_and(|time| time.is_zero())
        }
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}
