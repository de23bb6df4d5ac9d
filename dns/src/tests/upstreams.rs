//! Upstreams that change, fall silent, or are too few.

use std::{
    net::UdpSocket,
    path::Path,
    time::{Duration, Instant},
};

use sluice_model::Changes;

use super::{addresses, cluster, config, listening, served};
use crate::{
    CacheConfig, DnsConfig, Upstreams,
    testing::{
        bed::{Running, World, eventually, in_namespace, sh},
        *,
    },
};

#[test]
fn a_changed_resolv_conf_is_followed() {
    in_namespace(|| {
        addresses();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 10.96.0.10\n").unwrap();
        let upstreams = Upstreams::ResolvConf(file.clone());
        let running = Running::start(DnsConfig { upstreams, ..listening(config()) });
        running.publisher.publish(&snapshot(cluster()), &Changes::everything());
        // Its own address is no upstream: no loop, an error.
        assert!(sh("dig +tries=1 @10.96.0.10 www.example.org").contains("status: SERVFAIL"));
        let _world = World::start("127.0.0.54:53");
        replace(&file, "nameserver 127.0.0.54\n");
        eventually("the new upstream is asked", || {
            sh("dig +short +tries=1 @10.96.0.10 www.example.org") == "192.0.2.80\n"
        });
        // Lost, the file leaves what it said in force.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(sh("dig +short +tries=1 @10.96.0.10 AAAA www.example.org"), "2001:db8::80\n");
    });
}

#[test]
fn a_server_behind_an_interface_is_asked_there() {
    in_namespace(|| {
        addresses();
        sh(
            "ip link add outside type veth peer name other && ip link set other up && ip link set outside up && ip addr add fe80::53/64 dev outside nodad",
        );
        let index = nix::net::if_::if_nametoindex("outside").unwrap();
        let world = World::start(&format!("[fe80::53%{index}]:53"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver fe80::53%outside\n").unwrap();
        let running =
            Running::start(DnsConfig { upstreams: Upstreams::ResolvConf(file), ..listening(config()) });
        running.publisher.publish(&snapshot(cluster()), &Changes::everything());
        assert_eq!(sh("dig +short +tries=1 @10.96.0.10 www.example.org"), "192.0.2.80\n");
        // Fetched over TCP.
        assert_eq!(sh("dig +short +tries=1 @10.96.0.10 big.example.org").lines().count(), 200);
        assert_eq!((world.queries(), world.over_tcp()), (3, 1));
    });
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn a_dead_upstream_is_passed_over() {
    in_namespace(|| {
        addresses();
        let _world = World::start("127.0.0.53:53");
        // Nobody listens at the second; the third takes queries and says nothing.
        let silent = UdpSocket::bind("127.0.0.55:53").unwrap();
        let upstreams = ["127.0.0.53:53", "127.0.0.54:53", "127.0.0.55:53"].map(|a| a.parse().unwrap());
        let upstreams = Upstreams::Addresses(upstreams.to_vec());
        let cache = CacheConfig { enabled: false, ..CacheConfig::default() };
        let running = Running::start(DnsConfig { upstreams, cache, ..listening(config()) });
        running.publisher.publish(&snapshot(cluster()), &Changes::everything());
        eventually("both are known to be down", || {
            let printed = sh("dig +short +tries=1 +timeout=5 @10.96.0.10 www.example.org");
            assert_eq!(printed, "192.0.2.80\n", "whichever is asked first");
            let failures = |port| {
                running.metric(&format!("coredns_proxy_healthcheck_failures_total{{proxy_name=\"forward\",to=\"127.0.0.{port}:53\"}}"))
            };
            failures(54) >= 2.0 && failures(55) >= 2.0
        });
        // Health checks go on; questions do not come there any more.
        silent.set_nonblocking(true).unwrap();
        let questions = || {
            let mut buffer = [0; 512];
            let packets =
                std::iter::from_fn(|| silent.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
            packets.filter(|packet| packet.windows(7).any(|part| part == b"example")).count()
        };
        questions();
        for _ in 0..10 {
            assert_eq!(sh("dig +short +tries=1 @10.96.0.10 www.example.org"), "192.0.2.80\n");
        }
        assert_eq!(questions(), 0);
    });
}

#[test]
fn a_name_nobody_answers_for_fails_before_the_client_gives_up() {
    in_namespace(|| {
        let (_running, _world) = served(config());
        let start = Instant::now();
        assert!(sh("dig +tries=1 +timeout=5 @10.96.0.10 silent.example.org").contains("status: SERVFAIL"));
        assert!(start.elapsed() < Duration::from_millis(4900));
    });
}

#[test]
fn too_many_at_once_are_refused_and_none_upstream_is_refused() {
    in_namespace(|| {
        let (running, world) = served(DnsConfig { max_concurrent: 1, ..config() });
        let client = std::thread::spawn(|| sh("dig +short +tries=1 @10.96.0.10 slow.example.org"));
        eventually("the query is under way", || world.queries() == 1);
        assert!(sh("dig +tries=1 @10.96.0.10 www.example.org").contains("status: REFUSED"));
        assert_eq!(running.metric("coredns_forward_max_concurrent_rejects_total"), 1.0);
        assert_eq!(client.join().unwrap(), "192.0.2.81\n");
        drop(running);

        let upstreams = Upstreams::None;
        let running = Running::start(DnsConfig { upstreams, ..listening(config()) });
        running.publisher.publish(&snapshot(cluster()), &Changes::everything());
        let printed = sh("dig +tries=1 @10.96.0.10 www.example.org");
        assert!(printed.contains("status: REFUSED") && printed.contains("flags: qr rd;"), "{printed}");
        assert_eq!(sh("dig +short @10.96.0.10 out.default.svc.cluster.local"), "www.example.org.\n");
    });
}
