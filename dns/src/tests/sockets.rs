//! A real server on real sockets, asked by `dig` and `nslookup` and by clients that mean no good.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use sluice_model::Changes;

use super::{V4, addresses, cluster, config, exchange, listening, served};
use crate::{
    DnsConfig,
    testing::{
        bed::{Running, eventually, in_namespace, sh},
        framing::{framed, read_framed},
        *,
    },
};

fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

#[test]
fn dig_and_nslookup_get_what_the_specification_says() {
    in_namespace(|| {
        let (_running, _world) = served(config());
        for server in ["10.96.0.10", "fd00:96::a"] {
            for protocol in ["+notcp", "+tcp"] {
                for (question, lines) in [
                    ("web.default.svc.cluster.local A", "10.96.0.20\n"),
                    ("web.default.svc.cluster.local AAAA", "fd00:96::20\n"),
                    ("db-0.db.default.svc.cluster.local", "10.1.0.8\n"),
                    (
                        "_http._tcp.web.default.svc.cluster.local SRV",
                        "0 100 80 web.default.svc.cluster.local.\n",
                    ),
                    ("dns-version.cluster.local TXT", "\"1.1.0\"\n"),
                    ("-x 10.96.0.20", "web.default.svc.cluster.local.\n"),
                    ("-x fd00:96::20", "web.default.svc.cluster.local.\n"),
                    ("out.default.svc.cluster.local", "www.example.org.\n192.0.2.80\n"),
                    ("alias.example.org", "www.example.org.\n192.0.2.80\n"),
                    ("odd.example.org TYPE65400", "\\# 3 6F6464\n"),
                    ("nothing.example.org", ""),
                ] {
                    let printed =
                        sh(&format!("dig +short +tries=1 +timeout=3 {protocol} @{server} {question}"));
                    assert_eq!(printed, lines, "{question} {protocol} @{server}");
                }
            }
        }
        let printed =
            plain(&sh("dig +noall +comments +question +answer @10.96.0.10 WEB.default.svc.CLUSTER.local"));
        for part in [
            "status: NOERROR",
            "flags: qr aa rd ra;",
            "udp: 1232",
            "WEB.default.svc.CLUSTER.local. 30 IN A 10.96.0.20",
        ] {
            assert!(printed.contains(part), "{part} in\n{printed}");
        }
        let printed = plain(&sh("dig @10.96.0.10 nothing.default.svc.cluster.local"));
        for part in ["status: NXDOMAIN", "SOA ns.dns.cluster.local. hostmaster.cluster.local."] {
            assert!(printed.contains(part), "{part} in\n{printed}");
        }
        assert!(
            sh("dig +noedns @10.96.0.10 cluster.local MX").contains("ANSWER: 0, AUTHORITY: 1, ADDITIONAL: 0")
        );
        assert!(sh("dig +edns=1 +noednsneg @10.96.0.10 cluster.local").contains("status: BADVERS"));
        assert!(sh("dig +opcode=notify @10.96.0.10 cluster.local").contains("status: NOTIMP"));
        assert!(sh("dig @10.96.0.10 version.bind TXT CH").contains("status: REFUSED"));
        assert!(sh("dig +tcp @10.96.0.10 cluster.local AXFR").contains("Transfer failed"));
        let printed = sh("nslookup web.default.svc.cluster.local 10.96.0.10");
        for part in ["Address: 10.96.0.20", "Address: fd00:96::20"] {
            assert!(printed.contains(part), "{part} in\n{printed}");
        }
        assert!(sh("nslookup 10.96.0.20 10.96.0.10").contains("name = web.default.svc.cluster.local."));
    });
}

#[test]
fn addresses_may_come_after_the_server() {
    in_namespace(|| {
        let running = Running::start(listening(config()));
        running.publisher.publish(&snapshot(cluster()), &Changes::everything());
        addresses();
        for server in ["10.96.0.10", "fd00:96::a"] {
            for protocol in ["+notcp", "+tcp"] {
                let printed = sh(&format!("dig +short {protocol} @{server} web.default.svc.cluster.local"));
                assert_eq!(printed, "10.96.0.20\n");
            }
        }
    });
}

#[test]
fn a_successor_takes_over_the_addresses_while_the_old_server_runs() {
    in_namespace(|| {
        let (mut old, _world) = served(config());
        let new = Running::start(listening(config()));
        new.publisher.publish(&snapshot(cluster()), &Changes::everything());
        old.stop();
        for _ in 0..20 {
            let answer =
                exchange(&question("web.default.svc.cluster.local.", RecordType::A)).expect("an answer");
            assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1);
        }
    });
}

