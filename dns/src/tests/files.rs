//! Domains in master files.

use std::{fs, path::Path};

use hickory_proto::rr::RecordType::{
    self, A, AAAA, ANY, CAA, CNAME, DNAME, DS, HTTPS, MX, NS, SOA, SRV, TXT,
};

use super::{cluster, config, served};
use crate::{
    DnsConfig, Rules, Transfer, ZoneFile,
    testing::{
        bed::{eventually, in_namespace, sh},
        *,
    },
};

/// A zone with some of everything.
pub(crate) const ZONE: &str = include_str!("../../../fuzz/seeds/dns_master/zone");

pub(super) fn rules(files: Vec<ZoneFile>) -> DnsConfig {
    DnsConfig { rules: vec![Rules { files, ..Rules::new(".") }], ..config() }
}

pub(super) fn file(path: &Path, zones: &[&str]) -> ZoneFile {
    let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
    ZoneFile { file: path.to_owned(), zones, ..ZoneFile::default() }
}

/// A server of [`ZONE`], and where its file is.
fn with_zone(change: impl FnOnce(&mut ZoneFile)) -> (Fixture, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    fs::write(&path, ZONE).unwrap();
    let mut zone = file(&path, &["example.org"]);
    change(&mut zone);
    (Fixture::with(rules(vec![zone]), cluster()), folder)
}

