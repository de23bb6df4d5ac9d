//! Corefiles as people have them.

use std::time::Duration;

use proptest::prelude::*;

use crate::{
    AclAction, CacheConfig, Change, Corefile, DnsConfig, ForwardOptions, LogRule, NameMatch, PageAt,
    PodRecords, Policy, Prefetch, Probe, Rules, ServeStale, Tls, Upstreams,
};

fn read(text: &str) -> Corefile {
    Corefile::read(text, DnsConfig::default()).unwrap()
}

/// As in the standard manifests of Kubernetes.
const KUBERNETES: &str = "
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

#[test]
fn the_standard_corefile_is_our_default() {
    let listen = vec!["10.96.0.10:53".parse().unwrap()];
    let base = DnsConfig { listen, ..DnsConfig::default() };
    let corefile = Corefile::read(KUBERNETES, base.clone()).unwrap();
    let own = vec!["cluster.local".to_owned()];
    let cache = CacheConfig { no_success: own.clone(), no_denial: own, ..base.cache.clone() };
    assert_eq!(corefile.config, DnsConfig { rules: vec![Rules::new(".")], cache, ..base });
    assert_eq!(corefile.lameduck, Duration::from_secs(5));
    let pages = [corefile.health, corefile.ready, corefile.metrics];
    assert_eq!(pages, [8080, 8181, 9153].map(|port| Some(PageAt::Port(port))));
}

#[test]
fn the_corefile_of_nodelocal_dnscache_is_read() {
    let block = |zone: &str, cache: &str, forward: &str, more: &str| {
        format!(
            "{zone}:53 {{\n errors\n {cache}\n reload\n loop\n bind 169.254.20.10 10.96.0.10\n forward . {forward}\n \
             prometheus :9253\n {more}\n}}\n"
        )
    };
    let own = "10.96.0.11 {\n force_tcp\n }";
    let text = [
        block(
            "cluster.local",
            "cache {\n success 9984 30\n denial 9984 5\n }",
            own,
            "health 169.254.20.10:8080",
        ),
        block("in-addr.arpa", "cache 30", own, ""),
        block("ip6.arpa", "cache 30", own, ""),
        block(".", "cache 30", "/etc/resolv.conf", ""),
    ];
    let corefile = read(&text.concat());
    let config = corefile.config;
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["10.96.0.10:53", "169.254.20.10:53"]);
    assert_eq!(config.upstreams, Upstreams::ResolvConf("/etc/resolv.conf".into()));
    let zones: Vec<_> = config.stub_domains.iter().map(|stub| stub.zone.as_str()).collect();
    assert_eq!(zones, ["cluster.local.", "in-addr.arpa.", "ip6.arpa."]);
    let first = &config.stub_domains[0];
    assert!(first.forward.force_tcp && first.cache.enabled);
    assert_eq!((first.cache.success_ttl, first.cache.denial_ttl), (30, 5));
    assert_eq!(first.upstreams, Upstreams::Addresses(vec!["10.96.0.11:53".parse().unwrap()]));
}

