//! Names of services of a set of clusters, which another program imports into the API.

use serde_json::{Value, json};
use sluice_tests::cluster::Options;
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::api::{AGENT, Site, WEB};
use crate::site::LIMIT;

fn corefile(more: &str) -> String {
    format!(".:53 {{\n kubernetes cluster.local clusterset.local {{\n  {more}\n }}\n loadbalance\n}}\n")
}

fn import(kind: &str, name: &str, ips: &[&str]) -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": kind, "ips": ips, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        "status": {"clusters": [{"cluster": "one"}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// An endpoint of an import, in a cluster.
fn slice(import: &str, cluster: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{import}-{cluster}"), "namespace": "default",
            "labels": {
                "multicluster.kubernetes.io/service-name": import,
                "multicluster.kubernetes.io/source-cluster": cluster,
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "hostname": "db-0", "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    })
}

fn expect(site: &Site, name: &str, kind: &str, wanted: &[&str]) -> Result<()> {
    let name = format!("{name}.default.svc.clusterset.local");
    wait_for(&format!("{wanted:?} for {name} {kind}"), LIMIT, || {
        let found = site.dig(&name, kind)?;
        if found == wanted { Ok(Some(())) } else { Err(Error::answer(&name, format!("{found:?}"))) }
    })
    .map_err(|error| site.with_logs(&error))
}

#[test]
fn imported_services_have_names_from_the_moment_at_which_a_corefile_asks_for_them() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Corefile");
    std::fs::write(&path, corefile("ttl 5")).unwrap();
    let agent = format!("{AGENT}corefile: {}\n", path.display());
    let options = Options { api: true, agent, ..Options::default() };
    let site = Site::on(Cluster::without_agents(&Testbed::new()?, &options)?)?;
    let api = site.api();
    api.put(import("ClusterSetIP", "shop", &["10.112.0.1", "fd00:112::1"]))?;
    api.put(import("Headless", "db", &[]))?;
    api.put(slice("db", "one", "10.1.0.8"))?;
    api.put(slice("db", "two", "10.2.0.8"))?;
    let is_watched = || site.watches().keys().any(|(_, kind)| *kind == "serviceimports");
    assert!(!is_watched(), "nobody asks for imports");
    // Without the option the domain has the cluster's own names.
    expect(&site, "web", "A", &[WEB[0]])?;

    std::fs::write(&path, corefile("multicluster clusterset.local")).unwrap();
    expect(&site, "shop", "A", &["10.112.0.1"])?;
    expect(&site, "shop", "AAAA", &["fd00:112::1"])?;
    expect(&site, "_http._tcp.shop", "SRV", &["0 100 80 shop.default.svc.clusterset.local."])?;
    expect(&site, "db", "A", &["10.1.0.8", "10.2.0.8"])?;
    expect(&site, "db-0.two.db", "A", &["10.2.0.8"])?;
    expect(&site, "web", "A", &[])?;
    assert!(is_watched());
    assert_eq!(site.dig("web.default.svc.cluster.local", "A")?, [WEB[0]]);

    api.put(slice("db", "two", "10.2.0.9"))?;
    expect(&site, "db-0.two.db", "A", &["10.2.0.9"])?;
    api.delete(&slice("db", "one", ""))?;
    expect(&site, "db", "A", &["10.2.0.9"])?;
    api.delete(&import("Headless", "db", &[]))?;
    expect(&site, "db", "A", &[])?;
    // One that cannot be right is named, and costs no other.
    api.put(import("Nothing", "odd", &[]))?;
    wait_for("the fault in the log", LIMIT, || {
        let log = site.cluster.node(1).agent_log();
        Ok(log.contains("ServiceImport default/odd: spec.type").then_some(()))
    })?;
    expect(&site, "shop", "A", &["10.112.0.1"])?;
    site.answers(WEB, 2)
}
