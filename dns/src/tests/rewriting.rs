//! Rewrites of anything but the name asked for, read from a Corefile as people have it.

use hickory_proto::{
    op::Message,
    rr::RecordType::{A, AAAA, CNAME, MX, PTR, SRV},
};

use super::{cluster, config, served};
use crate::{
    Corefile, DnsConfig,
    handler::Outcome,
    testing::{
        bed::{in_namespace, sh},
        *,
    },
};

/// A configuration with these lines in a Corefile's block.
fn with(lines: &str) -> DnsConfig {
    Corefile::read(&format!(". {{\n{lines}\n}}\n"), config()).unwrap().config
}

fn fixture(lines: &str) -> Fixture {
    Fixture::with(with(lines), cluster())
}

#[test]
fn types_are_answered_as_others() {
    let fixture = fixture("rewrite type MX A\nrewrite type AAAA A");
    for (qtype, records) in [(MX, true), (AAAA, true), (A, true), (SRV, true)] {
        let told = fixture.told("web.default.svc.cluster.local.", qtype);
        assert_eq!(told.len() > 1, records, "{qtype}: {told:?}");
        let message = fixture.ask("web.default.svc.cluster.local.", qtype).unwrap();
        assert_eq!(message.queries[0].query_type(), qtype, "the question is as it was asked");
    }
    assert_eq!(
        fixture.told("web.default.svc.cluster.local.", MX),
        ["NOERROR", "web.default.svc.cluster.local. 30 A 10.96.0.20"]
    );
}

#[test]
fn classes_are_answered_as_others() {
    let ask = |fixture: &Fixture, class: u8| {
        let mut message = question("web.default.svc.cluster.local.", A);
        let at = message.len() - 1;
        message[at] = class;
        let mut out = Vec::new();
        assert!(matches!(fixture.handler.answer(&message, TCP, 0, &mut out).0, Outcome::Answered(_)));
        let answer = Message::from_vec(&out).unwrap();
        assert_eq!(out[message.len() - 1], class, "the question is as it was asked");
        (u16::from(answer.metadata.response_code), answer.answers.len())
    };
    let fixture = fixture("rewrite class CH IN");
    assert_eq!([3, 4].map(|class| ask(&fixture, class)), [(0, 1), (5, 0)]);
    let plain = Fixture::with(config(), cluster());
    assert_eq!(ask(&plain, 3), (5, 0));
}

#[test]
fn times_to_live_and_codes_are_changed() {
    for (rule, ttl) in [
        ("rewrite ttl web.default.svc.cluster.local 77", 77),
        ("rewrite ttl suffix .cluster.local. 60-300", 60),
        ("rewrite ttl suffix .cluster.local -10", 10),
        ("rewrite ttl substring svc 20-", 30),
        ("rewrite ttl regex (.*)\\.default\\.svc 20-25", 25),
        ("rewrite ttl prefix db 77", 30),
    ] {
        let told = fixture(rule).told("web.default.svc.cluster.local.", A);
        assert_eq!(told[1], format!("web.default.svc.cluster.local. {ttl} A 10.96.0.20"), "{rule}");
    }
    let fixture = fixture(
        "rewrite continue rcode suffix .default.svc.cluster.local NXDOMAIN NOERROR\nrewrite rcode suffix .local 0 REFUSED",
    );
    for (name, code) in [
        ("nothing.default.svc.cluster.local.", "NOERROR"),
        ("web.default.svc.cluster.local.", "REFUSED"),
        ("nothing.cluster.local.", "NXDOMAIN"),
    ] {
        assert_eq!(fixture.told(name, A)[0], code, "{name}");
    }
}

#[test]
fn answers_are_turned_back_in_owners_and_data() {
    let fixture = fixture(
        "rewrite name suffix .auto.test .default.svc.cluster.local answer auto
         rewrite stop {
             name suffix .arpa .arpa
             answer name auto
             answer value (.*)\\.default\\.svc\\.cluster\\.local\\. {1}.value.test.
         }
         rewrite name regex _(.*)\\.chain\\.test _{1}.default.svc.cluster.local answer name (.*)\\.default\\.svc\\.cluster\\.local {1}.chain.test value (.*)\\.default\\.svc\\.cluster\\.local {1}.chain.test",
    );
    let told = fixture.told("alias.auto.test.", A);
    assert_eq!(
        told,
        ["NOERROR", "alias.auto.test. 30 CNAME web.auto.test.", "web.auto.test. 30 A 10.96.0.20"],
        "names in data too"
    );
    assert_eq!(
        fixture.told("20.0.96.10.in-addr.arpa.", PTR),
        ["NOERROR", "20.0.96.10.in-addr.arpa. 30 PTR web.value.test."]
    );
    let message = fixture.ask("_http._tcp.web.chain.test.", SRV).unwrap();
    assert_eq!(
        message.answers[0].to_string(),
        "_http._tcp.web.chain.test. 30 IN SRV 0 100 80 web.chain.test."
    );
    let glue: Vec<_> = message.additionals.iter().map(|record| record.name.to_string()).collect();
    assert_eq!(glue, ["web.chain.test.", "web.chain.test."]);
}

