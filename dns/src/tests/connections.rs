//! Connections to upstreams: shared, cut, left idle, and never too many.

use std::{
    collections::BTreeSet,
    net::{Shutdown, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType::A;
use sluice_model::Changes;

use super::{V4, addresses, cluster, config, exchange, listening};
use crate::{
    CacheConfig, DnsConfig, ForwardOptions, Upstreams,
    testing::{
        bed::{Running, eventually, in_namespace},
        framing::read_framed,
        script::{answer, name, over_tcp, over_udp, write},
        *,
    },
};

const UPSTREAM: &str = "127.0.0.53:53";

/// A server that asks one upstream.
fn served(forward: ForwardOptions) -> Running {
    addresses();
    let upstreams = Upstreams::Addresses(vec![UPSTREAM.parse().unwrap()]);
    let cache = CacheConfig { enabled: false, ..CacheConfig::default() };
    let running = Running::start(DnsConfig { upstreams, forward, cache, ..listening(config()) });
    running.publisher.publish(&snapshot(cluster()), &Changes::everything());
    running
}

fn tcp() -> ForwardOptions {
    ForwardOptions { force_tcp: true, ..ForwardOptions::default() }
}

/// A client of its own asks; what it gets is the last byte of the address.
fn asks(name: &str) -> JoinHandle<Option<u8>> {
    let question = question(name, A);
    std::thread::spawn(move || {
        let message = exchange(&question).expect("an answer");
        (message[3] & 0xf == 0).then(|| *message.last().unwrap())
    })
}

#[test]
fn questions_share_a_connection_and_are_answered_as_they_are_ready() {
    in_namespace(|| {
        let is_there = Arc::new(AtomicBool::new(false));
        let came = is_there.clone();
        let connections = over_tcp(UPSTREAM, move |_, mut stream| {
            let first = read_framed(&mut stream).unwrap();
            came.store(true, Ordering::SeqCst);
            let second = read_framed(&mut stream).unwrap();
            write(&mut stream, &answer(&second, 2));
            write(&mut stream, &answer(&first, 1));
            assert_eq!(read_framed(&mut stream), None);
        });
        let _running = served(tcp());
        let first = asks("first.example.org.");
        eventually("the first is asked", || is_there.load(Ordering::SeqCst));
        let second = asks("second.example.org.");
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Some(1), Some(2)));
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    });
}

/// Closes so that the other side is told of an error.
fn reset(stream: TcpStream) {
    socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_connection_that_the_upstream_closes_is_no_failure() {
    let ends: [fn(TcpStream); 2] = [drop, reset];
    for end in ends {
        in_namespace(move || {
            let connections = over_tcp(UPSTREAM, move |_, mut stream| {
                let query = read_framed(&mut stream).unwrap();
                write(&mut stream, &answer(&query, 7));
                end(stream);
            });
            let running = served(tcp());
            for _ in 0..5 {
                let start = Instant::now();
                assert_eq!(asks("www.example.org.").join().unwrap(), Some(7));
                assert!(start.elapsed() < Duration::from_millis(1500), "no attempt was in vain");
            }
            assert!((5..=10).contains(&connections.load(Ordering::SeqCst)));
            assert_eq!(running.metric("coredns_proxy_healthcheck_failures_total"), 0.0);
        });
    }
}

#[test]
fn what_was_asked_on_a_connection_that_closes_is_asked_again() {
    in_namespace(|| {
        let is_there = Arc::new(AtomicBool::new(false));
        let came = is_there.clone();
        // It answers the first question of the first connection, as if there were no others.
        over_tcp(UPSTREAM, move |number, mut stream| {
            let mut query = read_framed(&mut stream).unwrap();
            came.store(true, Ordering::SeqCst);
            if number == 0 {
                read_framed(&mut stream).unwrap();
                write(&mut stream, &answer(&query, 1));
                stream.shutdown(Shutdown::Both).unwrap();
                return;
            }
            loop {
                write(&mut stream, &answer(&query, if name(&query).starts_with("second") { 2 } else { 3 }));
                let Some(next) = read_framed(&mut stream) else { return };
                query = next;
            }
        });
        let _running = served(tcp());
        let first = asks("first.example.org.");
        eventually("the first is asked", || is_there.load(Ordering::SeqCst));
        let second = asks("second.example.org.");
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Some(1), Some(2)));
    });
}