#[test]
fn what_people_add_is_read() {
    let text = r#"
        (unused) # a comment
        example.org, example.net:53 {
            forward . 192.0.2.1 [2001:db8::1]:5353 {
                policy sequential
                health_check 1s no_rec domain example.org
                max_fails 0
                failover SERVFAIL REFUSED
                next NXDOMAIN
                max_connect_attempts 3
                max_idle_conns 4
                failfast_all_unhealthy_upstreams
                except private.example.org
                expire 20s
                max_age 5m
                prefer_udp
            }
            cache {
                prefetch 10 1m 20%
                serve_stale 2h verify
                servfail 10s
            }
        }
        .:53 {
            kubernetes k8s.test {
                pods verified
                endpoint_pod_names
            }
            log
            hosts /etc/extra example.com {
                192.0.2.7 gate.example.com "gate"
                ttl 60
                no_reverse
                fallthrough
            }
            rewrite name shop.example.com web.default.svc.k8s.test
            rewrite continue name suffix .in.example.com .default.svc.k8s.test answer auto
            rewrite stop {
                name regex (.*)\.re\.example\.com {1}.default.svc.k8s.test
                answer name (.*)\.default\.svc\.k8s\.test {1}.re.example.com
            }
            acl example.com {
                allow net 10.0.0.0/8 192.0.2.1
                block type A AAAA
                filter type *
            }
            template ANY AAAA example.com {
                rcode NOERROR
                fallthrough
            }
            template IN A {
                match ^ip-(?P<a>[0-9]*)\.example\.com\.$
                answer "{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}"
                fallthrough example.com
            }
            dns64 {
                prefix 2001:db8::/96
                allow_ipv4
            }
            autopath @kubernetes
            bufsize 1400
            forward . 192.0.2.2
        }
    "#;
    let config = read(&text.replace("(unused) ", "")).config;
    assert_eq!((config.zone.as_str(), config.ttl, config.pods), ("k8s.test", 5, PodRecords::Verified));
    assert!(config.endpoint_pod_names && config.autopath && config.reverse_fallthrough);
    assert_eq!((config.max_udp_payload, config.cache.enabled), (1400, false));
    let zones: Vec<_> = config.stub_domains.iter().map(|stub| stub.zone.as_str()).collect();
    assert_eq!(zones, ["private.example.org.", "example.org.", "example.net."]);
    assert_eq!(config.stub_domains[0].upstreams, Upstreams::None);
    let stub = &config.stub_domains[1];
    let wanted = ForwardOptions {
        policy: Policy::Sequential,
        health_check: Duration::from_secs(1),
        max_fails: 0,
        failover: vec![2, 5],
        next: vec![3],
        idle_for: Duration::from_secs(20),
        max_age: Some(Duration::from_secs(300)),
        max_attempts: 3,
        max_idle: 4,
        fail_fast: true,
        probe: Probe { domain: "example.org".to_owned(), recursion: false },
        ..ForwardOptions::default()
    };
    assert_eq!(stub.forward, wanted);
    assert_eq!(
        stub.cache.prefetch,
        Some(Prefetch { hits: 10, within: Duration::from_secs(60), percent: 20 })
    );
    assert_eq!(
        stub.cache.serve_stale,
        Some(ServeStale { duration: Duration::from_secs(7200), verify: true, ..ServeStale::default() })
    );
    assert_eq!((stub.cache.servfail_ttl, stub.cache.success_ttl, stub.cache.denial_ttl), (10, 3600, 1800));
    let rules = config.rules.iter().find(|rules| rules.zone == ".").unwrap();
    let hosts = rules.hosts.as_ref().unwrap();
    assert_eq!(
        (hosts.lines.as_slice(), hosts.ttl, hosts.reverse),
        (&["192.0.2.7 gate.example.com gate".to_owned()][..], 60, false)
    );
    assert_eq!(
        (hosts.zones.as_slice(), hosts.fallthrough.as_deref()),
        (&["example.com".to_owned()][..], Some(&[][..]))
    );
    let kinds: Vec<_> = rules
        .rewrites
        .iter()
        .map(|rewrite| match &rewrite.change {
            Change::Name { on, answers, .. } => (on.matches, rewrite.and_on, answers.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [(NameMatch::Exact, false, 0), (NameMatch::Suffix, true, 1), (NameMatch::Regex, false, 1)]
    );
    let acl: Vec<_> = rules.acl.iter().map(|r| (r.action, r.types.as_slice(), r.networks.len())).collect();
    assert_eq!(
        acl,
        [(AclAction::Allow, &[][..], 2), (AclAction::Block, &[1, 28], 0), (AclAction::Filter, &[], 0)]
    );
    let templates: Vec<_> =
        rules.templates.iter().map(|t| (t.qtype, t.matches.len(), t.answer.len())).collect();
    assert_eq!(templates, [(Some(28), 0, 0), (Some(1), 1, 1)]);
    let dns64 = rules.dns64.as_ref().unwrap();
    assert_eq!(
        (dns64.prefix.to_string().as_str(), dns64.allow_ipv4, dns64.translate_all),
        ("2001:db8::/96", true, false)
    );
    assert_eq!(rules.log, [LogRule::default()]);
    assert!(crate::Server::bind(config).is_ok());
}

#[test]
fn upstreams_over_tls_are_read() {
    let text = ". {\n forward . tls://9.9.9.9 tls://149.112.112.112 {\n  tls_servername dns.quad9.net\n  tls /etc/ca.pem\n }\n}";
    let config = read(text).config;
    let wanted = Tls {
        server_name: Some("dns.quad9.net".to_owned()),
        ca_file: Some("/etc/ca.pem".into()),
        ..Tls::default()
    };
    assert_eq!(config.forward.tls, Some(wanted));
    let addresses = ["9.9.9.9:853", "149.112.112.112:853"].map(|address| address.parse().unwrap());
    assert_eq!(config.upstreams, Upstreams::Addresses(addresses.to_vec()));
}

#[test]
fn what_we_do_not_have_is_an_error_with_its_line() {
    for (text, told) in [
        (". {\n  whoami\n}", "line 2: whoami: this directive is not supported"),
        (". {\n errors\n\n secondary x\n}", "line 4: secondary: this directive is not supported"),
        (". {\n dns64 10.0.0.0/8\n}", "line 2: dns64: \"10.0.0.0/8\" is not an IPv6 network"),
        (". {\n template IN\n}", "line 2: template: a class and a type are expected"),
        (
            ". {\n template IN A {\n  ederror x\n }\n}",
            "line 3: ederror: \"x\" is not the number of an extended error",
        ),
        (". {\n template IN A {\n  expr true\n }\n}", "line 3: expr: \"expr true\" is not supported"),
        (
            ". {\n hosts {\n  fallthrough_unsupported\n }\n}",
            "line 2: hosts: fallthrough_unsupported without fallthrough",
        ),
        (
            ". {\n kubernetes {\n  namespace_labels a in b\n }\n}",
            "line 3: namespace_labels: \"a in b\" is not a label selector",
        ),
        (
            ". {\n kubernetes a.test\n kubernetes b.test\n}",
            "line 3: kubernetes: the second in this server block",
        ),
        (
            "a.test {\n kubernetes\n}\nb.test {\n kubernetes\n}",
            "line 4: kubernetes: the second of all server blocks: one names all domains",
        ),
        (". {\n transfer\n}", "line 2: transfer: who may have the domain is missing: to"),
        (". {\n transfer {\n to here\n }\n}", "line 3: to: \"to here\" is not supported"),
        (
            ". {\n kubernetes a.test {\n multicluster b\n }\n}",
            "line 3: multicluster: \"b\" is no domain of kubernetes",
        ),
        (". {\n kubernetes a.test {\n ttl 3601\n }\n}", "line 3: ttl: 3601 is more than 3600 seconds"),
        (
            ". {\n kubernetes a.test {\n namespace_labels a=b\n namespaces c\n }\n}",
            "line 3: namespace_labels: does not go together with namespaces",
        ),
        (
            ". {\n forward . tls://dns.test\n}",
            "line 2: forward: \"tls://dns.test\" is not an address with or without port",
        ),
        (
            ". {\n forward . tls://192.0.2.1 192.0.2.2\n}",
            "line 2: forward: upstreams over TLS, over HTTPS (with one path) and without do not mix",
        ),
        (". {\n forward .\n}", "line 2: forward: a domain and upstreams are expected"),
        (". {\n forward . 192.0.2.1 {\n tls\n }\n}", "line 3: tls: \"tls\" is not supported"),
        (". {\n cache {\n success x\n }\n}", "line 3: success: \"x\" is not a number"),
        (". {\n cache 0\n}", "line 2: cache: a time of 0 keeps nothing"),
        (". {\n cache\n cache 30\n}", "line 3: cache: the second in this server block"),
        (
            ". {\n cache {\n servfail 10m\n }\n}",
            "line 3: servfail: failures are kept for five minutes at most",
        ),
        (". {\n cache {\n prefetch 1 1m 5%\n }\n}", "line 3: prefetch: 5% is not between 10% and 90%"),
        (
            ". {\n cache {\n prefetch 1 1m 20\n }\n}",
            "line 3: prefetch: \"a number without %\" is not a percentage",
        ),
        (
            ". {\n cache {\n serve_stale 1h verify 0 1500ms\n }\n}",
            "line 3: serve_stale: times to live are whole seconds",
        ),
        (
            ". {\n cache {\n serve_stale 1h immediate 0 10m\n }\n}",
            "line 3: serve_stale: upstreams are asked again after five minutes at most",
        ),
        (
            ". {\n cache {\n serve_stale_policy prefer_positive\n }\n}",
            "line 3: serve_stale_policy: serve_stale is missing",
        ),
        (
            ". {\n cache {\n serve_stale\n serve_stale_policy mine\n }\n}",
            "line 4: serve_stale_policy: \"serve_stale_policy mine\" is not supported",
        ),
        (". {\n health {\n lameduck x\n }\n}", "line 3: lameduck: \"x\" is not a duration"),
        (". {\n rewrite opcode 0 1\n}", "line 2: rewrite: \"opcode\" cannot be rewritten"),
        (". {\n rewrite ttl a.test 9-5\n}", "line 2: rewrite: \"9-5\" is not seconds, or a range of them"),
        (". {\n rewrite type A NONSENSE\n}", "line 2: rewrite: \"NONSENSE\" is not a record type"),
        (". {\n rewrite rcode a.test 2 99\n}", "line 2: rewrite: \"99\" is not a response code"),
        (
            ". {\n rewrite edns0 local set 1 {server_ip}\n}",
            "line 2: rewrite: the option's data are not supported",
        ),
        (". {\n rewrite edns0 cookie set\n}", "line 2: rewrite: \"cookie set\" is not supported"),
        (
            ". {\n rewrite name a b answer c\n}",
            "line 2: rewrite: auto, or name or value with two expressions, are expected after \"answer\"",
        ),
        (". {\n log . {\n class some\n }\n}", "line 3: class: \"class some\" is not supported"),
        (". {\n reload soon\n}", "line 2: reload: \"soon\" is not a duration"),
        (". {\n errors {\n quietly\n }\n}", "line 3: quietly: \"quietly\" is not supported"),
        (". {\n loadbalance random\n}", "line 2: loadbalance: the policy \"random\" is not supported"),
        (". {\n loadbalance weighted\n}", "line 2: loadbalance: weighted needs a file of weights"),
        (". {\n loadbalance weighted a b\n}", "line 2: loadbalance: \"b\" is one word too many"),
        (". {\n loadbalance {\n  reload 5s\n }\n}", "line 3: reload: is about the file of weighted"),
        (
            ". {\n loadbalance weighted w {\n  reload soon\n }\n}",
            "line 3: reload: \"soon\" is not a duration",
        ),
        (". {\n loadbalance {\n  prefer 10.0.0.0\n }\n}", "line 3: prefer: \"10.0.0.0\" is not a network"),
        (". {\n loadbalance {\n  prefer\n }\n}", "line 3: prefer: \"prefer\" is not supported"),
        (". {\n loadbalance\n loadbalance\n}", "line 3: loadbalance: the second in this server block"),
        (
            ". {\n forward . tls://192.0.2.1%a.test {\n  tls_servername b.test\n }\n}",
            "line 2: forward: tls_servername and a name after % do not go together",
        ),
        (
            ". {\n forward . https://192.0.2.1 {\n  doh_method GET\n }\n}",
            "line 3: doh_method: \"doh_method GET\" is not supported",
        ),
        (
            ". {\n forward . https://[2001:db8::1]\n}",
            "line 2: forward: a server with an IPv6 address over HTTPS needs a tls_servername",
        ),
        (". {\n forward . 192.0.2.1 {\n  max_age 5s\n }\n}", "line 2: forward: max_age is less than expire"),
        (". {\n forward . 192.0.2.1 {\n  failover NOERROR\n }\n}", "line 3: failover: NOERROR is no failure"),
        (
            ". {\n forward . 192.0.2.1 {\n  read_timeout 0s\n }\n}",
            "line 3: read_timeout: is not more than nothing",
        ),
        (
            ". {\n forward . 192.0.2.1 {\n  resolver 192.0.2.2\n }\n}",
            "line 3: resolver: \"resolver 192.0.2.2\" is not supported",
        ),
        (". {\n import nowhere\n}", "line 2: import: \"nowhere\" is no snippet and no file"),
        (". {\n bind eth0/1\n}", "line 2: bind: \"eth0/1\" is no address and no device"),
        (". {\n bind\n}", "line 2: bind: addresses or devices are expected"),
        (". {\n autopath /etc/resolv.conf\n}", "line 2: autopath: only @kubernetes is supported"),
        (". {\n errors\n", "line 1: .: a \"}\" is missing"),
        ("\n.\n", "line 2: .: a \"{\" is missing"),
        ("}", "line 1: }: a domain is expected"),
        (". {\n log \"x\n}", "line 2: \": the quote does not end"),
        (". {\n}\n.:5353 {\n}", "line 3: .:5353: all server blocks must have one port"),
        ("tls://. {\n}", "line 1: tls://.: is not a domain and a port"),
        ("a..b {\n}", "line 1: a..b: is not a domain"),
    ] {
        let error = Corefile::read(text, DnsConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), told, "{text}");
    }
}

#[test]
fn what_newer_corefiles_say_is_read() {
    let text = r#"
        k8s.test:53 in-addr.arpa:53 {
            errors {
                consolidate 5m ".* i/o timeout$" warning show_first
                stacktrace
            }
            log . {combined} {
                class denial error
                minDuration 1s
            }
            log example.org "{proto} {name}"
            ready :8282 {
                monitor continuously
            }
            reload 10s 5s
            loadbalance round_robin
            kubernetes {
                labels app in (web, db)
                pods insecure
                fallthrough in-addr.arpa
            }
            cache 60 example.org {
                serve_stale 1h verify 100ms 30s
                disable success a.example.org
                disable denial b.example.org c.example.org
            }
            forward a.k8s.test 192.0.2.1 {
                force_tcp
            }
            forward . tls://192.0.2.2%dns.test {
                tls /etc/cert.pem /etc/key.pem /etc/ca.pem
            }
        }
    "#;
    let Corefile { config, ready, .. } = read(text);
    assert_eq!((config.zone.as_str(), config.reverse_fallthrough), ("k8s.test", true));
    assert_eq!(config.exposure.labels, Some("app in (web,db)".parse().unwrap()));
    assert_eq!(ready, Some(PageAt::Port(8282)));
    let log = &config.rules[0].log;
    assert_eq!((log[0].format.as_str(), log[0].classes.len()), ("{combined}", 2));
    assert_eq!(
        (log[1].format.as_str(), log[1].zones.as_slice()),
        ("{proto} {name}", &["example.org".to_owned()][..])
    );
    let stub = &config.stub_domains[0];
    assert_eq!((stub.zone.as_str(), stub.forward.force_tcp, &stub.forward.tls), ("a.k8s.test.", true, &None));
    let cache = &stub.cache;
    assert_eq!(
        (cache.zones.len(), cache.no_success.len(), cache.no_denial.len(), cache.success_ttl),
        (1, 1, 2, 60)
    );
    let wanted = ServeStale {
        duration: Duration::from_secs(3600),
        verify: true,
        patience: Some(Duration::from_millis(100)),
        ttl: 30,
        ..ServeStale::default()
    };
    assert_eq!(cache.serve_stale, Some(wanted));
}

