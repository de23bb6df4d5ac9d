//! Signed answers, as those see them who check them.

use std::{fs, path::PathBuf, process::Command};

use hickory_proto::rr::RecordType::{self, A, AAAA, DNSKEY};

use super::{V4, cluster, config, served};
use crate::{
    DnsConfig, Dnssec, External, Rules, Template, ZoneFile,
    testing::{
        bed::{eventually, in_namespace, sh},
        *,
    },
    tests::files::ZONE,
};

pub(super) fn key(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/keys")).join(name)
}

pub(super) const P256: &str = "Kzone.test.+013+22367";
pub(super) const KSK_AND_ZSK: [&str; 2] = ["Ksplit.test.+013+07750", "Ksplit.test.+013+34264"];

pub(super) fn signing(zones: &[&str], keys: &[&str]) -> Dnssec {
    Dnssec {
        zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
        keys: keys.iter().map(|name| key(name)).collect(),
        ..Dnssec::default()
    }
}

pub(super) fn rules(dnssec: Dnssec) -> Rules {
    Rules { dnssec: Some(dnssec), ..Rules::new(".") }
}

/// A trust anchor for `delv` of the key in a file: of these domains.
fn anchors(keys: &[&str], zones: &[&str]) -> String {
    let mut text = "trust-anchors {\n".to_owned();
    for name in keys {
        let file = fs::read_to_string(key(&format!("{name}.key"))).unwrap();
        let line = file.lines().find(|line| line.contains("DNSKEY")).unwrap();
        let data = line.split(';').next().unwrap().split("DNSKEY").nth(1).unwrap();
        let words: Vec<_> = data.split_whitespace().collect();
        for zone in zones {
            let [flags, protocol, algorithm] = [words[0], words[1], words[2]];
            let base64 = words[3..].concat();
            text += &format!("\"{zone}\" static-key {flags} {protocol} {algorithm} \"{base64}\";\n");
        }
    }
    text + "};\n"
}

