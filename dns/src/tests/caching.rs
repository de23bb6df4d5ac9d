//! What is remembered of the world outside, as clients see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;

use super::{config, exchange, served};
use crate::{
    CacheConfig, DnsConfig, Prefetch, ServeStale, Upstreams,
    testing::{
        bed::{Running, eventually, in_namespace, sh},
        script, *,
    },
};

fn ask(options: &str) -> String {
    sh(&format!("dig +tries=1 +timeout=5 @10.96.0.10 {options}"))
}

fn with(cache: CacheConfig) -> DnsConfig {
    DnsConfig { cache, ..config() }
}

#[test]
fn an_upstream_is_asked_once() {
    in_namespace(|| {
        let (running, world) = served(config());
        for (options, lines) in [
            ("+short www.example.org", "192.0.2.80\n"),
            ("+short +noedns WWW.Example.Org", "192.0.2.80\n"),
            ("+short +tcp www.example.org", "192.0.2.80\n"),
            ("+short out.default.svc.cluster.local", "www.example.org.\n192.0.2.80\n"),
        ] {
            assert_eq!(ask(options), lines, "{options}");
        }
        assert_eq!(world.queries(), 1);
        // Times to live are bounded and count down; the question's case is the client's.
        let printed = ask("+noall +answer WwW.example.org");
        let words: Vec<_> = printed.split_whitespace().collect();
        let ttl: u32 = words[1].parse().unwrap();
        assert!((28..=30).contains(&ttl) && words[0] == "WwW.example.org.", "{printed}");
        // DNSSEC records are another question.
        assert!(ask("+dnssec www.example.org").contains("flags: do;"));
        assert_eq!(world.queries(), 2);
        for _ in 0..3 {
            assert!(ask("nothing.example.org").contains("status: NXDOMAIN"));
            assert!(ask("www.example.org MX").contains("ANSWER: 0, AUTHORITY: 1"));
        }
        assert_eq!(world.queries(), 4);
        for (start, value) in [
            ("coredns_cache_hits_total{server=\"dns://\",type=\"success\"", 4.0),
            ("coredns_cache_hits_total{server=\"dns://\",type=\"denial\"", 4.0),
            ("coredns_cache_entries{server=\"dns://\",type=\"success\"", 2.0),
            ("coredns_cache_entries{server=\"dns://\",type=\"denial\"", 2.0),
            ("coredns_dns_responses_total{plugin=\"cache\"", 7.0),
        ] {
            assert_eq!(running.metric(start), value, "{start}");
        }
    });
}

#[test]
fn addresses_that_are_kept_take_turns() {
    in_namespace(|| {
        let (_running, world) = served(config());
        let firsts: std::collections::BTreeSet<String> = (0..40)
            .map(|_| ask("+short +tcp big.example.org").lines().next().unwrap_or_default().to_owned())
            .collect();
        assert!(firsts.len() > 1, "{firsts:?}");
        assert!(world.queries() < 40, "they were kept");
    });
}

#[test]
fn our_own_names_are_never_kept() {
    in_namespace(|| {
        let (running, _world) = served(config());
        assert!(ask("new.default.svc.cluster.local").contains("status: NXDOMAIN"));
        let mut objects = super::cluster();
        objects.push(cluster_ip("default/new", &["10.96.0.50"], &[]));
        running.publisher.publish(&snapshot(objects), &sluice_model::Changes::everything());
        assert_eq!(ask("+short new.default.svc.cluster.local"), "10.96.0.50\n");
    });
}

#[test]
fn equal_questions_under_way_are_one() {
    for enabled in [true, false] {
        in_namespace(move || {
            let (_running, world) = served(with(CacheConfig { enabled, ..CacheConfig::default() }));
            let clients: Vec<_> =
                (0..20).map(|_| std::thread::spawn(|| exchange_slow().expect("an answer"))).collect();
            for client in clients {
                assert!(client.join().unwrap().ends_with(&[192, 0, 2, 81]));
            }
            assert_eq!(world.queries(), 1);
        });
    }
}

fn exchange_slow() -> Option<Vec<u8>> {
    // `slow` answers after 300 ms; the client waits for 500.
    exchange(&question("slow.example.org.", RecordType::A))
}

#[test]
fn without_a_cache_every_question_is_asked() {
    in_namespace(|| {
        let (_running, world) = served(with(CacheConfig { enabled: false, ..CacheConfig::default() }));
        for _ in 0..3 {
            assert_eq!(ask("+noall +answer www.example.org").split_whitespace().nth(1), Some("300"));
        }
        assert_eq!(world.queries(), 3);
    });
}

/// Kept for a second.
fn short() -> CacheConfig {
    CacheConfig { success_ttl: 1, min_success_ttl: 0, ..CacheConfig::default() }
}

