//! Tables for the endpoints controller: manifests in, slices out, one line for each endpoint.

use std::sync::Arc;

use sluice_model::{IpFamily, Object, Pod, Service};

use super::desired;
use crate::folder::manifest::Manifest;

/// Reads a service and pods from manifests.
fn read(text: &str) -> (Service, Option<Vec<IpFamily>>, Vec<Pod>) {
    let manifest = Manifest::parse(text);
    assert_eq!(manifest.complaints, []);
    let mut service = None;
    let mut pods = Vec::new();
    for entry in manifest.entries {
        match entry.object {
            Object::Service(object) => service = Some((object, entry.families)),
            Object::Pod(object) => pods.push(object),
            other => panic!("{other:?} does not belong here"),
        }
    }
    let (service, families) = service.expect("a service");
    (service, families, pods)
}

/// The slices as text: family, ports, and of each endpoint its addresses, conditions (r, s, t) and the rest.
fn render(text: &str) -> Vec<String> {
    let (service, families, pods) = read(text);
    let zone = |node: &str| (node == "n1").then(|| Arc::from("z1"));
    let mut lines = Vec::new();
    for slice in desired(&service, families.as_deref(), pods.iter(), zone) {
        let ports: Vec<_> =
            slice.ports.iter().map(|p| format!("{}:{}/{}", p.name, p.port, p.protocol)).collect();
        for e in slice.endpoints {
            let flag = |on: bool, c: char| if on { c } else { '-' };
            let conditions: String =
                [flag(e.ready, 'r'), flag(e.serving, 's'), flag(e.terminating, 't')].iter().collect();
            let addresses: Vec<_> = e.addresses.iter().map(ToString::to_string).collect();
            let mut line = format!("[{}] {} {conditions}", ports.join(","), addresses.join(","));
            for (name, value) in [("host", e.hostname), ("node", e.node), ("zone", e.zone)] {
                if let Some(value) = value {
                    line += &format!(" {name}={value}");
                }
            }
            lines.push(line);
        }
    }
    lines
}

fn service(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: web}}, {spec}}}\n---\n"
    )
}

fn pod(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web, x: z}}}}\n{rest}\n---\n"
    )
}

const PORT: &str = "ports: [{port: 80, targetPort: 8080}]";

#[test]
fn both_families_node_and_zone() {
    let text = service(&format!("clusterIPs: [10.96.0.1, 'fd00::1'], {PORT}"))
        + &pod("a", "spec: {nodeName: n1}\nstatus: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd01::1'}]}")
        + &pod("b", "spec: {nodeName: n2}\nstatus: {podIP: 10.0.0.2}");
    assert_eq!(
        render(&text),
        [
            "[:8080/TCP] 10.0.0.1 rs- node=n1 zone=z1",
            "[:8080/TCP] 10.0.0.2 rs- node=n2",
            "[:8080/TCP] fd01::1 rs- node=n1 zone=z1",
        ]
    );
}

#[test]
fn families_follow_the_service() {
    let pods = pod("a", "status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd01::1'}]}");
    let v4 = "[:8080/TCP] 10.0.0.1 rs-";
    let v6 = "[:8080/TCP] fd01::1 rs-";
    let table = [
        ("clusterIP: 10.96.0.1", vec![v4]),
        ("clusterIP: 'fd00::1'", vec![v6]),
        ("clusterIP: None", vec![v4, v6]),
        ("clusterIP: None, ipFamilies: [IPv6]", vec![v6]),
        ("clusterIP: None, ipFamilies: [IPv6, IPv4]", vec![v4, v6]),
    ];
    for (spec, expected) in table {
        assert_eq!(render(&(service(&format!("{spec}, {PORT}")) + &pods)), expected, "{spec}");
    }
}

#[test]
fn readiness_and_termination() {
    let table = [
        ("", "", "rs-"),
        ("", "{type: Ready, status: 'True'}", "rs-"),
        ("", "{type: Ready, status: 'False'}", "---"),
        ("", "{type: ContainersReady, status: 'False'}", "rs-"),
        ("publishNotReadyAddresses: true,", "{type: Ready, status: 'False'}", "r--"),
    ];
    for (spec, condition, expected) in table {
        let status = format!("status: {{podIP: 10.0.0.1, conditions: [{condition}]}}");
        let text = service(&format!("clusterIP: 10.96.0.1, {spec} {PORT}")) + &pod("a", &status);
        assert_eq!(render(&text), [format!("[:8080/TCP] 10.0.0.1 {expected}")], "{spec} {condition}");
    }
    for (publish, expected) in [("false", "-st"), ("true", "rst")] {
        let text = service(&format!("clusterIP: 10.96.0.1, publishNotReadyAddresses: {publish}, {PORT}"))
            + "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: web}, deletionTimestamp: '2026-01-01T00:00:00Z'}\n\
               status: {podIP: 10.0.0.1}\n";
        assert_eq!(render(&text), [format!("[:8080/TCP] 10.0.0.1 {expected}")], "{publish}");
    }
}

#[test]
fn named_target_ports_may_differ_and_be_absent() {
    let container = |port: u16, protocol: &str| {
        format!(
            "spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: {port}, protocol: {protocol}}}]}}]}}\n\
             status: {{podIP: 10.0.0.{}}}",
            port % 100
        )
    };
    let text =
        service("clusterIP: 10.96.0.1, ports: [{name: w, port: 80, targetPort: http}, {name: m, port: 9}]")
            + &pod("a", &container(8001, "TCP"))
            + &pod("b", &container(8002, "TCP"))
            + &pod("c", &container(8003, "UDP"));
    assert_eq!(
        render(&text),
        ["[m:9/TCP] 10.0.0.3 rs-", "[w:8001/TCP,m:9/TCP] 10.0.0.1 rs-", "[w:8002/TCP,m:9/TCP] 10.0.0.2 rs-",]
    );
}

#[test]
fn host_names_are_published_under_their_own_service_only() {
    let table = [
        ("hostname: db-0, subdomain: web", " host=db-0"),
        ("hostname: db-0, subdomain: other", ""),
        ("hostname: db-0", ""),
        ("subdomain: web", " host=a"),
    ];
    for (spec, expected) in table {
        let text = service(&format!("clusterIP: None, {PORT}"))
            + &pod("a", &format!("spec: {{{spec}, containers: []}}\nstatus: {{podIP: 10.0.0.1}}"));
        assert_eq!(render(&text), [format!("[:8080/TCP] 10.0.0.1 rs-{expected}")], "{spec}");
    }
}

#[test]
fn who_is_left_out() {
    let with = |spec: &str, pods: String| render(&(service(spec) + &pods));
    let address = "status: {podIP: 10.0.0.1}";
    let cluster = format!("clusterIP: 10.96.0.1, {PORT}");
    assert_eq!(with(&cluster, pod("no-address", "")), [""; 0]);
    assert_eq!(with(&cluster, pod("ended", "status: {podIP: 10.0.0.1, phase: Succeeded}")), [""; 0]);
    assert_eq!(with("type: ExternalName, externalName: a.example", pod("a", address)), [""; 0]);
    let other = pod("other", address).replace("app: web", "app: other");
    assert_eq!(with(&cluster, other), [""; 0]);
    // A headless service may have no ports at all.
    assert_eq!(with("clusterIP: None", pod("a", address)), ["[] 10.0.0.1 rs-"]);
    let no_selector = service(&cluster).replace("selector: {app: web}, ", "");
    assert_eq!(render(&(no_selector + &pod("a", address))), [""; 0]);
}