/// What `delv` says of a question whose answer it checks with an anchor in a file.
fn delv(anchor: &std::path::Path, zone: &str, question: &str) -> String {
    let command = format!("delv @10.96.0.10 -a {} +root={zone} {question} 2>&1", anchor.display());
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server of a signed cluster, files among its domains; the folder keeps these.
fn everything(keys: &[&str]) -> (DnsConfig, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    fs::write(&path, ZONE.replace("example.org", "zone.test")).unwrap();
    let zones = ["zone.test", "cluster.local", "out.test", "10.in-addr.arpa", "template.test"];
    let rules = Rules {
        files: vec![ZoneFile { file: path, zones: vec!["zone.test".to_owned()], ..ZoneFile::default() }],
        templates: vec![Template {
            zones: vec!["template.test".to_owned()],
            answer: vec!["{{ .Name }} 60 IN MX 10 MAIL.Template.Test.".to_owned()],
            qtype: Some(15),
            ..Template::default()
        }],
        ..rules(signing(&zones, keys))
    };
    let external = External { zones: vec!["out.test".to_owned()], ..External::default() };
    (DnsConfig { rules: vec![rules], external: Some(external), ..config() }, folder)
}

#[test]
fn delv_validates_what_is_and_what_is_not() {
    in_namespace(|| {
        let (config, folder) = everything(&[]);
        let anchor = folder.path().join("anchor");
        for (keys, anchors_of) in [
            (&[P256][..], &[P256][..]),
            (&["Kzone.test.+014+05484"], &["Kzone.test.+014+05484"]),
            (&["Kzone.test.+015+64537.private"], &["Kzone.test.+015+64537"]),
            (&["Kzone.test.+008+64759.key"], &["Kzone.test.+008+64759"]),
            (&["Kzone.test.+010+01398"], &["Kzone.test.+010+01398"]),
            (&KSK_AND_ZSK, &[KSK_AND_ZSK[0]]),
            // One that signs keys and one that does not: each does its part.
            (&["Kldns.test.+015+41868", P256], &["Kldns.test.+015+41868"]),
        ] {
            // Any key may sign any domain; its own must be among them.
            let mut zones: Vec<String> = config.rules[0].dnssec.as_ref().unwrap().zones.clone();
            zones.extend(["split.test".to_owned(), "ldns.test".to_owned()]);
            let dnssec =
                Dnssec { zones, keys: keys.iter().map(|name| key(name)).collect(), ..Dnssec::default() };
            let rules = Rules { dnssec: Some(dnssec), ..config.rules[0].clone() };
            let (mut running, _world) = served_once(DnsConfig { rules: vec![rules], ..config.clone() });
            let anchors_of: Vec<&str> =
                if anchors_of.contains(&KSK_AND_ZSK[0]) { ksk_of(keys) } else { anchors_of.to_vec() };
            fs::write(
                &anchor,
                anchors(
                    &anchors_of,
                    &["zone.test", "cluster.local", "out.test", "10.in-addr.arpa", "template.test"],
                ),
            )
            .unwrap();
            for (zone, question, told) in [
                ("zone.test", "www.zone.test A", "; fully validated"),
                ("zone.test", "WwW.zone.test A", "; fully validated"),
                ("zone.test", "chain.zone.test A", "; fully validated"),
                ("zone.test", "any.wild.zone.test A", "; fully validated"),
                ("zone.test", "x.old.zone.test A", "; fully validated"),
                ("zone.test", "zone.test MX", "; fully validated"),
                ("zone.test", "zone.test SOA", "; fully validated"),
                ("zone.test", "zone.test DNSKEY", "; fully validated"),
                ("zone.test", "signed.zone.test DS", "; fully validated"),
                ("zone.test", "https.zone.test HTTPS", "; fully validated"),
                ("zone.test", "odd.zone.test TYPE65400", "; fully validated"),
                ("zone.test", "nothing.zone.test A", "; negative response, fully validated"),
                ("zone.test", "www.zone.test AAAA", "; negative response, fully validated"),
                ("zone.test", "zone.test AAAA", "; negative response, fully validated"),
                ("zone.test", "b.c.zone.test TXT", "; negative response, fully validated"),
                ("zone.test", "sub.zone.test DS", "; negative response, fully validated"),
                ("cluster.local", "web.default.svc.cluster.local A", "; fully validated"),
                ("cluster.local", "db.default.svc.cluster.local A", "; fully validated"),
                ("cluster.local", "_http._tcp.web.default.svc.cluster.local SRV", "; fully validated"),
                ("cluster.local", "chain.default.svc.cluster.local A", "; fully validated"),
                (
                    "cluster.local",
                    "nothing.default.svc.cluster.local A",
                    "; negative response, fully validated",
                ),
                ("cluster.local", "default.svc.cluster.local A", "; negative response, fully validated"),
                ("cluster.local", "dns-version.cluster.local TXT", "; fully validated"),
                ("10.in-addr.arpa", "-x 10.96.0.20", "; fully validated"),
                ("out.test", "ns1.dns.out.test A", "; fully validated"),
                ("template.test", "a.template.test MX", "; fully validated"),
            ] {
                let said = delv(&anchor, zone, question);
                assert!(said.lines().any(|line| line == told), "{keys:?} {question}: {said}");
            }
            running.stop();
        }
    });
}

/// As [`served`], where the addresses are there already.
fn served_once(config: DnsConfig) -> (crate::testing::bed::Running, ()) {
    sh("ip addr replace 10.96.0.10/32 dev lo");
    let config = DnsConfig { upstreams: crate::Upstreams::None, ..config };
    let running = crate::testing::bed::Running::start(DnsConfig {
        listen: vec![V4.parse().unwrap()],
        udp_threads: 1,
        ..config
    });
    running.publisher.publish(&snapshot(with_many()), &sluice_model::Changes::everything());
    (running, ())
}

/// Those that sign keys.
fn ksk_of<'k>(keys: &[&'k str]) -> Vec<&'k str> {
    let is_ksk =
        |name: &&&str| fs::read_to_string(key(&format!("{name}.key"))).unwrap().contains("DNSKEY 257");
    keys.iter().filter(is_ksk).copied().collect()
}

