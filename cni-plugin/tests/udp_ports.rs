//! UDP flows to host ports of a node without a datapath, where connection tracking remembers whom they went to. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use common::{LIMIT, Node, Pod, with_ports};
use serde_json::json;
use sluice_netlink::Namespace;

/// How long an answer may take that has only two devices to pass.
const PATIENCE: Duration = Duration::from_millis(300);

/// Answers datagrams at port 53 with a name, as long as the test runs.
fn serve(pod: &Namespace, name: &'static str) {
    // Of both families.
    let server = pod.run(|| UdpSocket::bind("[::]:53").unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(name.as_bytes(), from);
        }
    });
}

/// A client that keeps its port, so that all it sends to one address is one flow.
struct Client {
    socket: UdpSocket,
    target: &'static str,
}

impl Client {
    fn new(namespace: &Namespace, own: &'static str, target: &'static str) -> Self {
        let socket = namespace.run(|| UdpSocket::bind(own).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, target }
    }

    /// Who answers, if anybody does.
    fn ask(&self) -> Option<String> {
        let mut buffer = [0; 16];
        // An error of an earlier datagram is told here; it says nothing about this one.
        while self.socket.send_to(b"who", self.target).is_err() {}
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Who answers before long: a machine that is busy may take more than one try.
    fn ask_until_answered(&self) -> String {
        let started = Instant::now();
        loop {
            if let Some(answer) = self.ask() {
                return answer;
            }
            assert!(started.elapsed() < LIMIT, "{} does not answer", self.target);
        }
    }
}

#[test]
fn a_udp_flow_comes_to_whoever_has_the_host_port_now() {
    let node = Node::new();
    let outside = node.outside();
    let plain = node.config(json!({}));
    let config = with_ports(&plain, json!([{ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }]));
    // The packet filter is at work before anybody has the port.
    let other = with_ports(&plain, json!([{ "hostPort": 1, "containerPort": 1, "protocol": "udp" }]));
    node.add(&Pod::new("other"), &other).ok();
    let clients = [
        Client::new(&outside, "0.0.0.0:4444", "192.0.2.1:5353"),
        Client::new(&outside, "[::]:4445", "[2001:db8::1]:5353"),
        Client::new(&node.namespace, "0.0.0.0:4446", "192.0.2.1:5353"),
    ];
    for client in &clients {
        assert_eq!(client.ask(), None, "nobody has the port yet");
    }
    for name in ["first", "second"] {
        let pod = Pod::new(name);
        serve(&pod.namespace, name);
        node.add(&pod, &config).ok();
        for client in &clients {
            assert_eq!(client.ask_until_answered(), name, "{}", client.target);
        }
        node.del(&pod, &config).ok();
        for client in &clients {
            assert_eq!(client.ask(), None, "{name} is gone");
        }
    }
}
