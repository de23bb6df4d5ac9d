//! The directive `kubernetes`.

use super::{
    Corefile, bad_option,
    directives::{Block, Result, option_parsed, unknown},
    syntax::{Directive, Setting},
    values, wrong,
};
use crate::{InvalidSelector, PodRecords, Selector, name::WireName};

impl Block<'_> {
    pub(super) fn kubernetes(&mut self, directive: &Directive, corefile: &mut Corefile) -> Result<()> {
        if std::mem::replace(&mut self.has_kubernetes, true) {
            return Err(wrong(directive, "the second in this server block"));
        }
        // Without domains of its own, those of the block.
        let keys = self.keys.iter().filter_map(|key| values::zone_and_port(key)).map(|(zone, _)| zone);
        let zones: Vec<String> = match directive.words.as_slice() {
            [] => keys.filter(|zone| zone != ".").collect(),
            words => words.to_vec(),
        };
        let config = &mut corefile.config;
        config.multicluster_zones = multicluster(directive, &zones)?;
        // The first is the one that reverse names and search paths lead to.
        let is_own = |zone: &&String| !is_reverse(zone) && !config.multicluster_zones.contains(zone);
        let mut own = zones.iter().filter(is_own);
        if let Some(zone) = own.next() {
            config.zone.clone_from(zone);
        }
        config.more_zones = own.cloned().collect();
        config.ttl = 5;
        config.pods = PodRecords::Disabled;
        // Without a reverse domain the reverse names that are not ours are others'.
        config.reverse_fallthrough = !zones.iter().any(|zone| is_reverse(zone));
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("pods", [mode]) => {
                    config.pods = match mode.as_str() {
                        "disabled" => PodRecords::Disabled,
                        "insecure" => PodRecords::Insecure,
                        "verified" => PodRecords::Verified,
                        _ => return Err(unknown(option)),
                    }
                }
                ("ttl", [seconds]) => {
                    config.ttl = option_parsed(option, seconds, "seconds")?;
                    if config.ttl > 3600 {
                        return Err(bad_option(option, format!("{seconds} is more than 3600 seconds")));
                    }
                }
                ("endpoint_pod_names", []) => config.endpoint_pod_names = true,
                ("noendpoints", []) => config.endpoints = false,
                ("zonal", []) => config.zonal = true,
                ("multicluster", [_, ..]) => {}
                ("ignore", [what]) if what == "empty_service" => config.ignore_empty_services = true,
                ("namespaces", names) if !names.is_empty() => {
                    config.exposure.namespaces.extend(names.iter().cloned());
                }
                ("namespace_labels", words) => {
                    config.exposure.namespace_labels = Some(selector(option, words)?);
                }
                ("labels", words) => config.exposure.labels = Some(selector(option, words)?),
                ("fallthrough", []) => {
                    config.reverse_fallthrough = true;
                    config.fallthrough.push(".".to_owned());
                }
                ("fallthrough", zones) => {
                    config.reverse_fallthrough |= zones.iter().any(|zone| is_reverse(zone) || zone == ".");
                    config.fallthrough.extend(zones.iter().filter(|zone| !is_reverse(zone)).cloned());
                }
                // How CoreDNS talks to the API server; here the agent does.
                (
                    "endpoint"
                    | "kubeconfig"
                    | "startup_timeout"
                    | "apiserver_qps"
                    | "apiserver_burst"
                    | "apiserver_max_inflight",
                    [_],
                )
                | ("tls", [_, _, _])
                | ("kubeconfig", [_, _]) => {}
                _ => return Err(unknown(option)),
            }
        }
        let by_labels = directive.options.iter().find(|option| option.name == "namespace_labels");
        if let Some(option) = by_labels.filter(|_| !config.exposure.namespaces.is_empty()) {
            return Err(bad_option(option, "does not go together with namespaces"));
        }
        let zonal = directive.options.iter().find(|option| option.name == "zonal");
        if let Some(option) = zonal.filter(|_| !config.endpoints) {
            return Err(bad_option(option, "is about endpoints, and noendpoints says that there are none"));
        }
        Ok(())
    }
}

/// The domains of imports, as the directive writes them, of which it is one.
fn multicluster(directive: &Directive, zones: &[String]) -> Result<Vec<String>> {
    let mut named = Vec::new();
    for option in directive.options.iter().filter(|option| option.name == "multicluster") {
        for word in &option.words {
            let is_same = |zone: &&String| {
                WireName::parse(zone).is_some_and(|name| Some(name) == WireName::parse(word))
            };
            let zone = zones.iter().find(is_same);
            let zone =
                zone.ok_or_else(|| bad_option(option, format!("{word:?} is no domain of kubernetes")))?;
            named.push(zone.clone());
        }
    }
    Ok(named)
}

fn is_reverse(zone: &str) -> bool {
    zone.ends_with("arpa") || zone.ends_with("arpa.") || zone.contains('/')
}

fn selector(option: &Setting, words: &[String]) -> Result<Selector> {
    let text = words.join(" ");
    text.parse().map_err(|problem: InvalidSelector| bad_option(option, problem.to_string()))
}
