//! Who is asked, in which order, and what of it clients notice.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sluice_model::Changes;

use super::{V4, addresses, cluster, config, listening};
use crate::{
    CacheConfig, DnsConfig, ForwardOptions, Policy, StubDomain, Tls, Upstreams,
    testing::{
        bed::{Running, World, eventually, in_namespace, sh},
        *,
    },
};

fn ask(options: &str) -> String {
    sh(&format!("dig +tries=1 +timeout=5 @10.96.0.10 {options}"))
}

fn at(addresses: &[&str]) -> Upstreams {
    Upstreams::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

fn no_cache() -> CacheConfig {
    CacheConfig { enabled: false, ..CacheConfig::default() }
}

fn serve(config: DnsConfig) -> Running {
    addresses();
    let running = Running::start(listening(config));
    running.publisher.publish(&snapshot(cluster()), &Changes::everything());
    running
}

const TWO: [&str; 2] = ["127.0.0.53:53", "127.0.0.54:53"];

#[test]
fn policies_spread_questions_as_they_say() {
    for (policy, holds) in [
        (Policy::Sequential, (|a, b| (a, b) == (12, 0)) as fn(usize, usize) -> bool),
        (Policy::RoundRobin, |a, b| (a, b) == (6, 6)),
        (Policy::Random, |a, b| a > 0 && b > 0 && a + b == 12),
    ] {
        in_namespace(move || {
            let worlds = TWO.map(World::start);
            let forward = ForwardOptions { policy, ..ForwardOptions::default() };
            let _running = serve(DnsConfig { upstreams: at(&TWO), forward, cache: no_cache(), ..config() });
            for _ in 0..12 {
                assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
            }
            let [first, second] = worlds.map(|world| world.queries());
            assert!(holds(first, second), "{policy:?}: {first} and {second}");
        });
    }
}

#[test]
fn a_domain_may_have_upstreams_of_its_own() {
    in_namespace(|| {
        let worlds = TWO.map(World::start);
        let stub = |zone: &str, upstreams| StubDomain {
            zone: zone.to_owned(),
            upstreams,
            max_concurrent: 10,
            forward: ForwardOptions::default(),
            next: Vec::new(),
            cache: CacheConfig::default(),
        };
        let stub_domains = vec![
            stub("org", Upstreams::None),
            stub("Example.ORG.", at(&[TWO[1]])),
            stub("private.example.org", Upstreams::None),
        ];
        let _running = serve(DnsConfig { upstreams: at(&[TWO[0]]), stub_domains, ..config() });
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        assert_eq!(ask("+short out.default.svc.cluster.local"), "www.example.org.\n192.0.2.80\n");
        assert!(ask("a.private.example.org").contains("status: REFUSED"));
        assert!(ask("www.other.org").contains("status: REFUSED"));
        assert!(ask("www.example.net").contains("status: NOERROR"));
        assert_eq!(worlds.map(|world| world.queries()), [1, 1]);
    });
}

#[test]
fn tcp_only_and_the_next_server_after_a_code() {
    in_namespace(|| {
        let worlds = TWO.map(World::start);
        let forward = ForwardOptions {
            policy: Policy::Sequential,
            force_tcp: true,
            failover: vec![3],
            ..ForwardOptions::default()
        };
        // The first one of the three is not there at all.
        let upstreams = at(&["127.0.0.52:53", TWO[0], TWO[1]]);
        let _running = serve(DnsConfig { upstreams, forward, cache: no_cache(), ..config() });
        assert_eq!(ask("+short +notcp www.example.org"), "192.0.2.80\n");
        assert_eq!(worlds.each_ref().map(|world| (world.queries(), world.over_tcp())), [(1, 1), (0, 0)]);
        // Both say that there is no such name: the last one's word counts.
        assert!(ask("nothing.example.org").contains("status: NXDOMAIN"));
        assert_eq!(worlds.map(|world| world.over_tcp()), [2, 1]);
    });
}

#[test]
fn a_connection_serves_many_questions() {
    in_namespace(|| {
        let world = World::start(TWO[0]);
        let forward = ForwardOptions { force_tcp: true, ..ForwardOptions::default() };
        let _running = serve(DnsConfig { upstreams: at(&[TWO[0]]), forward, cache: no_cache(), ..config() });
        for _ in 0..5 {
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        }
        assert_eq!((world.over_tcp(), world.connections()), (5, 1));
        // One whose question timed out is not used again.
        assert!(ask("silent.example.org").contains("status: SERVFAIL"));
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        assert!(world.connections() > 1);
    });
}

#[test]
fn upstreams_over_tls_must_prove_who_they_are() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = Some(folder.path().join("ca.pem"));
        let address = "127.0.0.53:853";
        let world =
            World::start_tls(address, &["dns.example.org", "127.0.0.53"], ca_file.as_deref().unwrap());
        let other_ca = folder.path().join("other.pem");
        World::start_tls("127.0.0.54:853", &["dns.example.org"], &other_ca);
        let with = |tls: Tls| {
            let forward = ForwardOptions { tls: Some(tls), ..ForwardOptions::default() };
            listening(DnsConfig { upstreams: at(&[address]), forward, cache: no_cache(), ..config() })
        };
        let server_name = Some("dns.example.org".to_owned());
        let named =
            with(Tls { server_name: server_name.clone(), ca_file: ca_file.clone(), ..Tls::default() });
        let running = serve(named);
        for _ in 0..3 {
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        }
        assert_eq!((world.over_tcp(), world.connections()), (3, 1));
        assert_eq!(
            world.server_names().as_slice(),
            std::slice::from_ref(&server_name),
            "said in the handshake"
        );
        let snapshot = snapshot(cluster());
        for (tls, is_good) in [
            (Tls { server_name: None, ca_file: ca_file.clone(), ..Tls::default() }, true),
            (Tls { server_name: Some("other.example.org".to_owned()), ca_file, ..Tls::default() }, false),
            (Tls { server_name, ca_file: Some(other_ca), ..Tls::default() }, false),
        ] {
            running.configurator.apply(&with(tls), &snapshot).unwrap();
            let wanted = if is_good { "NOERROR" } else { "SERVFAIL" };
            assert!(ask("www.example.org").contains(&format!("status: {wanted}")));
        }
        let missing = Tls { server_name: None, ca_file: Some("/nowhere/ca.pem".into()), ..Tls::default() };
        assert!(running.configurator.apply(&with(missing), &snapshot).is_err());
    });
}