#[test]
fn an_answer_that_grows_too_long_is_cut() {
    let name = "a-name-that-is-long-enough-to-make-an-answer-longer-by-more-than-there-is-room-for";
    let long = format!("{}.{}.x.test", &name[..60], &name[..60]);
    let addresses: Vec<_> = (0..29).map(|n| format!("10.1.1.{n}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let objects = [headless("default/many"), slice("many-1", "default/many", &[], &addresses)];
    let rules = format!("rewrite name suffix .{long} .default.svc.cluster.local");
    let fixture = Fixture::with(with(&rules), objects);
    let message = question(&format!("many.{long}."), A);
    let mut out = Vec::new();
    fixture.handler.answer(&message, UDP, 0, &mut out);
    let answer = Message::from_vec(&out).unwrap();
    assert!(out.len() <= 512 && answer.metadata.truncation, "{}", out.len());
    let answer = fixture.ask(&format!("many.{long}."), A).unwrap();
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (29, false));
}

#[test]
fn an_alias_may_lead_elsewhere() {
    in_namespace(|| {
        let rules = "rewrite cname suffix www.example.org. web.default.svc.cluster.local.
                     forward . 127.0.0.53";
        let (_running, _world) = served(with(rules));
        let dig = |what: &str| sh(&format!("dig +short +tries=1 +timeout=3 @10.96.0.10 {what}"));
        assert_eq!(dig("alias.example.org"), "web.default.svc.cluster.local.\n10.96.0.20\n");
        // It leads out of the cluster by itself, and back in by the rule.
        assert_eq!(dig("out.default.svc.cluster.local"), "web.default.svc.cluster.local.\n10.96.0.20\n");
        assert_eq!(dig("out.default.svc.cluster.local CNAME"), "web.default.svc.cluster.local.\n");
        assert_eq!(dig("www.example.org"), "192.0.2.80\n", "no alias, nothing to change");
    });
    // Without the rule the same question goes nowhere else.
    assert_eq!(
        fixture("rewrite cname exact a.test b.test").told("alias.default.svc.cluster.local.", CNAME),
        ["NOERROR", "alias.default.svc.cluster.local. 30 CNAME web.default.svc.cluster.local."]
    );
}

#[test]
fn upstreams_are_told_options_and_their_answers_kept_apart() {
    use std::net::UdpSocket;
    in_namespace(|| {
        let upstream = UdpSocket::bind("127.0.0.53:53").unwrap();
        let seen = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            for _ in 0..4 {
                let (length, client) = upstream.recv_from(&mut buffer).unwrap();
                let mut message = Message::from_vec(&buffer[..length]).unwrap();
                let options = message.edns.as_ref().unwrap().options().as_ref().to_vec();
                seen.push(
                    options
                        .iter()
                        .map(|(code, option)| (u16::from(*code), Vec::<u8>::try_from(option).unwrap()))
                        .collect::<Vec<_>>(),
                );
                message.metadata.message_type = hickory_proto::op::MessageType::Response;
                upstream.send_to(&message.to_vec().unwrap(), client).unwrap();
            }
            seen
        });
        super::addresses();
        let rules = "rewrite continue edns0 local set 0xffee 0x0a0b
                     rewrite continue edns0 local append 0xffef {qname}
                     rewrite continue edns0 nsid replace
                     rewrite edns0 subnet set 24 56
                     cache
                     forward . 127.0.0.53";
        let running = super::Running::start(super::listening(with(rules)));
        for (from, name) in [("127.0.0.1", "a.test"), ("127.0.1.1", "a.test"), ("127.0.0.2", "a.test")] {
            sh(&format!("dig +noall -b {from} +tries=1 +timeout=3 +cookie @10.96.0.10 {name}"));
        }
        sh("dig +noall -b 127.0.0.1 +tries=1 +timeout=3 +nsid @10.96.0.10 a.test");
        sh("dig +noall -b 127.0.0.1 +tries=1 +timeout=3 @10.96.0.10 b.test");
        drop(running);
        let seen = seen.join().unwrap();
        let subnet = |third| vec![0, 1, 24, 0, 127, 0, third];
        let with = |name: &[u8], third, nsid: bool| {
            let mut all = vec![(0xffee, vec![10, 11]), (0xffef, name.to_vec())];
            all.extend(nsid.then(|| (3, Vec::new())));
            all.push((8, subnet(third)));
            all
        };
        // The third client is of the first one's network, and is told what that was told.
        assert_eq!(
            seen,
            [
                with(b"a.test.", 0, false),
                with(b"a.test.", 1, false),
                with(b"a.test.", 0, true),
                with(b"b.test.", 0, false)
            ]
        );
    });
}