#[test]
fn no_query_is_lost_when_a_successor_takes_over() {
    in_namespace(|| {
        let (mut old, _world) = served(config());
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        // Clients that ask each time from another port, and once more after 500 ms without an answer.
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (asked, is_over) = (asked.clone(), is_over.clone());
                std::thread::spawn(move || {
                    let message = question("web.default.svc.cluster.local.", RecordType::A);
                    while !is_over.load(Ordering::Relaxed) {
                        assert!(exchange(&message).or_else(|| exchange(&message)).is_some(), "no answer");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for round in 1..=5 {
            eventually("clients are answered", || asked.load(Ordering::Relaxed) > round * 200);
            let new = Running::start(listening(config()));
            new.publisher.publish(&snapshot(cluster()), &Changes::everything());
            old.stop();
            old = new;
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn the_end_waits_for_what_is_under_way() {
    in_namespace(|| {
        let (mut running, world) = served(config());
        let client = std::thread::spawn(|| sh("dig +short +tries=1 @10.96.0.10 slow.example.org"));
        eventually("the query is under way", || world.queries() == 1);
        running.stop();
        assert_eq!(client.join().unwrap(), "192.0.2.81\n");
    });
}

/// Tabs and padding as single spaces.
fn plain(printed: &str) -> String {
    printed.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn large_answers_take_tcp() {
    in_namespace(|| {
        let (running, _world) = served(config());
        let endpoints: Vec<String> = (0..4000).map(|n| format!("10.2.{}.{}", n / 250, n % 250)).collect();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let mut objects = cluster();
        objects.extend([headless("default/big"), slice("big", "default/big", &["x/TCP/1"], &endpoints)]);
        running.publisher.publish(&snapshot(objects), &Changes::everything());
        // dig asks again over TCP of its own accord.
        assert_eq!(sh("dig +short @10.96.0.10 big.default.svc.cluster.local").lines().count(), 4000);
        assert_eq!(sh("dig +short @10.96.0.10 big.example.org").lines().count(), 200);
        let printed = sh("dig +ignore +bufsize=700 @10.96.0.10 big.example.org");
        assert!(printed.contains("flags: qr tc rd ra;"), "{printed}");
        // A client without EDNS gets 512 bytes.
        let answer = exchange(&question("big.default.svc.cluster.local.", RecordType::A)).unwrap();
        assert!(answer.len() <= 512 && Message::from_vec(&answer).unwrap().answers.len() > 20);
        // More than a message holds are cut there, as CoreDNS does it; over some queries all have their turn.
        let endpoints: Vec<String> = (0..5000).map(|n| format!("10.3.{}.{}", n / 250, n % 250)).collect();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let objects = [headless("default/huge"), slice("huge", "default/huge", &["x/TCP/1"], &endpoints)];
        running.publisher.publish(&snapshot(cluster().into_iter().chain(objects)), &Changes::everything());
        let mut told = std::collections::BTreeSet::new();
        eventually("each endpoint was told", || {
            let printed = sh("dig +tcp +noall +comments +answer @10.96.0.10 huge.default.svc.cluster.local");
            assert!(
                printed.contains("flags: qr aa tc rd ra; QUERY: 1, ANSWER: 4092,"),
                "{}",
                &printed[..400]
            );
            let addresses = printed.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
            told.extend(addresses.filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned)));
            told.len() == 5000
        });
    });
}

#[test]
fn tcp_answers_as_they_are_ready_and_all_that_was_asked() {
    in_namespace(|| {
        let (_running, _world) = served(config());
        let mut stream = connect(V4);
        let mut sent = Vec::new();
        for (id, name) in
            [(1_u16, "slow.example.org."), (2, "web.default.svc.cluster.local."), (3, "www.example.org.")]
        {
            let mut message = question(name, RecordType::A);
            message[..2].copy_from_slice(&id.to_be_bytes());
            sent.extend(framed(&message));
        }
        stream.write_all(&sent).unwrap();
        // The client is done asking; it is still answered.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut ids = Vec::new();
        while let Some(message) = read_framed(&mut stream) {
            let message = Message::from_vec(&message).unwrap();
            assert_eq!(message.answers.len(), 1);
            ids.push(message.metadata.id);
        }
        assert_eq!(ids, [2, 3, 1]);
    });
}

#[test]
fn a_hostile_client_leaves_the_others_served() {
    in_namespace(|| {
        let (running, _world) = served(config());
        // Connections that say nothing, or half of something.
        let mut idle: Vec<TcpStream> = (0..100).map(|_| connect(V4)).collect();
        for (n, stream) in idle.iter_mut().enumerate() {
            stream
                .write_all(&framed(&question("web.default.svc.cluster.local.", RecordType::A))[..n % 20])
                .unwrap();
        }
        // One that asks much and takes nothing.
        let mut greedy = connect(V4);
        greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let query = framed(&question("db.default.svc.cluster.local.", RecordType::A)).repeat(1000);
        while greedy.write_all(&query).is_ok() {}
        // Rubbish over UDP.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(V4).unwrap();
        let good = question("web.default.svc.cluster.local.", RecordType::A);
        for n in 0..5000_usize {
            let mut message = good.clone();
            let at = n % message.len();
            message[at] = message[at].wrapping_add((n / message.len()) as u8 + 1);
            message.truncate(message.len() - n % 7);
            // The buffer may be full; that is part of it.
            let _ = socket.send(&message);
        }
        for protocol in ["+notcp", "+tcp"] {
            let printed = sh(&format!("dig +short {protocol} @10.96.0.10 web.default.svc.cluster.local"));
            assert_eq!(printed, "10.96.0.20\n");
        }
        assert_eq!(running.metric("coredns_panics_total"), 0.0);
    });
}

#[test]
fn malformed_messages_get_formerr_or_nothing() {
    in_namespace(|| {
        let (_running, _world) = served(config());
        let good = question("web.default.svc.cluster.local.", RecordType::A);
        let mut answer = good.clone();
        answer[2] |= 0x80;
        let mut two = good.clone();
        two[5] = 2;
        for (what, message, code) in [
            ("a header cut short", good[..11].to_vec(), None),
            ("an answer", answer, None),
            ("a header alone", good[..12].to_vec(), Some(ResponseCode::FormErr)),
            ("a question cut short", good[..30].to_vec(), Some(ResponseCode::FormErr)),
            ("two questions", two, Some(ResponseCode::FormErr)),
        ] {
            let answer = exchange(&message);
            let told = answer.map(|answer| Message::from_vec(&answer).unwrap().metadata);
            assert_eq!(told.as_ref().map(|told| told.response_code), code, "{what}");
            assert!(told.is_none_or(|told| told.id == 0x1234), "{what}");
        }
    });
}

#[test]
fn metrics_have_the_names_dashboards_know() {
    in_namespace(|| {
        let (running, _world) = served(config());
        sh(
            "dig @10.96.0.10 web.default.svc.cluster.local; dig @10.96.0.10 nothing.default.svc.cluster.local; \
            dig +tcp @10.96.0.10 www.example.org AAAA",
        );
        let server = "server=\"dns://10.96.0.10:53\"";
        for (start, value) in [
            (format!("coredns_dns_requests_total{{family=\"1\",proto=\"udp\",{server},type=\"A\",view=\"\",zone=\".\"}}"), 2.0),
            (format!("coredns_dns_requests_total{{family=\"1\",proto=\"tcp\",{server},type=\"AAAA\",view=\"\",zone=\".\"}}"), 1.0),
            (format!("coredns_dns_responses_total{{plugin=\"kubernetes\",rcode=\"NXDOMAIN\",{server}"), 1.0),
            (format!("coredns_dns_responses_total{{plugin=\"forward\",rcode=\"NOERROR\",{server}"), 1.0),
            (format!("coredns_dns_request_duration_seconds_count{{{server}"), 3.0),
            (format!("coredns_dns_request_size_bytes_count{{proto=\"udp\",{server}"), 2.0),
            (format!("coredns_dns_response_size_bytes_count{{proto=\"tcp\",{server}"), 1.0),
            ("coredns_proxy_request_duration_seconds_count{proxy_name=\"forward\",rcode=\"NOERROR\",to=\"127.0.0.53:53\"}".to_owned(), 1.0),
            ("sluice_dns_synced".to_owned(), 1.0),
        ] {
            assert_eq!(running.metric(&start), value, "{start}");
        }
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    in_namespace(|| {
        let _other = UdpSocket::bind("127.0.0.1:5300").unwrap();
        let listen: Vec<SocketAddr> = vec!["127.0.0.1:5300".parse().unwrap()];
        let error = crate::Server::bind(DnsConfig { listen, ..config() }).unwrap_err();
        assert_eq!(error.to_string(), "bind on 127.0.0.1:5300/udp");
    });
}