#[test]
fn a_master_file_is_answered_as_the_rfcs_say() {
    let (fixture, _folder) = with_zone(|_| {});
    let table: &[(&str, RecordType, &[&str])] = &[
        (
            "WWW.example.org.",
            A,
            &["NOERROR", "WWW.example.org. 300 A 192.0.2.80", "WWW.example.org. 300 A 192.0.2.81"],
        ),
        ("gen-03.example.org.", A, &["NOERROR", "gen-03.example.org. 3600 A 192.0.2.3"]),
        ("www.example.org.", AAAA, &["NOERROR"]),
        ("www.example.org.", ANY, &["NOERROR", "www.example.org. 3600 HINFO RFC8482 "]),
        ("nothing.example.org.", A, &["NXDOMAIN"]),
        (
            "example.org.",
            NS,
            &["NOERROR", "example.org. 3600 NS ns.example.org.", "example.org. 3600 NS ns.other.test."],
        ),
        (
            "example.org.",
            SOA,
            &[
                "NOERROR",
                "example.org. 3600 SOA ns.example.org. host\\.master.example.org. 7 7200 900 1209600 60",
            ],
        ),
        ("example.org.", TXT, &["NOERROR", "example.org. 3600 TXT one texttwo"]),
        ("example.org.", CAA, &["NOERROR", "example.org. 3600 CAA 0 issue \"ca.test\""]),
        ("example.org.", A, &["NOERROR"]),
        // Aliases, here and elsewhere.
        (
            "chain.example.org.",
            AAAA,
            &[
                "NOERROR",
                "alias.example.org. 3600 CNAME www.example.org.",
                "chain.example.org. 3600 CNAME alias.example.org.",
            ],
        ),
        ("chain.example.org.", CNAME, &["NOERROR", "chain.example.org. 3600 CNAME alias.example.org."]),
        ("dangling.example.org.", A, &["NXDOMAIN", "dangling.example.org. 3600 CNAME nothing.example.org."]),
        ("out.example.org.", A, &["NOT OURS"]),
        ("out.example.org.", CNAME, &["NOERROR", "out.example.org. 3600 CNAME www.elsewhere.test."]),
        // Names between others.
        ("b.c.example.org.", A, &["NOERROR"]),
        ("_tcp.example.org.", SRV, &["NOERROR"]),
        ("x.c.example.org.", A, &["NXDOMAIN"]),
        ("one.deep.example.org.", A, &["NOERROR", "one.deep.example.org. 3600 A 192.0.2.72"]),
        ("deep.example.org.", A, &["NOERROR"]),
        // Wildcards.
        ("any.wild.example.org.", A, &["NOERROR", "any.wild.example.org. 3600 A 192.0.2.42"]),
        ("any.thing.wild.example.org.", A, &["NOERROR", "any.thing.wild.example.org. 3600 A 192.0.2.42"]),
        ("any.wild.example.org.", AAAA, &["NOERROR"]),
        ("there.wild.example.org.", A, &["NOERROR"]),
        ("below.there.wild.example.org.", A, &["NXDOMAIN"]),
        ("*.wild.example.org.", A, &["NOERROR", "*.wild.example.org. 3600 A 192.0.2.42"]),
        ("wild.example.org.", A, &["NOERROR"]),
        (
            "x.alias-wild.example.org.",
            A,
            &[
                "NOERROR",
                "www.example.org. 300 A 192.0.2.80",
                "www.example.org. 300 A 192.0.2.81",
                "x.alias-wild.example.org. 3600 CNAME www.example.org.",
            ],
        ),
        // Delegations: others are told of, with nothing in the answer itself.
        ("sub.example.org.", A, &["NOERROR"]),
        ("below.sub.example.org.", A, &["NOERROR"]),
        ("ns.sub.example.org.", A, &["NOERROR"]),
        ("sub.example.org.", DS, &["NOERROR"]),
        // All names below lead elsewhere (RFC 6672).
        (
            "x.old.example.org.",
            A,
            &[
                "NOERROR",
                "old.example.org. 3600 DNAME A25ldwdleGFtcGxlA29yZwA=",
                "x.new.example.org. 3600 A 192.0.2.70",
                "x.old.example.org. 3600 CNAME x.new.example.org.",
            ],
        ),
        ("old.example.org.", DNAME, &["NOERROR", "old.example.org. 3600 DNAME A25ldwdleGFtcGxlA29yZwA="]),
        ("old.example.org.", A, &["NOERROR"]),
        // Of other types.
        ("odd.example.org.", RecordType::Unknown(65400), &["NOERROR", "odd.example.org. 3600 Unknown b2Rk"]),
        ("https.example.org.", HTTPS, &["NOERROR", "https.example.org. 3600 HTTPS 1 . alpn=h2,"]),
        ("dot\\.ted.example.org.", A, &["NOERROR", "dot\\.ted.example.org. 3600 A 192.0.2.71"]),
        // What is not in it is others'.
        ("example.net.", A, &["NOT OURS"]),
        ("web.default.svc.cluster.local.", A, &["NOERROR", "web.default.svc.cluster.local. 30 A 10.96.0.20"]),
    ];
    for (name, qtype, told) in table {
        assert_eq!(fixture.told(name, *qtype), *told, "{name} {qtype}");
    }
    assert_eq!(fixture.told("ring1.example.org.", A)[0], "SERVFAIL");
    let long = format!("{}.old.example.org.", ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."));
    assert_eq!(fixture.told(&long, A)[0], "NXDOMAIN");
}

#[test]
fn sections_hold_what_belongs_there() {
    let (fixture, _folder) = with_zone(|_| {});
    let lines = |records: &[hickory_proto::rr::Record]| {
        let mut lines: Vec<_> =
            records.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect();
        lines.sort();
        lines
    };
    let soa = "example.org. 60 SOA ns.example.org. host\\.master.example.org. 7 7200 900 1209600 60";
    for name in ["nothing.example.org.", "www.example.org.", "b.c.example.org.", "any.wild.example.org."] {
        let denial = fixture.ask(name, RecordType::NAPTR).unwrap();
        assert_eq!((lines(&denial.authorities), denial.metadata.authoritative), (vec![soa.to_owned()], true));
    }
    let referral = fixture.ask("a.below.sub.example.org.", A).unwrap();
    assert!(!referral.metadata.authoritative && referral.answers.is_empty());
    assert_eq!(
        lines(&referral.authorities),
        ["sub.example.org. 3600 NS ns.other.test.", "sub.example.org. 3600 NS ns.sub.example.org."]
    );
    assert_eq!(lines(&referral.additionals), ["ns.sub.example.org. 3600 A 192.0.2.54"]);
    let signed = fixture.ask("x.signed.example.org.", A).unwrap();
    assert_eq!(lines(&signed.authorities).len(), 2, "{signed:?}");
    let of_parent = fixture.ask("signed.example.org.", DS).unwrap();
    assert!(of_parent.metadata.authoritative && of_parent.answers.len() == 1, "{of_parent:?}");
    let mail = fixture.ask("example.org.", MX).unwrap();
    assert_eq!(lines(&mail.additionals), ["mail.example.org. 3600 A 192.0.2.25"]);
    assert_eq!(lines(&mail.authorities).len(), 2, "where the domain is served: {mail:?}");
    let srv = fixture.ask("_sip._tcp.example.org.", SRV).unwrap();
    assert_eq!(lines(&srv.additionals), ["sip.example.org. 3600 A 192.0.2.60"]);
    // What may be left out is, where there is no room, and that is no truncation.
    let mut out = Vec::new();
    fixture.handler.answer(&question("www.example.org.", A), UDP, 1, &mut out);
    let message = hickory_proto::op::Message::from_vec(&out).unwrap();
    assert!(out.len() <= 512 && !message.metadata.truncation);
    assert_eq!(message.answers[0].data.to_string(), "192.0.2.81", "each has its turn");
}

#[test]
fn what_does_not_exist_may_be_others() {
    let folder = tempfile::tempdir().unwrap();
    let (outer, inner) = (folder.path().join("outer"), folder.path().join("inner"));
    fs::write(&outer, format!("{ZONE}\n$ORIGIN example.org.\nin A 192.0.2.1\na.in A 192.0.2.1\n")).unwrap();
    fs::write(&inner, "@ SOA a a 1 2 3 4 5\nb A 192.0.2.2\nweb.default.svc.cluster.local. A 192.0.2.66\n")
        .unwrap();
    let mut open = file(&outer, &["example.org"]);
    open.fallthrough = Some(Vec::new());
    let mut part = file(&inner, &["in.example.org", "example.net", "cluster.local"]);
    part.fallthrough = Some(vec!["example.net".to_owned()]);
    let fixture = Fixture::with(
        DnsConfig { fallthrough: vec!["cluster.local".to_owned()], ..rules(vec![open, part]) },
        cluster(),
    );
    for (name, told) in [
        ("nothing.example.org.", &["NOT OURS"][..]),
        ("b.c.example.org.", &["NOT OURS"]),
        ("mail.example.org.", &["NOERROR", "mail.example.org. 3600 A 192.0.2.25"]),
        // The longest domain has the word, and one file may be of several.
        ("a.in.example.org.", &["NXDOMAIN"]),
        ("b.in.example.org.", &["NOERROR", "b.in.example.org. 3600 A 192.0.2.2"]),
        ("b.example.net.", &["NOERROR", "b.example.net. 3600 A 192.0.2.2"]),
        ("c.example.net.", &["NOT OURS"]),
        // The cluster goes before, and what it does not have falls through to the file.
        ("web.default.svc.cluster.local.", &["NOERROR", "web.default.svc.cluster.local. 30 A 10.96.0.20"]),
        ("b.cluster.local.", &["NOERROR", "b.cluster.local. 3600 A 192.0.2.2"]),
        ("c.cluster.local.", &["NXDOMAIN"]),
    ] {
        assert_eq!(fixture.told(name, A), told, "{name}");
    }
}

#[test]
fn dig_gets_what_a_file_says_as_it_changes() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, format!("{ZONE}$ORIGIN example.org.\nin CNAME web.default.svc.cluster.local.\nto CNAME here.late.test.\nworld CNAME www.example.org.\n").replace("example.org", "zone.test").replace("www.zone.test.\n", "www.example.org.\n")).unwrap();
        let late = folder.path().join("late");
        let mut zones = vec![file(&path, &["zone.test"]), file(&late, &["late.test"])];
        zones.iter_mut().for_each(|zone| zone.reload = Some(std::time::Duration::from_millis(50)));
        let transfers = vec![Transfer { zones: vec!["zone.test".to_owned()], to: Vec::new() }];
        let (running, _world) = served(DnsConfig { transfers, ..rules(zones) });
        let dig = |what: &str| sh(&format!("dig +tries=1 +short @10.96.0.10 {what}"));
        assert_eq!(dig("mail.zone.test A"), "192.0.2.25\n");
        assert_eq!(dig("alias.zone.test A").lines().count(), 3);
        // Aliases lead to the cluster, to other files, and to the world.
        assert_eq!(dig("in.zone.test A"), "web.default.svc.cluster.local.\n10.96.0.20\n");
        assert_eq!(dig("world.zone.test A"), "www.example.org.\n192.0.2.80\n");
        assert!(sh("dig +tries=1 @10.96.0.10 late.test SOA").contains("status: SERVFAIL"), "not there yet");
        fs::write(&late, "@ SOA a b 1 2 3 4 5\nhere A 192.0.2.90\n").unwrap();
        eventually("the file is there", || dig("here.late.test A") == "192.0.2.90\n");
        assert_eq!(dig("to.zone.test A"), "here.late.test.\n192.0.2.90\n");
        // A bad one leaves what was there; a good one takes its place.
        fs::write(&late, "@ SOA a b 2 2 3 4 5\nhere A 192.0.2.256\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(dig("here.late.test A"), "192.0.2.90\n");
        fs::remove_file(&late).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(dig("here.late.test A"), "192.0.2.90\n");
        fs::write(&late, "@ SOA a b 3 2 3 4 5\nhere A 192.0.2.91\n").unwrap();
        eventually("the file is read again", || dig("here.late.test A") == "192.0.2.91\n");
        // As a whole.
        let whole = sh("dig +tries=1 +noall +answer @10.96.0.10 zone.test AXFR");
        let lines: Vec<_> = whole.lines().filter(|line| !line.starts_with(';') && !line.is_empty()).collect();
        assert!(lines[0].contains("SOA") && lines.first() == lines.last(), "{whole}");
        for wanted in ["*.wild.zone.test.", "ns.sub.zone.test.", "TYPE65400", "dot\\.ted.zone.test."] {
            assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}: {whole}");
        }
        assert_eq!(
            sh("dig +tries=1 +noall +answer @10.96.0.10 zone.test IXFR=7 | grep -vc '^;'").trim(),
            "1"
        );
        let refused =
            |name: &str| sh(&format!("dig +tries=1 @10.96.0.10 {name} AXFR")).contains("Transfer failed");
        assert!(refused("late.test") && refused("www.zone.test"));
        assert!(running.metric("coredns_dns_responses_total{plugin=\"file\"") > 3.0);
    });
}

