//! Rules that come before the zone and the upstreams.

use hickory_proto::rr::RecordType::{A, AAAA, MX, PTR, TXT};

use super::{cluster, config, served};
use crate::{
    AclAction, AclRule, AnswerChange, Change, Dns64, DnsConfig, Hosts, NameMatch, NamePattern, Rewrite,
    Rules, Server, Template,
    testing::{
        bed::{eventually, in_namespace, sh},
        *,
    },
};

fn with(change: impl Fn(&mut Rules)) -> DnsConfig {
    let mut rules = Rules::new(".");
    change(&mut rules);
    DnsConfig { rules: vec![rules], ..config() }
}

fn rewrite(matches: NameMatch, from: &str, to: &str) -> Rewrite {
    rewrite_with(matches, from, to, Vec::new())
}

fn rewrite_with(matches: NameMatch, from: &str, to: &str, answers: Vec<AnswerChange>) -> Rewrite {
    let on = NamePattern { matches, text: from.to_owned() };
    Rewrite { change: Change::Name { on, to: to.to_owned(), answers }, and_on: false }
}

#[test]
fn hosts_have_addresses_and_reverse_names() {
    let lines = [
        "192.0.2.1 gate.test Gate",
        "192.0.2.2 gate.test # second",
        "2001:db8::1 gate.test",
        "192.0.2.3 *.wild.test",
    ];
    let hosts =
        |fallthrough| Hosts { lines: lines.map(str::to_owned).to_vec(), fallthrough, ..Hosts::default() };
    let open = Fixture::with(with(|rules| rules.hosts = Some(hosts(Some(Vec::new())))), cluster());
    let closed = Fixture::with(with(|rules| rules.hosts = Some(hosts(None))), cluster());
    let reverse =
        Fixture::with(with(|rules| rules.hosts = Some(hosts(Some(vec!["arpa".to_owned()])))), cluster());
    for (fixture, name, qtype, told) in [
        (
            &open,
            "gate.test.",
            A,
            &["NOERROR", "gate.test. 3600 A 192.0.2.1", "gate.test. 3600 A 192.0.2.2"][..],
        ),
        (&open, "GATE.test.", AAAA, &["NOERROR", "GATE.test. 3600 AAAA 2001:db8::1"]),
        (&open, "gate.", A, &["NOERROR", "gate. 3600 A 192.0.2.1"]),
        (&open, "gate.test.", MX, &["NOERROR"]),
        (&open, "a.wild.test.", A, &["NOERROR", "a.wild.test. 3600 A 192.0.2.3"]),
        (&open, "wild.test.", A, &["NOT OURS"]),
        (&open, "a.b.wild.test.", A, &["NOT OURS"]),
        (
            &open,
            "1.2.0.192.in-addr.arpa.",
            PTR,
            &[
                "NOERROR",
                "1.2.0.192.in-addr.arpa. 3600 PTR gate.",
                "1.2.0.192.in-addr.arpa. 3600 PTR gate.test.",
            ],
        ),
        (&open, "3.2.0.192.in-addr.arpa.", PTR, &["NOT OURS"]),
        (
            &open,
            "web.default.svc.cluster.local.",
            A,
            &["NOERROR", "web.default.svc.cluster.local. 30 A 10.96.0.20"],
        ),
        (&closed, "web.default.svc.cluster.local.", A, &["NXDOMAIN"]),
        (
            &closed,
            "gate.test.",
            A,
            &["NOERROR", "gate.test. 3600 A 192.0.2.1", "gate.test. 3600 A 192.0.2.2"],
        ),
        (&reverse, "9.9.9.9.in-addr.arpa.", PTR, &["NOT OURS"]),
        (&reverse, "nothing.test.", A, &["NXDOMAIN"]),
    ] {
        assert_eq!(fixture.told(name, qtype), told, "{name} {qtype}");
    }
}

#[test]
fn names_are_answered_as_others_and_bear_their_own() {
    let fixture = Fixture::with(
        with(|rules| {
            rules.rewrites = vec![
                rewrite(NameMatch::Exact, "shop.example.com", "web.default.svc.cluster.local"),
                rewrite(NameMatch::Suffix, ".in.example.com", ".default.svc.cluster.local"),
                Rewrite { and_on: true, ..rewrite(NameMatch::Prefix, "old-", "") },
                rewrite(NameMatch::Substring, ".here.", ".default.svc."),
                rewrite_with(
                    NameMatch::Regex,
                    "^(.*)\\.re\\.example\\.com",
                    "{1}.default.svc.cluster.local",
                    vec![AnswerChange::Owner {
                        from: "(.*)\\.default\\.svc\\.cluster\\.local".to_owned(),
                        to: "{1}.re.example.com".to_owned(),
                    }],
                ),
                rewrite(NameMatch::Exact, "bad.example.com", "not..a.name"),
            ];
        }),
        cluster(),
    );
    for (name, told) in [
        ("Shop.example.com.", &["NOERROR", "Shop.example.com. 30 A 10.96.0.20"][..]),
        ("web.in.example.com.", &["NOERROR", "web.in.example.com. 30 A 10.96.0.20"]),
        ("db-0.db.in.example.com.", &["NOERROR", "db-0.db.in.example.com. 30 A 10.1.0.8"]),
        ("old-web.here.cluster.local.", &["NOERROR", "old-web.here.cluster.local. 30 A 10.96.0.20"]),
        ("nothing.in.example.com.", &["NXDOMAIN"]),
        (
            "alias.re.example.com.",
            &[
                "NOERROR",
                "alias.re.example.com. 30 CNAME web.default.svc.cluster.local.",
                "web.re.example.com. 30 A 10.96.0.20",
            ],
        ),
        ("bad.example.com.", &["NOT OURS"]),
        ("other.example.com.", &["NOT OURS"]),
    ] {
        assert_eq!(fixture.told(name, A), told, "{name}");
    }
}

