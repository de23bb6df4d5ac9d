//! Upstreams that are neither well nor dead, and what clients notice of it.

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_model::Changes;

use super::{addresses, cluster, config, listening};
use crate::{
    CacheConfig, DnsConfig, ForwardOptions, Policy, Tls, Upstreams,
    testing::{
        bed::{Running, World, eventually, in_namespace, sh},
        framing::read_framed,
        script::{answer, name, over_tcp, over_udp, write},
        *,
    },
};

/// How long one server is given.
const ATTEMPT: Duration = Duration::from_millis(1500);

fn served(upstreams: &[&str], forward: ForwardOptions) -> Running {
    addresses();
    let upstreams = Upstreams::Addresses(upstreams.iter().map(|a| a.parse().unwrap()).collect());
    let cache = CacheConfig { enabled: false, ..CacheConfig::default() };
    let running = Running::start(DnsConfig { upstreams, forward, cache, ..listening(config()) });
    running.publisher.publish(&snapshot(cluster()), &Changes::everything());
    running
}

/// What a client with one try gets, and how long it waits for it.
fn ask(name: &str) -> (String, Duration) {
    let start = Instant::now();
    let printed = sh(&format!("dig +short +tries=1 +timeout=5 @10.96.0.10 {name}"));
    (printed, start.elapsed())
}

#[test]
fn one_that_takes_connections_and_says_nothing_is_left_for_the_next() {
    for over_tls in [false, true] {
        in_namespace(move || {
            let folder = tempfile::tempdir().unwrap();
            let ca_file = folder.path().join("ca.pem");
            let port = if over_tls { 853 } else { 53 };
            let [silent, good] = [52, 53].map(|host| format!("127.0.0.{host}:{port}"));
            // The kernel takes them; nobody does a handshake.
            let _silent = TcpListener::bind(&silent).unwrap();
            let tls = over_tls.then(|| {
                World::start_tls(&good, &["127.0.0.53"], &ca_file);
                Tls { ca_file: Some(ca_file), ..Tls::default() }
            });
            if !over_tls {
                World::start(&good);
            }
            let forward = ForwardOptions {
                policy: Policy::Sequential,
                force_tcp: true,
                tls,
                ..ForwardOptions::default()
            };
            let running = served(&[&silent, &good], forward);
            let (said, took) = ask("www.example.org");
            assert_eq!(said, "192.0.2.80\n");
            assert!(took >= ATTEMPT, "the first is given its time: {took:?}");
            eventually("it is known to be down", || {
                running.metric("coredns_proxy_healthcheck_failures_total") >= 2.0
            });
            for _ in 0..3 {
                let (said, took) = ask("www.example.org");
                assert_eq!(said, "192.0.2.80\n");
                assert!(took < ATTEMPT, "{took:?}");
            }
        });
    }
}

