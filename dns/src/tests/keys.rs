//! Keys that sign answers, and how a Corefile names them.

use std::{fs, path::PathBuf};

use super::{
    config,
    dnssec::{KSK_AND_ZSK, P256, key, rules, signing},
};
use crate::{Corefile, DnsConfig, Dnssec, Server};

#[test]
fn dnssec_is_read_from_a_corefile() {
    let read = |text: &str| Corefile::read(text, DnsConfig::default()).map(|corefile| corefile.config);
    let config =
        read("zone.test b.test {\n dnssec {\n  key file a b.key\n  key file c\n  cache_capacity 5\n }\n}")
            .unwrap();
    let wanted = Dnssec {
        zones: vec!["zone.test".to_owned(), "b.test".to_owned()],
        keys: ["a", "b.key", "c"].map(PathBuf::from).to_vec(),
        cache_capacity: 5,
    };
    assert_eq!(config.rules[1].dnssec, Some(wanted));
    for (options, told) in [
        ("dnssec", "line 2: dnssec: the keys are missing: key file"),
        ("dnssec {\n key aws_secretsmanager a\n }", "line 3: key: keys are read from files alone"),
        ("dnssec {\n key file\n }", "line 3: key: \"key file\" is not supported"),
        ("dnssec {\n key file a\n cache_capacity x\n }", "line 4: cache_capacity: \"x\" is not a number"),
        ("dnssec {\n what\n }", "line 3: what: \"what\" is not supported"),
        ("dnssec a..b {\n key file a\n }", "line 2: dnssec: \"a..b\" is not a domain"),
        (
            "dnssec {\n key file a\n }\n dnssec {\n key file a\n }",
            "line 5: dnssec: the second in this server block",
        ),
    ] {
        let error = read(&format!("x.test {{\n {options}\n}}")).unwrap_err();
        assert_eq!(error.to_string(), told);
    }
}

#[test]
fn keys_that_cannot_sign_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("K");
    let file = |name: &str, end: &str| fs::read_to_string(key(&format!("{name}{end}"))).unwrap();
    let (public, private) = (file(P256, ".key"), file(P256, ".private"));
    let other = file(KSK_AND_ZSK[0], ".private");
    let short = "Private-key-format: v1.3\nAlgorithm: 8 (RSASHA256)\n";
    for (public, private, zone, told) in [
        (public.as_str(), private.as_str(), "zone.test", None),
        (public.as_str(), private.as_str(), "sub.zone.test", None),
        (&public, &private, "other.test", Some("K.key: a key of zone.test. can sign none of the zones")),
        (&public, &other, "zone.test", Some("K.private: the private key is not accepted")),
        (&public, short, "zone.test", Some("K.private: the algorithm is not that of the public key")),
        (&public, "x", "zone.test", Some("K.private: the format \"\" of the private key is not v1")),
        (
            &public,
            "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: !\n",
            "zone.test",
            Some("K.private: PrivateKey is not in base 64"),
        ),
        (
            &public,
            "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: AAAA\n",
            "zone.test",
            Some("K.private: the private key is not accepted"),
        ),
        ("; nothing\n", &private, "zone.test", Some("K.key: one DNSKEY record is expected")),
        (
            "zone.test. IN DNSKEY 0 3 13 AAAA\n",
            &private,
            "zone.test",
            Some("K.key: is not a key that signs zones"),
        ),
        (
            "zone.test. IN DNSKEY x\n",
            &private,
            "zone.test",
            Some("K.key: line 1: x is not a number up to 65535"),
        ),
        (
            "zone.test. IN DNSKEY 256 3 5 AAAA\n",
            "Private-key-format: v1.3\nAlgorithm: 5 (RSASHA1)\n",
            "zone.test",
            Some("K.private: the algorithm 5 is not supported: 8, 10, 13, 14 and 15 are"),
        ),
    ] {
        fs::write(base.with_extension("key"), public).unwrap();
        fs::write(base.with_extension("private"), private).unwrap();
        let dnssec = Dnssec { zones: vec![zone.to_owned()], keys: vec![base.clone()], ..Dnssec::default() };
        let checked = DnsConfig { rules: vec![rules(dnssec)], ..config() }.check();
        match told {
            None => assert!(checked.is_ok(), "{checked:?}"),
            Some(told) => {
                let mut chain = String::new();
                let error = checked.unwrap_err();
                let mut cause: Option<&dyn std::error::Error> = Some(&error);
                while let Some(error) = cause {
                    chain += &format!("{error}; ");
                    cause = error.source();
                }
                assert!(chain.contains(told), "{told}: {chain}");
            }
        }
    }
    let missing = signing(&["zone.test"], &["nothing"]);
    assert!(Server::bind(DnsConfig { rules: vec![rules(missing)], ..config() }).is_err());
}