#[test]
fn a_resolver_that_validates_believes_it() {
    in_namespace(|| {
        let (config, folder) = everything(&[P256]);
        let (_running, ()) = served_once(config);
        let anchor = folder.path().join("anchor");
        fs::copy(key(&format!("{P256}.key")), &anchor).unwrap();
        let settings = folder.path().join("unbound.conf");
        let text = format!(
            "server:\n interface: 127.0.0.1@5353\n chroot: \"\"\n username: \"\"\n directory: \"{0}\"\n pidfile: \"\"\n use-syslog: no\n \
             do-not-query-localhost: no\n trust-anchor-file: \"{1}\"\n local-zone: \"test.\" nodefault\n module-config: \"validator iterator\"\n \
             aggressive-nsec: yes\nremote-control:\n control-enable: no\nstub-zone:\n name: zone.test\n stub-addr: 10.96.0.10\n",
            folder.path().display(),
            anchor.display()
        );
        fs::write(&settings, text).unwrap();
        let mut unbound = Command::new("unbound").args(["-d", "-c"]).arg(&settings).spawn().unwrap();
        let ask =
            |what: &str| sh(&format!("dig +tries=1 +timeout=5 +dnssec @127.0.0.1 -p 5353 {what} || true"));
        eventually("it answers", || ask("www.zone.test A").contains("status: NOERROR"));
        for (what, wanted) in [
            ("www.zone.test A", "192.0.2.80"),
            ("nothing.zone.test A", "NSEC"),
            ("nothing.zone.test AAAA", "NSEC"),
            ("mail.zone.test AAAA", "NSEC"),
            // What was denied of one type denies no other.
            ("mail.zone.test A", "192.0.2.25"),
            ("zone.test AAAA", "NSEC"),
            ("zone.test MX", "mail.zone.test."),
            ("any.wild.zone.test A", "192.0.2.42"),
        ] {
            let said = ask(what);
            let flags = said.lines().find(|line| line.contains("flags:")).unwrap_or_default();
            assert!(said.contains("status: NOERROR") && flags.contains(" ad"), "{what}: {said}");
            assert!(said.contains(wanted), "{what}: {said}");
        }
        unbound.kill().unwrap();
        unbound.wait().unwrap();
    });
}