#[test]
fn a_connection_that_goes_dead_is_left_for_another() {
    in_namespace(|| {
        // The first one lasts for one answer, as if something on the way had forgotten it.
        let connections = over_tcp("127.0.0.53:53", |number, mut stream| {
            while let Some(query) = read_framed(&mut stream) {
                write(&mut stream, &answer(&query, 7));
                if number == 0 {
                    loop {
                        std::thread::park();
                    }
                }
            }
        });
        let forward = ForwardOptions { force_tcp: true, ..ForwardOptions::default() };
        let _running = served(&["127.0.0.53:53"], forward);
        for within in [ATTEMPT, 2 * ATTEMPT, ATTEMPT, ATTEMPT] {
            let (said, took) = ask("www.example.org");
            assert_eq!(said, "192.0.2.7\n");
            assert!(took < within, "{took:?}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn of_one_without_tcp_the_part_over_udp_is_told() {
    for takes_connections in [false, true] {
        in_namespace(move || {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            over_udp("127.0.0.53:53", move |socket, query, client| {
                count.fetch_add(1, Ordering::SeqCst);
                let mut part = answer(&query, 7);
                part[2] |= 2;
                // A part of a record is no use.
                let end = part.len() - if name(&query).starts_with("cut") { 2 } else { 0 };
                let _ = socket.send_to(&part[..end], client);
            });
            let _silent = takes_connections.then(|| TcpListener::bind("127.0.0.53:53").unwrap());
            addresses();
            let upstreams = Upstreams::Addresses(vec!["127.0.0.53:53".parse().unwrap()]);
            let running = Running::start(DnsConfig { upstreams, ..listening(config()) });
            running.publisher.publish(&snapshot(cluster()), &Changes::everything());
            for n in 1..3 {
                let printed = sh("dig +ignore +tries=1 +timeout=5 @10.96.0.10 www.example.org");
                assert!(
                    printed.contains("flags: qr tc rd") && printed.contains("\t192.0.2.7\n"),
                    "{printed}"
                );
                assert_eq!(asked.load(Ordering::SeqCst), n, "a part is not kept");
            }
            let printed = sh("dig +ignore +tries=1 +timeout=5 @10.96.0.10 cut.example.org");
            assert!(printed.contains("status: SERVFAIL"), "{printed}");
        });
    }
}

#[test]
fn what_is_cut_over_tcp_is_told_as_what_it_is() {
    in_namespace(|| {
        over_tcp("127.0.0.53:53", |_, mut stream| {
            while let Some(query) = read_framed(&mut stream) {
                let mut part = answer(&query, 7);
                part[2] |= 2;
                write(&mut stream, &part);
            }
        });
        let forward = ForwardOptions { force_tcp: true, ..ForwardOptions::default() };
        let _running = served(&["127.0.0.53:53"], forward);
        let printed = sh("dig +tcp +tries=1 +timeout=5 @10.96.0.10 www.example.org");
        assert!(printed.contains("flags: qr tc rd") && printed.contains("\t192.0.2.7\n"), "{printed}");
    });
}

#[test]
fn one_that_loses_every_other_question_is_asked_again() {
    in_namespace(|| {
        let mut lost = BTreeSet::new();
        over_udp("127.0.0.53:53", move |socket, query, client| {
            // The first about each name.
            if !lost.insert(name(&query)) {
                let _ = socket.send_to(&answer(&query, 7), client);
            }
        });
        let _running = served(&["127.0.0.53:53"], ForwardOptions::default());
        for name in ["a.example.org", "b.example.org"] {
            let (said, took) = ask(name);
            assert_eq!(said, "192.0.2.7\n");
            // Before the client asks again by itself.
            assert!(took < 2 * ATTEMPT, "{took:?}");
        }
    });
}

#[test]
fn where_all_are_down_any_of_them_is_asked() {
    for fail_fast in [false, true] {
        in_namespace(move || {
            let sockets = ["127.0.0.53:53", "127.0.0.54:53"].map(|address| {
                let socket = UdpSocket::bind(address).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            });
            let asked = || {
                sockets.each_ref().map(|socket| {
                    let mut buffer = [0; 512];
                    let queries = std::iter::from_fn(|| socket.recv(&mut buffer).ok());
                    // Those of clients are longer than the health checks, which are about the root.
                    queries.filter(|length| *length > 30).count()
                })
            };
            let policy = Policy::Sequential;
            let forward = ForwardOptions { policy, fail_fast, ..ForwardOptions::default() };
            let running = served(&["127.0.0.53:53", "127.0.0.54:53"], forward);
            ask("www.example.org");
            let broken = || running.metric("coredns_forward_healthcheck_broken_total");
            let failures = |host| {
                let to = format!("{{proxy_name=\"forward\",to=\"127.0.0.{host}:53\"}}");
                running.metric(&format!("coredns_proxy_healthcheck_failures_total{to}"))
            };
            eventually("both are known to be down", || failures(53) >= 2.0 && failures(54) >= 2.0);
            assert_eq!(broken(), 0.0);
            asked();
            let clients: Vec<_> =
                (0..16).map(|n| std::thread::spawn(move || ask(&format!("n{n}.example.org")))).collect();
            // One question each before the first time is up.
            if !fail_fast {
                let mut first = [0, 0];
                eventually("whatever the policy says, both are asked", || {
                    let now = asked();
                    first = [first[0] + now[0], first[1] + now[1]];
                    first[0] > 0 && first[1] > 0
                });
            }
            for client in clients {
                // An error, and before the client gives up.
                assert_eq!(client.join().unwrap().0, "");
            }
            assert_eq!(broken(), 16.0);
            assert!(!fail_fast || asked() == [0, 0]);
        });
    }
}
