//! What CoreDNS's plugins count, by the names that they have for it, and what rules tell besides.

use sluice_model::Changes;

use super::{addresses, cluster, config, listening};
use crate::{
    Corefile,
    testing::{
        bed::{Running, World, eventually, in_namespace, sh},
        *,
    },
};

fn serve(text: &str) -> Running {
    addresses();
    let config = Corefile::read(text, config()).unwrap().config;
    let running = Running::start(listening(config));
    running.publisher.publish(&snapshot(cluster()), &Changes::everything());
    running
}

fn ask(options: &str) -> String {
    sh(&format!("dig +tries=1 +timeout=5 @10.96.0.10 {options}"))
}

#[test]
fn rules_count_what_they_do() {
    in_namespace(|| {
        let _world = World::start("127.0.0.53:53");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        std::fs::write(&file, "192.0.2.5 from.file\n").unwrap();
        let running = serve(&format!(
            ". {{
                acl example.net {{
                    block type A
                    filter type AAAA
                    drop type MX
                }}
                template IN A made.test {{
                    match ^good
                    answer \"{{{{ .Name }}}} 60 IN A 192.0.2.1\"
                    fallthrough
                }}
                template IN A made.test {{
                    match ^bad
                    answer \"{{{{ .Name }}}} 60 IN A nonsense\"
                    fallthrough
                }}
                hosts {} {{
                    192.0.2.7 gate.test other.test
                    fallthrough
                    fallthrough_unsupported
                }}
                dns64 {{
                    allow_ipv4
                }}
                forward . 127.0.0.53
            }}",
            file.display()
        ));
        for (name, status) in [
            ("www.example.net A", "REFUSED"),
            ("www.example.net AAAA", "NOERROR"),
            ("good.made.test A", "NOERROR"),
            ("bad.made.test A", "SERVFAIL"),
            ("v4.example.org AAAA", "NOERROR"),
            ("gate.test A", "NOERROR"),
            // The world's word: it knows no such name.
            ("gate.test TXT", "NXDOMAIN"),
        ] {
            let printed = ask(name);
            assert!(printed.contains(&format!("status: {status}")), "{name}: {printed}");
        }
        assert!(sh("dig +tries=1 +timeout=1 @10.96.0.10 www.example.net MX || true").contains("timed out"));
        let zone = "server=\"dns://\",view=\"\",zone=\".\"}";
        for (start, value) in [
            (format!("coredns_acl_blocked_requests_total{{{zone}"), 1.0),
            (format!("coredns_acl_filtered_requests_total{{{zone}"), 1.0),
            (format!("coredns_acl_dropped_requests_total{{{zone}"), 1.0),
            ("coredns_acl_allowed_requests_total{server=\"dns://\",view=\"\"}".to_owned(), 5.0),
            (
                "coredns_template_matches_total{class=\"IN\",server=\"dns://\",type=\"A\",view=\"\",zone=\"made.test.\"}"
                    .to_owned(),
                2.0,
            ),
            ("coredns_template_rr_failures_total{class=\"IN\",section=\"answer\",".to_owned(), 1.0),
            ("coredns_dns64_requests_translated_total{server=\"dns://\"}".to_owned(), 1.0),
            // Three names with an address each, and as many the other way round.
            ("coredns_hosts_entries".to_owned(), 6.0),
        ] {
            assert_eq!(running.metric(&start), value, "{start}");
        }
        assert!(running.metric("coredns_hosts_reload_timestamp_seconds") > 1.6e9);
        // Those of a configuration that is no longer in force do not count.
        let config = listening(
            Corefile::read(". {\n hosts /nowhere {\n 192.0.2.7 a.test\n }\n}", config()).unwrap().config,
        );
        running.configurator.apply(&config, &snapshot(cluster())).unwrap();
        eventually("those of before are gone", || running.metric("coredns_hosts_entries") == 2.0);
    });
}

#[test]
fn upstreams_are_counted_by_their_names_of_today_and_of_before() {
    in_namespace(|| {
        let _world = World::start("127.0.0.53:53");
        let running = serve(". {\n forward . 127.0.0.53\n}");
        ask("www.example.org");
        ask("+dnssec nothing.example.org");
        ask("+tcp big.example.org");
        let to = "to=\"127.0.0.53:53\"";
        for (start, value) in [
            (
                format!(
                    "coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",rcode=\"NOERROR\",{to}}}"
                ),
                2.0,
            ),
            (format!("coredns_forward_request_duration_seconds_count{{rcode=\"NOERROR\",{to}}}"), 2.0),
            (format!("coredns_forward_requests_total{{{to}}}"), 3.0),
            (format!("coredns_forward_responses_total{{rcode=\"NXDOMAIN\",{to}}}"), 1.0),
            (
                format!("coredns_proxy_conn_cache_misses_total{{proto=\"udp\",proxy_name=\"forward\",{to}}}"),
                3.0,
            ),
            (format!("coredns_forward_conn_cache_misses_total{{proto=\"tcp\",{to}}}"), 1.0),
            (format!("coredns_forward_healthcheck_failures_total{{{to}}}"), 0.0),
            ("coredns_dns_do_requests_total{server=\"dns://10.96.0.10:53\"".to_owned(), 1.0),
            (
                format!(
                    "coredns_build_info{{goversion=\"\",revision=\"\",version=\"sluice-{}\"}}",
                    env!("CARGO_PKG_VERSION")
                ),
                1.0,
            ),
            ("coredns_cache_drops_total".to_owned(), 0.0),
        ] {
            let text = prometheus::TextEncoder::new().encode_to_string(&running.registry.gather()).unwrap();
            assert!(text.contains(&start), "{start}: {text}");
            assert_eq!(running.metric(&start), value, "{start}");
        }
    });
}

#[test]
fn an_answer_by_a_pattern_explains_itself() {
    in_namespace(|| {
        let _running = serve(
            r#". {
                template ANY ANY invalid {
                    rcode NXDOMAIN
                    authority "invalid. 60 {{ .Class }} SOA ns.invalid. hostmaster.invalid. (1 60 60 60 60)"
                    ederror 15 "of no use here"
                }
                template IN A hex.test {
                    match "^ip0a(?P<b>[a-f0-9]{2})(?P<c>[a-f0-9]{2})(?P<d>[a-f0-9]{2})[.]"
                    answer "{{ .Name }} 60 IN A 10.{{ parseInt .Group.b 16 8 }}.{{ parseInt .Group.c 16 8 }}.{{ parseInt .Group.d 16 8 }}"
                }
            }"#,
        );
        let printed = ask("www.invalid");
        assert!(printed.contains("EDE: 15 (Blocked): (of no use here)"), "{printed}");
        assert!(printed.contains("status: NXDOMAIN") && printed.contains("AUTHORITY: 1"), "{printed}");
        let printed = ask("+noedns www.invalid");
        assert!(printed.contains("status: NXDOMAIN") && !printed.contains("EDE"), "{printed}");
        assert_eq!(ask("+short ip0a7bff00.hex.test"), "10.123.255.0\n");
    });
}