/// The cluster, and a service of more endpoints than fit into an answer over UDP.
fn with_many() -> Vec<sluice_model::Object> {
    let mut objects = cluster();
    let addresses: Vec<String> = (0..90).map(|n| format!("10.9.0.{n}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    objects.push(headless("default/many"));
    objects.push(slice("many-4", "default/many", &["x/TCP/1"], &addresses));
    objects
}

/// The types in each section of an answer.
fn sections(
    fixture: &Fixture,
    name: &str,
    qtype: RecordType,
    is_secure: bool,
) -> (String, [String; 3], usize) {
    let mut message = hickory_proto::op::Message::from_vec(&question(name, qtype)).unwrap();
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_dnssec_ok(is_secure).set_max_payload(1232);
    message.edns = Some(edns);
    let mut out = Vec::new();
    fixture.handler.answer(&message.to_vec().unwrap(), UDP, 0, &mut out);
    let answer = hickory_proto::op::Message::from_vec(&out).unwrap();
    let types = |records: &[hickory_proto::rr::Record]| {
        let mut types: Vec<_> = records.iter().map(|record| record.record_type().to_string()).collect();
        types.sort();
        types.dedup();
        types.join(" ")
    };
    let code = format!("{:?}", answer.metadata.response_code).to_uppercase();
    let code = if answer.metadata.truncation { format!("{code} cut") } else { code };
    (code, [types(&answer.answers), types(&answer.authorities), types(&answer.additionals)], out.len())
}

#[test]
fn only_what_is_ours_and_asked_for_is_signed() {
    let (config, _folder) = everything(&[P256]);
    let mut many = with_many();
    many.push(external("default/there", "mail.zone.test"));
    let fixture = Fixture::with(config, many);
    let told = |name: &str, qtype, is_secure| {
        let (code, [answers, authority, additional], _) = sections(&fixture, name, qtype, is_secure);
        [code, answers, authority, additional].join("|")
    };
    for (name, qtype, is_secure, wanted) in [
        ("mail.zone.test.", A, false, "NOERROR|A|NS|"),
        ("mail.zone.test.", A, true, "NOERROR|A RRSIG|NS RRSIG|"),
        ("nothing.zone.test.", A, false, "NXDOMAIN||SOA|"),
        ("nothing.zone.test.", A, true, "NOERROR||NSEC RRSIG SOA|"),
        ("nothing.zone.test.", RecordType::NSEC, true, "NOERROR|NSEC RRSIG||"),
        ("zone.test.", DNSKEY, false, "NOERROR|DNSKEY||"),
        ("zone.test.", DNSKEY, true, "NOERROR|DNSKEY RRSIG||"),
        ("cluster.local.", DNSKEY, true, "NOERROR|DNSKEY RRSIG||"),
        ("mail.zone.test.", DNSKEY, true, "NOERROR||NSEC RRSIG SOA|"),
        // What is delegated is others', and so are their addresses.
        ("sub.zone.test.", A, true, "NOERROR||NS NSEC RRSIG|A"),
        ("a.signed.zone.test.", A, true, "NOERROR||DS NS RRSIG|A AAAA RRSIG"),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            RecordType::SRV,
            true,
            "NOERROR|RRSIG SRV||A AAAA RRSIG",
        ),
        ("web.default.svc.cluster.local.", AAAA, true, "NOERROR|AAAA RRSIG||"),
        // Too long for the client: over TCP, then.
        ("many.default.svc.cluster.local.", A, true, "NOERROR cut|A||"),
    ] {
        assert_eq!(told(name, qtype, is_secure), wanted, "{name} {qtype} {is_secure}");
    }
    let (code, _, length) = sections(&fixture, "many.default.svc.cluster.local.", A, true);
    assert!(code == "NOERROR cut" && length <= 1232, "{code} {length}");
    // Signatures are made once.
    let before = fixture.metrics.rules.signatures.misses.get();
    told("mail.zone.test.", A, true);
    assert_eq!(fixture.metrics.rules.signatures.misses.get(), before);
    assert!(fixture.metrics.rules.signatures.entries.get() > 5);
}

#[test]
fn what_others_say_is_not_signed() {
    in_namespace(|| {
        let dnssec = signing(&["example.org", "cluster.local", "zone.test"], &[P256]);
        let (_running, _world) = served(DnsConfig { rules: vec![rules(dnssec)], ..config() });
        let dig = |what: &str| sh(&format!("dig +tries=1 +dnssec @10.96.0.10 {what}"));
        for _ in 0..2 {
            let said = dig("www.example.org A");
            assert!(said.contains("192.0.2.80") && !said.contains("RRSIG"), "{said}");
            let said = dig("nothing.example.org A");
            assert!(said.contains("NXDOMAIN") && !said.contains("RRSIG"), "{said}");
        }
        // The alias is ours, what it leads to is not.
        let said = dig("out.default.svc.cluster.local A");
        let signed: Vec<_> = said.lines().filter(|line| line.contains("RRSIG")).collect();
        assert!(signed.len() == 1 && signed[0].contains("RRSIG\tCNAME"), "{said}");
        assert!(said.contains("192.0.2.80"), "{said}");
    });
}
