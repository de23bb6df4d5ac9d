//! Several `forward` of one domain, and upstreams over HTTPS.

use std::{path::Path, time::Duration};

use sluice_model::Changes;

use super::{addresses, cluster, config, listening};
use crate::{
    Corefile, DnsConfig, StubDomain, Upstreams,
    testing::{
        bed::{Running, World, in_namespace, sh},
        https::{Https, Manner},
        script, *,
    },
};

fn read(text: &str) -> DnsConfig {
    Corefile::read(text, config()).unwrap().config
}

fn serve(text: &str) -> Running {
    addresses();
    let running = Running::start(listening(read(text)));
    running.publisher.publish(&snapshot(cluster()), &Changes::everything());
    running
}

fn ask(options: &str) -> String {
    sh(&format!("dig +tries=1 +timeout=5 @10.96.0.10 {options}"))
}

/// Whom a stub domain asks, in order.
fn asked(stub: &StubDomain) -> (&str, Vec<String>) {
    let address = |upstreams: &Upstreams| match upstreams {
        Upstreams::Addresses(addresses) => addresses[0].ip().to_string(),
        other => format!("{other:?}"),
    };
    let next = stub.next.iter().map(|next| address(&next.upstreams));
    (stub.zone.as_str(), [address(&stub.upstreams)].into_iter().chain(next).collect())
}

#[test]
fn of_several_forwards_the_first_that_is_about_a_name_is_asked() {
    let config = read(
        ". {
            forward a.test 192.0.2.1 {
                next NXDOMAIN
            }
            forward test 192.0.2.2 {
                except b.test
                next_on_nodata
            }
            forward c.test 192.0.2.3
            forward . 192.0.2.4 {
                next SERVFAIL
            }
            forward . 192.0.2.5
            forward . 192.0.2.6
        }
        d.test {
            forward . 192.0.2.7
            forward sub.d.test 192.0.2.8
            forward other.test 192.0.2.9
        }",
    );
    let stubs: Vec<_> = config.stub_domains.iter().map(asked).collect();
    let at = |hosts: &[u8]| hosts.iter().map(|host| format!("192.0.2.{host}")).collect::<Vec<_>>();
    assert_eq!(
        stubs,
        [
            ("a.test.", at(&[1, 2, 4, 5])),
            ("b.test.", at(&[4, 5])),
            ("test.", at(&[2, 4, 5])),
            // One above it stands before it, and passes on nothing but answers without records.
            ("c.test.", at(&[2, 3])),
            ("sub.d.test.", at(&[7])),
            ("d.test.", at(&[7])),
        ]
    );
    assert_eq!(
        (config.upstreams, config.next.len()),
        (Upstreams::Addresses(vec!["192.0.2.4:53".parse().unwrap()]), 1)
    );
    let excluded = read(". {\n forward . 192.0.2.1 {\n  except a.test\n }\n}");
    assert_eq!(asked(&excluded.stub_domains[0]), ("a.test.", vec!["None".to_owned()]));
}

#[test]
fn the_next_are_asked_where_an_answer_is_passed_on() {
    in_namespace(|| {
        let world = World::start("127.0.0.53:53");
        script::over_udp("127.0.0.54:53", |socket, query, client| {
            socket.send_to(&script::answer(&query, 9), client).unwrap();
        });
        let _running = serve(
            ". {
                forward . 127.0.0.53 {
                    next NXDOMAIN
                    next_on_nodata
                }
                forward . 127.0.0.54
            }",
        );
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        assert_eq!(ask("+short nothing.example.org"), "192.0.2.9\n");
        assert!(ask("v4.example.org MX").contains("192.0.2.9"), "no records of the type");
        assert_eq!(world.queries(), 3);
    });
    // A name is not denied by one alone where the next, who may know it, is not there.
    in_namespace(|| {
        let _world = World::start("127.0.0.53:53");
        let _running = serve(". {\n forward . 127.0.0.53 {\n next NXDOMAIN\n }\n forward . 127.0.0.54\n}");
        assert!(ask("nothing.example.org").contains("status: SERVFAIL"));
    });
}