#[test]
fn idle_connections_are_closed() {
    in_namespace(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = ended.clone();
        over_tcp(UPSTREAM, move |_, mut stream| {
            while let Some(query) = read_framed(&mut stream) {
                write(&mut stream, &answer(&query, 7));
            }
            count.fetch_add(1, Ordering::SeqCst);
        });
        let _running = served(ForwardOptions { idle_for: Duration::from_millis(200), ..tcp() });
        assert_eq!(asks("www.example.org.").join().unwrap(), Some(7));
        eventually("the connection is closed", || ended.load(Ordering::SeqCst) == 1);
        assert_eq!(asks("www.example.org.").join().unwrap(), Some(7));
    });
}

#[test]
fn connections_in_use_get_as_old_as_they_may() {
    in_namespace(|| {
        let connections = over_tcp(UPSTREAM, |_, mut stream| {
            while let Some(query) = read_framed(&mut stream) {
                write(&mut stream, &answer(&query, 7));
            }
        });
        let _running = served(ForwardOptions { max_age: Some(Duration::from_millis(500)), ..tcp() });
        eventually("the third connection is used", || {
            assert_eq!(asks("www.example.org.").join().unwrap(), Some(7));
            connections.load(Ordering::SeqCst) == 3
        });
    });
}

/// Asks for so many names at one time, until all are answered.
fn flood(names: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(V4).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut open: BTreeSet<usize> = (0..names).collect();
    let end = Instant::now() + Duration::from_secs(20);
    let mut buffer = [0; 512];
    while !open.is_empty() {
        assert!(Instant::now() < end, "{} questions of {names} have no answer", open.len());
        for batch in open.iter().copied().collect::<Vec<_>>().chunks(50) {
            for n in batch {
                let mut message = question(&format!("n{n}.example.org."), A);
                message[..2].copy_from_slice(&(*n as u16).to_be_bytes());
                let _ = socket.send(&message);
            }
            while let Ok(length) = socket.recv(&mut buffer) {
                let answer = &buffer[..length];
                assert_eq!(answer[3] & 0xf, 0, "refused or failed");
                open.remove(&usize::from(u16::from_be_bytes([answer[0], answer[1]])));
            }
        }
    }
}

/// UDP sockets in this network namespace that are connected to port 53.
fn sockets() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let towards = |line: &&str| line.split_whitespace().nth(2).is_some_and(|to| to.ends_with(":0035"));
    table.lines().filter(towards).count()
}

#[test]
fn a_thousand_questions_take_as_many_sockets_and_no_more() {
    in_namespace(|| {
        // Answers when all are there: a thousand are under way.
        let (most, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (highest, count) = (most.clone(), seen.clone());
        let mut waiting = Vec::new();
        over_udp(UPSTREAM, move |socket, query, client| {
            waiting.push((query, client));
            if count.fetch_add(1, Ordering::SeqCst) + 1 >= 1000 {
                highest.fetch_max(sockets(), Ordering::SeqCst);
                for (query, client) in waiting.drain(..) {
                    let _ = socket.send_to(&answer(&query, 7), client);
                }
            }
        });
        let running = served(ForwardOptions::default());
        flood(1000);
        let most = most.load(Ordering::SeqCst);
        assert!((100..=1010).contains(&most), "{most} sockets");
        assert_eq!(running.metric("coredns_forward_max_concurrent_rejects_total"), 0.0);
        eventually("they are closed", || sockets() <= 1);
    });
}

#[test]
fn a_thousand_questions_share_the_connections_that_there_may_be() {
    in_namespace(|| {
        let connections = over_tcp(UPSTREAM, |_, mut stream| {
            while let Some(query) = read_framed(&mut stream) {
                write(&mut stream, &answer(&query, 7));
            }
        });
        let running = served(ForwardOptions { max_idle: 4, ..tcp() });
        flood(1000);
        assert_eq!(running.metric("coredns_proxy_healthcheck_failures_total"), 0.0);
        assert!((1..=4).contains(&connections.load(Ordering::SeqCst)), "{connections:?}");
    });
}