fn template(qtype: u16, matches: &str, answer: &str) -> Template {
    Template {
        qtype: Some(qtype),
        zones: vec!["made.test".to_owned()],
        matches: vec![matches.to_owned()],
        answer: vec![answer.to_owned()],
        fallthrough: Some(Vec::new()),
        ..Template::default()
    }
}

#[test]
fn answers_are_made_by_a_pattern() {
    let fixture = Fixture::with(
        with(|rules| {
            let blocked = Template { rcode: 3, zones: vec!["invalid".to_owned()], ..Template::default() };
            let no_v6 =
                Template { qtype: Some(28), zones: vec!["example.org".to_owned()], ..Template::default() };
            let strict =
                Template { fallthrough: None, ..template(16, "^x\\.", "{{ .Name }} 5 TXT {{ .Remote }}") };
            let by_group = "^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)\\.made\\.test\\.$";
            rules.templates = vec![
                Template {
                    authority: vec![
                        "invalid. 60 IN SOA ns.invalid. host.invalid. (1 60 60 60 60)".to_owned(),
                    ],
                    ..blocked
                },
                no_v6,
                template(1, by_group, "{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}"),
                template(1, "^(ten)\\.", "{{ .Name }} 60 {{ .Class }} {{ .Type }} 10.0.0.10"),
                template(15, "", "{{ .Name }} 60 IN MX 10 mail.{{ .Zone }}"),
                strict,
            ];
        }),
        cluster(),
    );
    let told = |name: &str, qtype| fixture.told(name, qtype);
    assert_eq!(told("a.invalid.", A), ["NXDOMAIN"]);
    assert_eq!(fixture.ask("a.invalid.", A).unwrap().authorities.len(), 1);
    assert_eq!(told("www.example.org.", AAAA), ["NOERROR"]);
    assert_eq!(told("www.example.org.", A), ["NOT OURS"]);
    assert_eq!(told("ip-1-2.made.test.", A), ["NOERROR", "ip-1-2.made.test. 60 A 10.0.1.2"]);
    assert_eq!(told("ip-1-999.made.test.", A), ["SERVFAIL"]);
    assert_eq!(told("TEN.made.test.", A), ["NOERROR", "TEN.made.test. 60 A 10.0.0.10"]);
    assert_eq!(told("eleven.made.test.", A), ["NOT OURS"]);
    assert_eq!(told("any.made.test.", MX), ["NOERROR", "any.made.test. 60 MX 10 mail.made.test."]);
    assert_eq!(told("x.made.test.", TXT), ["NOERROR", "x.made.test. 5 TXT 127.0.0.1"]);
    assert_eq!(told("y.made.test.", TXT), ["SERVFAIL"]);
}

#[test]
fn an_alias_made_by_a_pattern_is_followed() {
    in_namespace(|| {
        let (_running, _world) = served(with(|rules| {
            rules.templates = vec![
                template(255, "^web\\.", "{{ .Name }} 60 IN CNAME web.default.svc.cluster.local."),
                template(255, "^www\\.", "{{ .Name }} 60 IN CNAME www.example.org."),
                template(255, "^not\\.", "{{ .Name }} 60 IN CNAME nothing.example.org."),
            ];
        }));
        for protocol in ["+notcp", "+tcp"] {
            let ask = |name: &str| sh(&format!("dig +short {protocol} @10.96.0.10 {name}"));
            assert_eq!(ask("web.made.test"), "web.default.svc.cluster.local.\n10.96.0.20\n");
            assert_eq!(ask("www.made.test AAAA"), "www.example.org.\n2001:db8::80\n");
            assert_eq!(ask("www.made.test CNAME"), "www.example.org.\n");
        }
        let printed = sh("dig @10.96.0.10 not.made.test");
        assert!(printed.contains("status: NXDOMAIN") && printed.contains("ANSWER: 1"), "{printed}");
    });
}

