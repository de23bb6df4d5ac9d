//! The zone of a scenario: what the DNS server answers to every name that follows from the services, asked with `dig`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use sluice_dns::{DnsConfig, Publisher, Server, Upstreams};
use sluice_model::{Changes, Snapshot};

/// A DNS server of its own, on a free port of the loopback device.
pub(crate) struct Zone {
    publisher: Publisher,
    address: SocketAddr,
    /// Dropped, it ends the server.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Zone {
    pub(crate) fn new() -> Self {
        let config = DnsConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            // No answer may come from elsewhere.
            upstreams: Upstreams::None,
            udp_threads: 1,
            ..DnsConfig::default()
        };
        let server = Server::bind(config).unwrap();
        let (publisher, address) = (server.publisher(), server.addresses()[0]);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.run(async { drop(stopped.await) })).unwrap();
        });
        Self { publisher, address, _stop: stop }
    }

    /// Publishes, and returns all answers, sorted.
    pub(crate) fn render(&self, snapshot: &Snapshot, changes: &Changes) -> String {
        self.publisher.publish(snapshot, changes);
        let mut command = Command::new("dig");
        command.args([&format!("@{}", self.address.ip()), "-p", &self.address.port().to_string()]);
        for (name, kind) in questions(snapshot) {
            command.args(["+noall", "+answer", "+norecurse", "+tries=1", "+time=5", &name, kind]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
        let lines: BTreeSet<String> =
            lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

/// Every name that the services and their endpoints may have.
fn questions(snapshot: &Snapshot) -> BTreeSet<(String, &'static str)> {
    let mut questions = BTreeSet::new();
    let mut ask = |name: String, kinds: &[&'static str]| {
        questions.extend(kinds.iter().map(|kind| (name.clone(), *kind)));
    };
    for (name, service) in &snapshot.services {
        let base = format!("{}.{}.svc.cluster.local", name.name, name.namespace);
        ask(base.clone(), if service.external_name.is_some() { &["CNAME"] } else { &["A", "AAAA"] });
        for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
            let protocol = format!("{:?}", port.protocol).to_lowercase();
            ask(format!("_{}._{protocol}.{base}", port.name), &["SRV"]);
        }
        for address in &service.cluster_ips {
            ask(reverse(*address), &["PTR"]);
        }
        for endpoint in snapshot.slices_of(name).flat_map(|slice| &slice.endpoints) {
            for address in &endpoint.addresses {
                ask(reverse(*address), &["PTR"]);
            }
            if let Some(host) = &endpoint.hostname {
                ask(format!("{host}.{base}"), &["A", "AAAA"]);
            }
        }
    }
    questions
}

/// An address's reverse name.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}
