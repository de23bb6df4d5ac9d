//! `--write-config-to`: a KubeProxyConfiguration with its defaults in it, as kube-proxy writes one. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{API_VERSION, KIND};

/// All fields, with the values that kube-proxy gives them on Linux in mode iptables.
fn defaults() -> Value {
    json!({
        "apiVersion": API_VERSION,
        "bindAddress": "0.0.0.0",
        "bindAddressHardFail": false,
        "clientConnection": {
            "acceptContentTypes": "",
            "burst": 10,
            "contentType": "application/vnd.kubernetes.protobuf",
            "kubeconfig": "",
            "qps": 5,
        },
        "clusterCIDR": "",
        "configSyncPeriod": "15m0s",
        "conntrack": {
            "maxPerCore": 32_768,
            "min": 131_072,
            "tcpBeLiberal": false,
            "tcpCloseWaitTimeout": "1h0m0s",
            "tcpEstablishedTimeout": "24h0m0s",
            "udpStreamTimeout": "0s",
            "udpTimeout": "0s",
        },
        "detectLocal": { "bridgeInterface": "", "interfaceNamePrefix": "" },
        "detectLocalMode": "ClusterCIDR",
        "enableProfiling": false,
        "healthzBindAddress": "0.0.0.0:10256",
        "hostnameOverride": "",
        "iptables": {
            "localhostNodePorts": true,
            "masqueradeAll": false,
            "masqueradeBit": 14,
            "minSyncPeriod": "1s",
            "syncPeriod": "30s",
        },
        "ipvs": {
            "excludeCIDRs": null,
            "minSyncPeriod": "0s",
            "scheduler": "",
            "strictARP": false,
            "syncPeriod": "0s",
            "tcpFinTimeout": "0s",
            "tcpTimeout": "0s",
            "udpTimeout": "0s",
        },
        "kind": KIND,
        "logging": {
            "flushFrequency": "5s",
            "format": "text",
            "options": { "json": { "infoBufferSize": "0" }, "text": { "infoBufferSize": "0" } },
            "verbosity": 0,
        },
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "iptables",
        "nftables": { "masqueradeAll": false, "masqueradeBit": 14, "minSyncPeriod": "0s", "syncPeriod": "0s" },
        "nodePortAddresses": null,
        "oomScoreAdj": -999,
        "portRange": "",
        "showHiddenMetricsForVersion": "",
        "winkernel": {
            "enableDSR": false,
            "forwardHealthCheckVip": false,
            "networkName": "",
            "rootHnsEndpointName": "",
            "sourceVip": "",
        },
    })
}

/// Whether a field has the value that it would have by itself.
pub(super) fn is_default(path: &str, value: &Value) -> bool {
    let defaults = defaults();
    let pointer = format!("/{}", path.replace('.', "/"));
    let same = |usual: &Value| match (usual.as_str(), value.as_str()) {
        (Some(usual), Some(text)) => {
            usual == text || time(usual).is_some_and(|usual| time(text) == Some(usual))
        }
        _ => usual == value || usual.as_f64().is_some_and(|usual| value.as_f64() == Some(usual)),
    };
    // The periods of the other modes are those of mode iptables.
    let section = path.split_once('.').filter(|(section, _)| matches!(*section, "ipvs" | "nftables"));
    let alike = section.and_then(|(_, field)| defaults["iptables"].get(field));
    defaults.pointer(&pointer).is_some_and(same) || alike.is_some_and(same)
}

fn time(text: &str) -> Option<jiff::SignedDuration> {
    text.parse().ok()
}

/// A configuration as YAML, with the defaults where it says nothing.
pub(super) fn complete(document: &Value) -> String {
    let mut all = defaults();
    let v6 = document["bindAddress"].as_str().is_some_and(|address| address.contains(':'));
    if v6 {
        all["healthzBindAddress"] = json!("[::]:10256");
        all["metricsBindAddress"] = json!("[::1]:10249");
    }
    if let Some(mode @ ("ipvs" | "nftables")) = document["mode"].as_str() {
        all["iptables"]["syncPeriod"] = json!("0s");
        all["iptables"]["minSyncPeriod"] = json!("0s");
        all[mode]["syncPeriod"] = json!("30s");
        if mode == "nftables" {
            all[mode]["minSyncPeriod"] = json!("1s");
            all["nodePortAddresses"] = json!(["primary"]);
        }
    }
    merge(&mut all, document);
    let mut text = String::new();
    write_fields(&mut text, &all, 0);
    text
}

/// What is empty or null says nothing.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (Value::String(_), Value::String(text)) if text.is_empty() => {}
        (into, from) => *into = from.clone(),
    }
}

/// Writes the fields of a section, a line each; scalars are as in JSON, which is YAML too.
fn write_fields(text: &mut String, section: &Value, depth: usize) {
    for (name, value) in section.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        // Writing into a text cannot fail.
        let _infallible = match value {
            Value::Object(fields) if !fields.is_empty() => {
                let _infallible = writeln!(text, "{indent}{name}:");
                write_fields(text, value, depth + 1);
                Ok(())
            }
            Value::String(word) if is_plain(word) => writeln!(text, "{indent}{name}: {word}"),
            value => writeln!(text, "{indent}{name}: {value}"),
        };
    }
}

/// Whether a text needs no quotes in YAML.
fn is_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str())
}
