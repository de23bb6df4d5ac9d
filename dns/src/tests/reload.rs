//! The configuration changes while clients ask.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hickory_proto::rr::RecordType;

use super::{cluster, config, exchange, listening, served};
use crate::{
    Change, DnsConfig, NameMatch, NamePattern, PodRecords, Rewrite, Rules, Upstreams,
    testing::{
        bed::{eventually, in_namespace, sh},
        *,
    },
};

fn ask(options: &str) -> String {
    sh(&format!("dig +tries=1 +timeout=5 @10.96.0.10 {options}"))
}

#[test]
fn a_new_configuration_holds_at_once_and_no_query_is_lost() {
    in_namespace(|| {
        let (running, world) = served(config());
        let upstreams = Upstreams::Addresses(vec!["127.0.0.53:53".parse().unwrap()]);
        let base = DnsConfig { upstreams, ..listening(config()) };
        let snapshot = snapshot(cluster());
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");

        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let client = {
            let (asked, is_over) = (asked.clone(), is_over.clone());
            std::thread::spawn(move || {
                let message = question("web.default.svc.cluster.local.", RecordType::A);
                while !is_over.load(Ordering::Relaxed) {
                    let answer = exchange(&message).expect("an answer, the first time asked");
                    assert!(answer.ends_with(&[10, 96, 0, 20]));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        for n in 1..=20 {
            eventually("the client is answered", || asked.load(Ordering::Relaxed) > n * 20);
            let config = DnsConfig { ttl: 30 + n as u32, ..base.clone() };
            running.configurator.apply(&config, &snapshot).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        client.join().unwrap();
        let printed = ask("+noall +answer web.default.svc.cluster.local");
        assert_eq!(printed.split_whitespace().nth(1), Some("50"));

        // A cache whose options did not change keeps what it has.
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        assert_eq!(world.queries(), 1);

        let from = "shop.test".to_owned();
        let to = "web.default.svc.k8s.test".to_owned();
        let on = NamePattern { matches: NameMatch::Exact, text: from };
        let rewrite = Rewrite { change: Change::Name { on, to, answers: Vec::new() }, and_on: false };
        let rules = vec![Rules { rewrites: vec![rewrite], ..Rules::new(".") }];
        let (zone, pods) = ("k8s.test".to_owned(), PodRecords::Disabled);
        let other = DnsConfig { rules, zone, pods, upstreams: Upstreams::None, ..base.clone() };
        running.configurator.apply(&other, &snapshot).unwrap();
        assert_eq!(ask("+short shop.test"), "10.96.0.20\n");
        assert!(ask("web.default.svc.cluster.local").contains("status: REFUSED"));
        assert!(ask("10-1-0-5.default.pod.k8s.test").contains("status: NXDOMAIN"));
    });
}

#[test]
fn a_bad_configuration_is_refused_and_the_old_one_stays() {
    in_namespace(|| {
        let (running, _world) = served(config());
        let snapshot = snapshot(cluster());
        let base = listening(config());
        for (config, problem) in [
            (DnsConfig { ttl: 4000, ..base.clone() }, "ttl 4000 is not between 0 and 3600 seconds"),
            (DnsConfig { udp_threads: 7, ..base.clone() }, "udp_threads cannot change while the server runs"),
            (
                DnsConfig { rules: vec![Rules::new("a..b")], ..base.clone() },
                "zone \"a..b\" is not a domain name of letters, digits, hyphens and dots",
            ),
        ] {
            let error = running.configurator.apply(&config, &snapshot).unwrap_err();
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), problem);
        }
        assert_eq!(ask("+short web.default.svc.cluster.local"), "10.96.0.20\n");
        assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
    });
}

#[test]
fn addresses_come_and_go_and_those_that_stay_lose_nothing() {
    in_namespace(|| {
        let (running, _world) = served(config());
        sh("ip addr add 10.96.0.11/32 dev lo");
        let snapshot = snapshot(cluster());
        let stays: std::net::SocketAddr = "10.96.0.10:53".parse().unwrap();
        let comes: std::net::SocketAddr = "10.96.0.11:53".parse().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let client = {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                let message = question("web.default.svc.cluster.local.", RecordType::A);
                while !is_over.load(Ordering::Relaxed) {
                    exchange(&message).expect("an answer, the first time asked");
                }
            })
        };
        let with =
            |listen: &[std::net::SocketAddr]| DnsConfig { listen: listen.to_vec(), ..listening(config()) };
        for _ in 0..20 {
            running.configurator.apply(&with(&[stays, comes]), &snapshot).unwrap();
            assert_eq!(sh("dig +short +tries=1 @10.96.0.11 web.default.svc.cluster.local"), "10.96.0.20\n");
            assert_eq!(
                sh("dig +short +tcp +tries=1 @10.96.0.11 web.default.svc.cluster.local"),
                "10.96.0.20\n"
            );
            running.configurator.apply(&with(&[stays]), &snapshot).unwrap();
            assert_eq!(running.configurator.addresses(), [stays]);
        }
        is_over.store(true, Ordering::Relaxed);
        client.join().unwrap();
        eventually("nobody is at the address any more", || {
            !sh("ss -Hlun; ss -Hltn").contains("10.96.0.11:53")
        });
        // One that cannot be had leaves everything as it was.
        let taken = std::net::UdpSocket::bind(comes).unwrap();
        running.configurator.apply(&with(&[comes]), &snapshot).unwrap_err();
        assert_eq!(running.configurator.addresses(), [stays]);
        drop(taken);
        let names = ask("+noall +answer ns.dns.cluster.local");
        assert!(names.contains("10.96.0.10") && !names.contains("10.96.0.11"), "{names}");
    });
}