#[test]
fn answers_past_their_time_are_told_while_nobody_answers() {
    for verify in [true, false] {
        in_namespace(move || {
            let serve_stale =
                Some(ServeStale { duration: Duration::from_secs(60), verify, ..ServeStale::default() });
            let (running, world) = served(with(CacheConfig { serve_stale, ..short() }));
            assert_eq!(ask("+short once.example.org"), "192.0.2.82\n");
            assert_eq!(ask("+short once.example.org"), "192.0.2.82\n");
            assert_eq!(world.queries(), 1);
            eventually("a second is over", || {
                let start = Instant::now();
                let printed = ask("+noall +answer once.example.org");
                let is_stale = printed.split_whitespace().nth(1) == Some("0");
                assert!(printed.ends_with("192.0.2.82\n"), "{printed}");
                // Verified, a stale answer comes after the upstreams were asked in vain; else at once.
                is_stale && (verify == (start.elapsed() > Duration::from_millis(900)))
            });
            assert!(running.metric("coredns_cache_served_stale_total") >= 1.0);
            eventually("the upstream was asked again", || world.queries() > 1);
        });
    }
}

#[test]
fn upstreams_that_fail_are_left_alone_for_a_while() {
    for verify in [true, false] {
        in_namespace(move || {
            let serve_stale = Some(ServeStale {
                duration: Duration::from_secs(60),
                verify,
                recheck: Duration::from_secs(60),
                ..ServeStale::default()
            });
            let (running, world) = served(with(CacheConfig { serve_stale, ..short() }));
            assert_eq!(ask("+short once.example.org"), "192.0.2.82\n");
            eventually("it is past its time, and was asked for in vain", || {
                assert_eq!(ask("+short once.example.org"), "192.0.2.82\n");
                running.metric("coredns_cache_served_stale_total") >= 1.0
            });
            // While it is asked for, too: it takes four seconds until it is given up.
            let asked = world.queries();
            for _ in 0..20 {
                let start = Instant::now();
                assert_eq!(ask("+noall +answer once.example.org").split_whitespace().nth(1), Some("0"));
                assert!(start.elapsed() < Duration::from_millis(900), "told at once");
            }
            // No more than the attempts of the one question, and health checks.
            let more = world.queries() - asked;
            assert!(more < 15, "{more}");
        });
    }
}

#[test]
fn an_answer_goes_before_what_comes_after_it_where_that_is_wanted() {
    for (verify, prefer_positive) in [(true, true), (false, true), (true, false)] {
        in_namespace(move || {
            super::addresses();
            let is_gone = Arc::new(AtomicBool::new(false));
            let gone = is_gone.clone();
            script::over_udp("127.0.0.53:53", move |socket, query, client| {
                let is_gone = gone.load(Ordering::SeqCst);
                let answer = if is_gone { script::denial(&query) } else { script::answer(&query, 7) };
                socket.send_to(&answer, client).unwrap();
            });
            let serve_stale = Some(ServeStale {
                duration: Duration::from_secs(60),
                verify,
                prefer_positive,
                ..ServeStale::default()
            });
            let upstreams = Upstreams::Addresses(vec!["127.0.0.53:53".parse().unwrap()]);
            let config = DnsConfig { upstreams, ..with(CacheConfig { serve_stale, ..short() }) };
            let running = Running::start(super::listening(config));
            running.publisher.publish(&snapshot(super::cluster()), &sluice_model::Changes::everything());
            assert_eq!(ask("+short www.example.org"), "192.0.2.7\n");
            is_gone.store(true, Ordering::SeqCst);
            if prefer_positive {
                eventually("it is past its time", || {
                    assert_eq!(ask("+short www.example.org"), "192.0.2.7\n");
                    running.metric("coredns_cache_served_stale_total") >= 3.0
                });
                assert!(running.metric("coredns_cache_entries{server=\"dns://\",type=\"denial\"") >= 1.0);
                is_gone.store(false, Ordering::SeqCst);
                eventually("it is there again", || {
                    let printed = ask("+noall +answer www.example.org");
                    printed.split_whitespace().nth(1) == Some("1")
                });
            } else {
                eventually("it is denied", || ask("www.example.org").contains("status: NXDOMAIN"));
            }
        });
    }
}

#[test]
fn what_is_asked_often_stays() {
    in_namespace(|| {
        let prefetch = Some(Prefetch { hits: 2, within: Duration::from_secs(60), percent: 100 });
        let (running, world) = served(with(CacheConfig { prefetch, ..CacheConfig::default() }));
        for _ in 0..3 {
            assert_eq!(ask("+short www.example.org"), "192.0.2.80\n");
        }
        eventually("asked again without a client waiting", || world.queries() == 2);
        assert_eq!(running.metric("coredns_cache_prefetch_total"), 1.0);
    });
}