/// An upstream that asks us in turn, as a node's own resolver may that was told to use the cluster's DNS. How often it was asked.
fn asks_in_turn(address: &str) -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind(address).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            seen.fetch_add(1, Ordering::SeqCst);
            let (socket, query) = (socket.try_clone().unwrap(), buffer[..length].to_vec());
            std::thread::spawn(move || {
                let onward = UdpSocket::bind("0.0.0.0:0").unwrap();
                onward.send_to(&query, V4).unwrap();
                let mut answer = [0; 512];
                let length = onward.recv(&mut answer).unwrap();
                socket.send_to(&answer[..length], client).unwrap();
            });
        }
    });
    count
}

#[test]
fn a_loop_is_found_and_others_are_asked_first() {
    in_namespace(|| {
        let count = asks_in_turn("127.0.0.53:53");
        let _world = World::start("127.0.0.54:53");
        let forward = ForwardOptions { policy: Policy::Sequential, ..ForwardOptions::default() };
        let config =
            DnsConfig { upstreams: at(&TWO), forward, cache: no_cache(), detect_loops: true, ..config() };
        let running = serve(config);
        eventually("the loop is found", || {
            running.metric("sluice_dns_upstream_loop{to=\"127.0.0.53:53\"}") == 1.0
        });
        assert_eq!(running.metric("sluice_dns_upstream_loop{to=\"127.0.0.54:53\"}"), 0.0);
        assert_eq!(running.configurator.looping_upstreams(), [TWO[0].parse().unwrap()].into());
        let before = count.load(Ordering::SeqCst);
        for _ in 0..5 {
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        }
        assert_eq!(count.load(Ordering::SeqCst), before, "it is asked no more, as there is another");
    });
}

#[test]
fn a_loop_ends_by_itself() {
    in_namespace(|| {
        let count = asks_in_turn("127.0.0.53:53");
        let _running = serve(DnsConfig { upstreams: at(&["127.0.0.53:53"]), ..config() });
        assert!(ask("www.example.org").contains("status: SERVFAIL"));
        // The question that comes back waits for itself: no more than the attempts and the health checks.
        let count = count.load(Ordering::SeqCst);
        assert!(count < 20, "{count} questions went round");
        assert_eq!(ask("+short web.default.svc.cluster.local"), "10.96.0.20\n");
    });
}
