//! EndpointSlices written by hand, for what pods alone do not show: endpoints that terminate, endpoints that are not
//! pods, endpoints that come and go in one instant.

use std::fmt::Write as _;

use crate::site::Site;

/// How an endpoint is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// Takes connections.
    Ready,
    /// On its way out, and still serving.
    Terminating,
    /// On its way out, and serves no more.
    Gone,
    /// There, and takes none.
    NotReady,
}

/// An endpoint: its addresses of both families, its node, and how it is.
pub(crate) struct End {
    pub(crate) addresses: [String; 2],
    pub(crate) node: String,
    pub(crate) state: State,
}

impl Site {
    /// A pod as an endpoint. Pods' nodes are told by their addresses.
    pub(crate) fn end(&self, pod: &str, state: State) -> End {
        let addresses = self.pod(pod).addresses();
        let node = self.cluster.nodes().iter().find(|node| {
            let prefix = node.pod_cidrs()[0].replace("0/24", "");
            addresses[0].to_string().starts_with(&prefix)
        });
        let node = node.map(|node| node.name().to_owned()).unwrap_or_default();
        End { addresses: [addresses[0].to_string(), addresses[1].to_string()], node, state }
    }
}

/// The slices of a service, one for each family. Ports are name, protocol and number.
pub(crate) fn slices(service: &str, ports: &[(&str, &str, u16)], ends: &[End]) -> String {
    let mut text = String::new();
    for (index, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let _infallible = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{}\n  \
             namespace: default\n  labels: {{kubernetes.io/service-name: {service}}}\n\
             addressType: {family}\nports:\n",
            family.to_lowercase()
        );
        for (name, protocol, number) in ports {
            let _infallible = writeln!(text, "- {{name: {name}, protocol: {protocol}, port: {number}}}");
        }
        text += if ends.is_empty() { "endpoints: []\n" } else { "endpoints:\n" };
        for End { addresses, node, state } in ends {
            let (ready, serving, terminating) = match state {
                State::Ready => (true, true, false),
                State::Terminating => (false, true, true),
                State::Gone => (false, false, true),
                State::NotReady => (false, false, false),
            };
            let _infallible = writeln!(
                text,
                "- addresses: ['{}']\n  nodeName: {node}\n  \
                 conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}",
                addresses[index]
            );
        }
        text += "---\n";
    }
    text
}

/// The ports of the service `web`.
pub(crate) const WEB_PORTS: [(&str, &str, u16); 4] =
    [("http", "TCP", 80), ("who", "TCP", 90), ("udp", "UDP", 70), ("who-udp", "UDP", 90)];