#[test]
fn names_without_ipv6_addresses_get_some() {
    in_namespace(|| {
        let (_running, _world) = served(with(|rules| rules.dns64 = Some(Dns64::default())));
        let ask = |options: &str| sh(&format!("dig +short {options}"));
        for server in ["@fd00:96::a", "+tcp @fd00:96::a"] {
            let ask = |name: &str| ask(&format!("{server} {name} AAAA"));
            assert_eq!(ask("four.default.svc.cluster.local"), "64:ff9b::a60:15\n");
            assert_eq!(ask("web.default.svc.cluster.local"), "fd00:96::20\n");
            assert_eq!(ask("www.example.org"), "2001:db8::80\n");
            for _ in 0..2 {
                assert_eq!(ask("v4.example.org"), "64:ff9b::c000:253\n");
            }
            assert_eq!(ask("nothing.example.org"), "");
        }
        assert!(sh("dig @fd00:96::a nothing.example.org AAAA").contains("status: NXDOMAIN"));
        assert!(sh("dig @fd00:96::a www-empty.example.org AAAA").contains("AUTHORITY: 1"));
        // Over IPv4 a client is told what there is.
        assert_eq!(ask("@10.96.0.10 four.default.svc.cluster.local AAAA"), "");
    });
}

#[test]
fn who_may_ask_what() {
    let rule = |action, types: &[u16], networks: &[&str]| AclRule {
        action,
        zones: vec!["default.svc.cluster.local".to_owned()],
        types: types.to_vec(),
        networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
    };
    let asked = |acl: Vec<AclRule>, name: &str, qtype| {
        Fixture::with(with(|rules| rules.acl = acl.clone()), cluster()).told(name, qtype)[0].clone()
    };
    let name = "web.default.svc.cluster.local.";
    let (allow, block, filter) = (AclAction::Allow, AclAction::Block, AclAction::Filter);
    assert_eq!(asked(vec![rule(block, &[], &["127.0.0.0/8"])], name, A), "REFUSED");
    assert_eq!(asked(vec![rule(block, &[], &["10.0.0.0/8"])], name, A), "NOERROR");
    assert_eq!(asked(vec![rule(block, &[28], &[])], name, A), "NOERROR");
    assert_eq!(asked(vec![rule(block, &[28], &[])], name, AAAA), "REFUSED");
    assert_eq!(asked(vec![rule(filter, &[], &[])], "nothing.default.svc.cluster.local.", A), "NOERROR");
    assert_eq!(asked(vec![rule(allow, &[], &["127.0.0.1/32"]), rule(block, &[], &[])], name, A), "NOERROR");
    assert_eq!(asked(vec![rule(block, &[], &[])], "there.implied.svc.cluster.local.", A), "NOERROR");

    let strangers = DnsConfig { allow_from: vec!["10.0.0.0/8".parse().unwrap()], ..config() };
    assert_eq!(Fixture::with(strangers, cluster()).told(name, A), ["REFUSED"]);
}

#[test]
fn the_longest_domain_has_the_word() {
    let block = |zone: &str, action| Rules {
        acl: vec![AclRule { action, zones: Vec::new(), types: Vec::new(), networks: Vec::new() }],
        ..Rules::new(zone)
    };
    let rules = vec![
        block(".", AclAction::Block),
        block("svc.cluster.local", AclAction::Filter),
        Rules::new("default.svc.cluster.local"),
    ];
    let fixture = Fixture::with(DnsConfig { rules, ..config() }, cluster());
    assert_eq!(fixture.told("cluster.local.", MX), ["REFUSED"]);
    assert_eq!(fixture.told("there.implied.svc.cluster.local.", A), ["NOERROR"]);
    assert_eq!(fixture.told("web.default.svc.cluster.local.", A).len(), 2);
}

#[test]
fn rules_hold_for_what_is_forwarded_and_files_are_followed() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        let hosts = Hosts { file: Some(file.clone()), fallthrough: Some(Vec::new()), ..Hosts::default() };
        let (_running, _world) = served(with(|rules| {
            rules.hosts = Some(hosts.clone());
            rules.rewrites = vec![rewrite(NameMatch::Suffix, ".alias.test", ".example.org")];
        }));
        for _ in 0..2 {
            // From the upstream, then from the cache.
            let printed = sh("dig +noall +answer @10.96.0.10 WWW.alias.test");
            let words: Vec<_> = printed.split_whitespace().collect();
            assert_eq!((words[0], words[4]), ("WWW.alias.test.", "192.0.2.80"), "{printed}");
        }
        assert!(sh("dig @10.96.0.10 gate.test").contains("status: NXDOMAIN"));
        std::fs::write(&file, "192.0.2.9 gate.test\n").unwrap();
        eventually("the file is read", || sh("dig +short @10.96.0.10 gate.test") == "192.0.2.9\n");
    });
}

#[test]
fn bad_rules_are_errors_that_name_them() {
    let error = |config: DnsConfig| Server::bind(config).unwrap_err();
    let told = |config| std::error::Error::source(&error(config)).unwrap().to_string();
    assert_eq!(
        told(with(|rules| rules.rewrites = vec![rewrite(NameMatch::Regex, "(", "a")])),
        "regular expression \"(\""
    );
    let hosts = Hosts { lines: vec!["gate 192.0.2.1".to_owned()], ..Hosts::default() };
    assert_eq!(
        told(with(|rules| rules.hosts = Some(hosts.clone()))),
        "hosts line \"gate 192.0.2.1\" is not an address and names"
    );
}