#[test]
fn stale_answers_are_served_as_it_says() {
    let stale = |words: &str| {
        let config =
            read(&format!(". {{\n forward . 192.0.2.1\n cache {{\n serve_stale {words}\n }}\n}}")).config;
        config.cache.serve_stale.unwrap()
    };
    let usual = ServeStale::default();
    assert_eq!(stale(""), usual);
    assert_eq!(stale("1h immediate"), usual);
    assert_eq!(
        stale("30m immediate 30s"),
        ServeStale { duration: Duration::from_secs(1800), ttl: 30, ..usual.clone() }
    );
    // No time to wait is all the time that the upstreams are given.
    let verify = ServeStale { verify: true, ttl: 30, ..usual };
    assert_eq!(stale("1h verify 0 30s"), verify);
    assert_eq!(stale("1h verify 0s 30s"), verify);
    let recheck = Duration::from_secs(20);
    assert_eq!(stale("1h verify 0s 30s 20s"), ServeStale { recheck, ..verify });
    assert_eq!(
        stale("1h immediate 0 20s\n serve_stale_policy prefer_positive"),
        ServeStale { recheck, prefer_positive: true, ..ServeStale::default() }
    );
}

#[test]
fn domains_devices_and_transfers_are_read() {
    let text = "
        cluster.local b.test in-addr.arpa {
            kubernetes
            bind 169.254.20.10 lo eth1 192.0.2.1 {
                except eth1 192.0.2.1
            }
            transfer b.test {
                to 192.0.2.53 2001:db8::53
                source 192.0.2.1
            }
            transfer {
                to *
            }
        }
    ";
    let Corefile { config, devices, .. } = read(text);
    assert_eq!(
        (config.zone.as_str(), config.more_zones.as_slice()),
        ("cluster.local", &["b.test".to_owned()][..])
    );
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["169.254.20.10:53"]);
    let local = [("lo", "127.0.0.1"), ("eth0", "192.0.2.2"), ("eth1", "192.0.2.3"), ("lo", "fe80::1")];
    let bound = devices.listen(local.map(|(device, ip)| (device, ip.parse().unwrap())));
    assert_eq!(bound, ["127.0.0.1:53".parse().unwrap()].into());
    let transfers: Vec<_> = config.transfers.iter().map(|t| (t.zones.len(), t.to.len())).collect();
    assert_eq!(transfers, [(1, 2), (3, 0)]);
    assert!(config.check().is_ok());
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z.:{}\"#$%\\\\ \n0-9/*@-]{0,200}") {
        let _ = Corefile::read(&text, DnsConfig::default());
    }

    #[test]
    fn no_change_of_a_good_one_panics(at in 0_usize..600, what in "[ -~\n]{0,3}") {
        let mut text = KUBERNETES.to_owned();
        let at = at.min(text.len());
        text.replace_range(at..(at + what.len()).min(text.len()), &what);
        let _ = Corefile::read(&text, DnsConfig::default());
    }
}