#[test]
fn a_signed_file_brings_its_proofs() {
    let zone = "@ SOA a b 1 2 3 4 5
@ RRSIG SOA 13 2 3600 20300101000000 20200101000000 1 @ AAAA
@ NSEC b A SOA NSEC RRSIG
@ RRSIG NSEC 13 2 3600 20300101000000 20200101000000 1 @ AAAA
b A 192.0.2.1
b RRSIG A 13 3 3600 20300101000000 1577836800 1 @ AAAA
b NSEC *.w A RRSIG NSEC
b RRSIG NSEC 13 3 3600 20300101000000 20200101000000 1 @ AAAA
*.w A 192.0.2.2
*.w RRSIG A 13 3 3600 20300101000000 20200101000000 1 @ AAAA
*.w NSEC @ A RRSIG NSEC
*.w RRSIG NSEC 13 3 3600 20300101000000 20200101000000 1 @ AAAA
";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    fs::write(&path, zone).unwrap();
    let fixture = Fixture::with(rules(vec![file(&path, &["example.org"])]), []);
    let ask = |name: &str, is_secure: bool| {
        let mut message = hickory_proto::op::Message::from_vec(&question(name, A)).unwrap();
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_dnssec_ok(is_secure).set_max_payload(4096);
        message.edns = Some(edns);
        let mut out = Vec::new();
        fixture.handler.answer(&message.to_vec().unwrap(), TCP, 0, &mut out);
        let answer = hickory_proto::op::Message::from_vec(&out).unwrap();
        let types = |records: &[hickory_proto::rr::Record]| {
            records.iter().map(|r| format!("{} {}", r.name, r.record_type())).collect::<Vec<_>>().join(", ")
        };
        (types(&answer.answers), types(&answer.authorities))
    };
    let e = "example.org.";
    assert_eq!(ask("b.example.org.", false), (format!("b.{e} A"), String::new()));
    assert_eq!(ask("b.example.org.", true), (format!("b.{e} A, b.{e} RRSIG"), String::new()));
    let soa = format!("{e} SOA, {e} RRSIG");
    assert_eq!(
        ask("c.example.org.", true).1,
        format!("{soa}, b.{e} NSEC, b.{e} RRSIG, {e} NSEC, {e} RRSIG"),
        "the name, and the wildcard that could have been"
    );
    assert_eq!(
        ask("x.w.example.org.", true),
        (format!("x.w.{e} A, x.w.{e} RRSIG"), format!("*.w.{e} NSEC, *.w.{e} RRSIG"))
    );
    assert_eq!(ask("example.org.", true).1, format!("{soa}, {e} NSEC, {e} RRSIG"));
    fs::write(&path, "@ SOA a b 1 2 3 4 5\na NSEC3 1 0 0 - 00 A\n").unwrap();
    assert!(rules(vec![file(&path, &["example.org"])]).check().is_err(), "NSEC3");
}
