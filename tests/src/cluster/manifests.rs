//! Manifests that nearly every test needs, so that its own text is what the test is about.

use std::fmt::Write as _;

use serde_json::json;

use super::{Node, Pod};

/// Nodes and namespaces.
pub(super) fn nodes(nodes: &[Node]) -> String {
    let mut text = String::new();
    for name in ["default", "kube-system"] {
        let _infallible = write!(text, "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n");
    }
    for node in nodes {
        text += &self::node(node.name(), &node.addresses(), &node.pod_cidrs());
    }
    text
}

/// A Node, with these internal addresses and pod networks.
pub fn node(name: &str, addresses: &[String], pod_cidrs: &[String]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/hostname: {name}}}\nspec:\n"
    );
    let quoted: Vec<_> = pod_cidrs.iter().map(|cidr| format!("'{cidr}'")).collect();
    if let Some(first) = quoted.first() {
        let _infallible = write!(text, "  podCIDR: {first}\n  podCIDRs: [{}]\n", quoted.join(", "));
    }
    text += "status:\n  addresses:\n";
    for address in addresses {
        let _infallible = writeln!(text, "  - {{type: InternalIP, address: '{address}'}}");
    }
    text + &format!("  - {{type: Hostname, address: {name}}}\n---\n")
}

/// A pod's manifest.
#[derive(Debug, Clone)]
pub struct Workload<'a> {
    /// Its name, in the namespace `default`.
    pub name: &'a str,
    /// The node that it runs on.
    pub node: &'a str,
    /// The value of its label `app`.
    pub app: &'a str,
    /// More lines of its `spec`, without indentation, such as `hostname` and `subdomain`.
    pub spec: &'a str,
}

impl Workload<'_> {
    /// The text of the manifest.
    pub fn manifest(&self) -> String {
        let Self { name, node, app, spec } = self;
        let mut text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n  labels: {{app: {app}}}\n\
             spec:\n  nodeName: {node}\n  containers:\n  - name: main\n    image: example/{app}\n"
        );
        for line in spec.lines() {
            let _infallible = writeln!(text, "  {line}");
        }
        text + "---\n"
    }
}

/// A service of the pods whose label `app` is its name. `spec` has the rest of the specification, one line a field,
/// such as `clusterIPs: [10.96.0.20, 'fd00:96::20']`.
pub fn service(name: &str, spec: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  selector: {{app: {name}}}\n"
    );
    for line in spec.lines() {
        let _infallible = writeln!(text, "  {line}");
    }
    text + "---\n"
}

/// The slices of a service, one for each family, as the controller makes them where there is one. `ports` is the value
/// of the slices' field, such as `[{name: http, port: 80}]`.
pub fn slices(service: &str, ports: &str, pods: &[&Pod]) -> String {
    let mut text = String::new();
    for (family, kind) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let endpoints = pods.iter().filter_map(|pod| {
            let address = pod.addresses().get(family)?;
            Some(json!({
                "addresses": [address],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": pod.node_name(),
                "targetRef": { "kind": "Pod", "namespace": "default", "name": pod.name() },
            }))
        });
        let endpoints: Vec<_> = endpoints.collect();
        let name = format!("{service}-{}", kind.to_lowercase());
        let _infallible = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: {service}}}\naddressType: {kind}\nports: {ports}\n\
             endpoints: {}\n---\n",
            json!(endpoints)
        );
    }
    text
}