#[test]
fn questions_leave_from_the_address_that_is_said_and_wait_as_long_as_is_said() {
    in_namespace(|| {
        script::over_udp("127.0.0.53:53", |socket, query, client| {
            let octet = if client.ip() == "127.0.0.77".parse::<std::net::IpAddr>().unwrap() { 77 } else { 1 };
            // Longer than a server is given usually.
            std::thread::sleep(Duration::from_millis(1700));
            socket.send_to(&script::answer(&query, octet), client).unwrap();
        });
        let _running =
            serve(". {\n forward . 127.0.0.53 {\n source_address 127.0.0.77\n read_timeout 3s\n }\n}");
        assert_eq!(ask("+short www.example.org"), "192.0.2.77\n");
    });
}

fn over_https(ca_file: &Path, servers: &str) -> String {
    let ca_file = ca_file.display();
    format!(
        ". {{
            forward . {servers} {{
                tls {ca_file}
                tls_servername dns.example.org
                policy sequential
            }}
        }}"
    )
}

#[test]
fn upstreams_are_asked_over_https() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let server = Https::start("127.0.0.53:443", &["dns.example.org"], &ca_file, Manner::Usual);
        let running = serve(&over_https(&ca_file, "https://127.0.0.53"));
        for _ in 0..3 {
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        }
        assert!(ask("nothing.example.org").contains("status: NXDOMAIN"));
        assert_eq!(ask("+short +tcp big.example.org").lines().count(), 200);
        assert_eq!(server.connections(), 1, "all of them share one");
        assert_eq!(server.requests(), vec!["dns.example.org/dns-query"; 5]);
        let found = "coredns_proxy_conn_cache_hits_total{proto=\"https\"";
        assert_eq!(running.metric(found), 4.0);
        // A server that nobody vouches for is not believed.
        let other = folder.path().join("other.pem");
        let unknown = Https::start("127.0.0.54:443", &["dns.example.org"], &other, Manner::Usual);
        let config = listening(read(&over_https(&ca_file, "https://127.0.0.54/other")));
        running.configurator.apply(&config, &snapshot(cluster())).unwrap();
        assert!(ask("www.example.org").contains("status: SERVFAIL"));
        assert!(unknown.connections() > 0 && unknown.requests().is_empty());
        let config = listening(read(&over_https(&other, "https://127.0.0.54/other")));
        running.configurator.apply(&config, &snapshot(cluster())).unwrap();
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        assert_eq!(unknown.requests(), ["dns.example.org/other"]);
    });
}

#[test]
fn what_servers_over_https_do_to_a_connection_or_a_question_costs_no_answer() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let server = Https::start("127.0.0.53:443", &["dns.example.org"], &ca_file, Manner::Ends);
        let _running = serve(&over_https(&ca_file, "https://127.0.0.53"));
        for _ in 0..6 {
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        }
        assert_eq!(server.requests().len(), 6, "each was asked once");
    });
    for manner in [Manner::Overloaded, Manner::Page] {
        in_namespace(move || {
            let folder = tempfile::tempdir().unwrap();
            let ca_file = folder.path().join("ca.pem");
            let server = Https::start("127.0.0.53:443", &["dns.example.org"], &ca_file, manner);
            let other = folder.path().join("other.pem");
            let _other = Https::start("127.0.0.54:443", &["dns.example.org"], &other, Manner::Usual);
            let both = [&ca_file, &other].map(|file| std::fs::read_to_string(file).unwrap());
            std::fs::write(&ca_file, both.concat()).unwrap();
            let _running = serve(&over_https(&ca_file, "https://127.0.0.53 https://127.0.0.54"));
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
            let connections = server.connections();
            assert_eq!((connections, server.requests()[0].as_str()), (1, "dns.example.org/dns-query"));
        });
    }
}
