//! Tests of the whole, and the cluster they are about.

mod answers;
mod autopath;
mod caching;
mod connections;
mod corefile;
mod counted;
mod dnssec;
mod external;
mod files;
mod forwarding;
mod half_dead;
mod hostile;
mod imports;
mod keys;
mod master;
mod multicluster;
mod names;
mod options;
mod order;
mod properties;
mod reload;
mod rewriting;
mod rules;
mod saved;
mod sockets;
mod transfers;
mod upstreams;
mod ways;
mod zonal;

use std::{net::UdpSocket, time::Duration};

use sluice_model::{Changes, Object};

use crate::{
    DnsConfig, Upstreams,
    testing::{
        bed::{Running, World, sh},
        *,
    },
};

fn config() -> DnsConfig {
    DnsConfig {
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()],
        // Upstreams are asked nothing but what a test asks.
        detect_loops: false,
        ..DnsConfig::default()
    }
}

fn cluster() -> Vec<Object> {
    vec![
        namespace("default"),
        namespace("empty"),
        cluster_ip("default/web", &["10.96.0.20", "fd00:96::20"], &["http/TCP/80", "dns/UDP/53", "/TCP/9"]),
        slice("web-1", "default/web", &["http/TCP/8080"], &["10.1.0.5", "10.1.0.6=named", "10.1.0.7!"]),
        cluster_ip("default/four", &["10.96.0.21"], &["/TCP/80"]),
        headless("default/db"),
        slice(
            "db-4",
            "default/db",
            &["sql/TCP/5432", "sql/SCTP/5432"],
            &["10.1.0.8=db-0", "10.1.0.9=db-1", "10.1.0.10=db-2!"],
        ),
        slice("db-6", "default/db", &["sql/TCP/5432"], &["fd00:1::8=db-0"]),
        headless("default/plain"),
        slice("plain-4", "default/plain", &["x/TCP/1"], &["10.1.0.5"]),
        slice("plain-5", "default/plain", &["x/TCP/1"], &["10.1.0.5"]),
        headless("default/six"),
        slice("six-6", "default/six", &[], &["fd00:1::"]),
        headless("default/unready"),
        slice("unready-4", "default/unready", &["x/TCP/1"], &["10.1.0.11!"]),
        external("default/out", "www.example.org"),
        external("default/alias", "web.default.svc.cluster.local"),
        external("default/chain", "alias.default.svc.cluster.local."),
        external("default/ring", "ring.default.svc.cluster.local"),
        external("default/lost", "nothing.default.svc.cluster.local"),
        external("default/number", "192.0.2.1"),
        cluster_ip("implied/there", &["10.96.0.22"], &[]),
    ]
}

/// The cluster DNS addresses.
pub(crate) const V4: &str = "10.96.0.10:53";
pub(crate) const V6: &str = "[fd00:96::a]:53";

/// Gives them to a device.
pub(crate) fn addresses() {
    sh("ip addr add 10.96.0.10/32 dev lo && ip addr add fd00:96::a/128 dev lo nodad");
}

/// A server there.
pub(crate) fn listening(config: DnsConfig) -> DnsConfig {
    DnsConfig { listen: vec![V4.parse().unwrap(), V6.parse().unwrap()], udp_threads: 2, ..config }
}

/// A server that knows the cluster and forwards to a world at 127.0.0.53.
pub(crate) fn served(config: DnsConfig) -> (Running, World) {
    addresses();
    let world = World::start("127.0.0.53:53");
    let upstreams = Upstreams::Addresses(vec!["127.0.0.53:53".parse().unwrap()]);
    let running = Running::start(DnsConfig { upstreams, ..listening(config) });
    running.publisher.publish(&snapshot(cluster()), &Changes::everything());
    (running, world)
}

/// Sends a message over UDP; the answer, if one comes.
pub(crate) fn exchange(message: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(V4).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send(message).unwrap();
    let mut buffer = vec![0; 65_535];
    socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())
}
