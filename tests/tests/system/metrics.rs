//! What `/metrics` tells of a node at work (rows 41 and 42 of the behaviour table, and ours).

use sluice_tests::cluster::Options;
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB, spread, url, web_service};

/// The value of a series, such as `name{label="value"}`.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a series is what is wanted.
fn wait_value(site: &Site, series: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
    let node = site.cluster.node(1).host();
    wait_for(series, LIMIT, || {
        let text = node.curl("http://127.0.0.1:10249/metrics")?;
        match value(&text, series) {
            Some(value) if wanted(value) => Ok(Some(value)),
            other => Err(Error::answer(series, format!("{other:?}"))),
        }
    })
    .map_err(|error| site.with_logs(&error))
}

#[test]
fn a_node_tells_of_connections_programs_maps_and_services_without_endpoints_here() -> Result<()> {
    let options = Options { fast_path: false, agent: "programStats: true\n".into(), ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 2)])?;
    spread(site.client(), &url(WEB[0]), 20)?;
    wait_value(&site, "sluice_program_runs_total{program=\"from_pod\"}", |runs| runs >= 100.0)?;
    wait_value(&site, "sluice_program_run_seconds_total{program=\"from_pod\"}", |time| time > 0.0)?;
    wait_value(&site, "sluice_connections{protocol=\"tcp\"}", |count| count >= 20.0)?;
    wait_value(&site, "sluice_map_entries{map=\"flows\"}", |count| count >= 40.0)?;
    wait_value(&site, "sluice_map_capacity{map=\"flows\"}", |count| count == 65536.0)?;
    let frontends = wait_value(&site, "sluice_map_entries{map=\"frontends\"}", |count| count >= 16.0)?;
    site.cluster.withdraw("web.yaml")?;
    wait_value(&site, "sluice_map_entries{map=\"frontends\"}", |count| count < frontends)?;
    for family in ["IPv4", "IPv6"] {
        let name = "kubeproxy_conntrack_reconciler_sync_duration_seconds_count";
        wait_value(&site, &format!("{name}{{ip_family=\"{family}\"}}"), |count| count >= 1.0)?;
    }
    for what in ["service", "endpoint"] {
        let name = format!("kubeproxy_sync_proxy_rules_{what}_changes");
        wait_value(&site, &format!("{name}_total"), |count| count >= 1.0)?;
        wait_value(&site, &format!("{name}_pending"), |count| count == 0.0)?;
    }
    // The only endpoint is on the other node.
    site.cluster.apply("web.yaml", &web_service("internalTrafficPolicy: Local\n"))?;
    for (family, policy, ports) in
        [("IPv4", "internal", 4.0), ("IPv6", "internal", 4.0), ("IPv4", "external", 0.0)]
    {
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        let series = format!("{name}{{ip_family=\"{family}\",traffic_policy=\"{policy}\"}}");
        wait_value(&site, &series, |count| count == ports)?;
    }
    Ok(())
}

/// What kube-proxy's metrics are called, whatever its mode (row 41 of the behaviour table).
const KUBE_PROXYS: [&str; 15] = [
    "sync_proxy_rules_duration_seconds",
    "sync_full_proxy_rules_duration_seconds",
    "sync_partial_proxy_rules_duration_seconds",
    "sync_proxy_rules_last_timestamp_seconds",
    "sync_proxy_rules_last_queued_timestamp_seconds",
    "network_programming_duration_seconds",
    "sync_proxy_rules_endpoint_changes_pending",
    "sync_proxy_rules_endpoint_changes_total",
    "sync_proxy_rules_service_changes_pending",
    "sync_proxy_rules_service_changes_total",
    "sync_proxy_rules_no_local_endpoints_total",
    "proxy_healthz_total",
    "proxy_livez_total",
    "conntrack_reconciler_sync_duration_seconds",
    "conntrack_reconciler_deleted_entries_total",
];

#[test]
fn kube_proxys_metrics_are_there_and_tell_how_long_a_change_took() -> Result<()> {
    let mut site = Site::new(&Options { nodes: 1, ..Options::default() }, &[("client", 1), ("web-0", 1)])?;
    let node = site.cluster.node(1).host();
    node.curl("http://127.0.0.1:10256/healthz")?;
    node.curl("http://127.0.0.1:10256/livez")?;
    for path in ["healthz", "livez"] {
        wait_value(&site, &format!("kubeproxy_proxy_{path}_total{{code=\"200\"}}"), |count| count >= 1.0)?;
    }
    // Entries are removed by the family of their flow, once there are some; the name is declared before.
    let text = node.curl("http://127.0.0.1:10249/metrics")?;
    for name in KUBE_PROXYS.iter().filter(|name| !name.ends_with("deleted_entries_total")) {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("# TYPE kubeproxy_{name} "))),
            "{name} in {text}"
        );
    }
    let series = |what: &str, family: &str| {
        format!("kubeproxy_network_programming_duration_seconds_{what}{{ip_family=\"{family}\"}}")
    };
    let before = wait_value(&site, &series("count", "IPv4"), |count| count >= 1.0)?;
    site.add("web-1", 1)?;
    let after = wait_value(&site, &series("count", "IPv4"), |count| count > before)?;
    wait_value(&site, &series("count", "IPv6"), |count| count >= 1.0)?;
    // From the change to the kernel: some milliseconds, on a machine that does much else a few more.
    wait_value(&site, &series("sum", "IPv4"), |sum| sum > 0.0 && sum < 5.0 * after)?;
    Ok(())
}
