//! Master files as texts: what is in them, what is wrong with them, and how a Corefile names them.

use std::{fs, path::Path};

use hickory_proto::rr::RecordType::{A, TXT};
use proptest::prelude::*;

use super::files::{file, rules};
use crate::{Corefile, DnsConfig, testing::Fixture};

#[test]
fn files_within_files_and_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let soa = "@ SOA ns host 1 2 3 4 5\n";
    put("more/inner", "$ORIGIN x.example.org.\na A 192.0.2.1\n$INCLUDE last b\n");
    put("more/last", "@ A 192.0.2.2\nc A 192.0.2.3\n");
    let good =
        put("good", &format!("{soa}first A 192.0.2.9\n$INCLUDE more/inner\n  TXT here\nd A 192.0.2.4\n"));
    let fixture = Fixture::with(rules(vec![file(&good, &["example.org"])]), []);
    for (name, address) in
        [("a.x", "192.0.2.1"), ("b.x", "192.0.2.2"), ("c.b.x", "192.0.2.3"), ("d", "192.0.2.4")]
    {
        let name = format!("{name}.example.org.");
        assert_eq!(fixture.told(&name, A), ["NOERROR".to_owned(), format!("{name} 3600 A {address}")]);
    }
    assert_eq!(fixture.told("first.example.org.", TXT).len(), 2, "the owner is the one before the file");
    put("more/bad", "ok A 192.0.2.1\nbad A 192.0.2.256\n");
    put("ring", "$INCLUDE ring\n");
    for (text, line, problem) in [
        ("", 1, "example.org. has no SOA record"),
        ("a A 192.0.2.1\n", 1, "example.org. has no SOA record"),
        ("a SOA b c 1 2 3 4 5", 1, "the SOA record of a.example.org. is not that of example.org."),
        (
            "@ SOA a b 1 2 3 4 5\n@ SOA a b 2 2 3 4 5",
            2,
            "example.org. has another record of this type, and may have one",
        ),
        ("@ SOA a b 1 2 3 4", 1, "there is less than the type needs"),
        ("@ SOA a b 1 2 3 4 5 6", 1, "6 is one word too many"),
        ("\n\na A 192.0.2.256", 3, "192.0.2.256 is not an IPv4 address"),
        ("a MX x mail", 1, "x is not a number up to 65535"),
        ("a NS b..c", 1, "b..c is not a domain name"),
        ("a..b A 192.0.2.1", 1, "a..b is not a domain name"),
        ("  A 192.0.2.1", 1, "a record without an owner before it"),
        ("a CH A 192.0.2.1", 1, "the class CH is not served"),
        ("a WHAT x", 1, "WHAT is not a record type"),
        ("a ANY x", 1, "ANY is not a record type"),
        ("a IN", 1, "a type is expected"),
        ("a 99999999999 A 192.0.2.1", 1, "99999999999 is not a record type"),
        ("a 3000000000 A 192.0.2.1", 1, "3000000000 is not a time to live"),
        ("$GENERATE 255-256 a$ A 192.0.2.$", 1, "192.0.2.256 is not an IPv4 address"),
        ("$GENERATE 2-1 a A 192.0.2.$", 1, "2-1 is not a range of numbers"),
        ("$WHAT x", 1, "$WHAT is not supported"),
        ("$TTL", 1, "$TTL takes one word"),
        ("$TTL x", 1, "x is not a time to live"),
        ("$ORIGIN a b", 1, "$ORIGIN takes one word"),
        ("\n$INCLUDE nothing", 2, "nothing: No such file or directory (os error 2)"),
        ("a TXT \"b", 1, "the quote does not end"),
        ("a TYPE65400 \\# 2 00", 1, "2 bytes in hexadecimal are expected"),
        ("a TYPE65400 00", 1, "data of type TYPE65400 is read in the form of RFC 3597 alone"),
        ("a DS 1 2 3 xyz", 1, "xyz is not in hexadecimal"),
        ("a TXT \\300", 1, "\\300 has an escape that is no byte"),
    ] {
        let path = put("wrong", text);
        let error = rules(vec![file(&path, &["example.org"])]).check().unwrap_err();
        let told = std::error::Error::source(&error).unwrap().to_string();
        let (at, rest) = told.rsplit_once("wrong: ").or(told.rsplit_once("/wrong: ")).unwrap();
        let rest = rest.replace(&format!("{}/", folder.path().display()), "");
        assert_eq!((rest, at.is_empty()), (format!("line {line}: {problem}"), false), "{text:?}");
    }
    for (text, told) in [
        ("$INCLUDE more/bad", "more/bad: line 2: bad"),
        ("$INCLUDE ring", "ring: line 1: too many files within files"),
    ] {
        let path = put("outer", text);
        let error = rules(vec![file(&path, &["example.org"])]).check().unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.contains(told.trim_end_matches("bad")), "{error}");
    }
    let twice =
        rules(vec![file(&good, &["example.org"]), file(&good, &["Example.ORG."])]).check().unwrap_err();
    assert_eq!(std::error::Error::source(&twice).unwrap().to_string(), "example.org. is there twice");
}

#[test]
fn file_is_read_from_a_corefile() {
    let read = |text: &str| Corefile::read(text, DnsConfig::default()).map(|corefile| corefile.config);
    let text = "a.test b.test {
        file /zones/db {
            reload 30s
            fallthrough in.a.test
        }
        file db.c c.test 10.0.0.0/8 {
            reload 0
            reload_by_mtime
        }
    }";
    let rules = read(text).unwrap().rules;
    assert_eq!(rules[0].files, rules[1].files);
    let mut first = file(Path::new("/zones/db"), &["a.test", "b.test"]);
    first.reload = Some(std::time::Duration::from_secs(30));
    first.fallthrough = Some(vec!["in.a.test".to_owned()]);
    let mut second = file(Path::new("db.c"), &["c.test", "10.in-addr.arpa"]);
    second.reload = None;
    assert_eq!(rules[0].files, [first, second]);
    let rooted = "x.test {\n file db\n file /etc/db y.test\n dnssec {\n key file k /k\n }\n root /zones\n}";
    let rules = &read(rooted).unwrap().rules[0];
    let names: Vec<_> = rules.files.iter().map(|file| file.file.clone()).collect();
    assert_eq!(names, [Path::new("/zones/db"), Path::new("/etc/db")]);
    assert_eq!(rules.dnssec.as_ref().unwrap().keys, [Path::new("/zones/k"), Path::new("/k")]);
    for (options, told) in [
        ("root", "line 2: root: one folder is expected"),
        ("root a {\n b\n }", "line 3: b: \"b\" is not supported"),
        ("file", "line 2: file: a file is expected"),
        ("file db {\n what\n }", "line 3: what: \"what\" is not supported"),
        ("file db {\n reload x\n }", "line 3: reload: \"x\" is not a duration"),
        ("file db a..b", "line 2: file: \"a..b\" is not a domain"),
        ("secondary {\n transfer from 192.0.2.1\n }", "line 2: secondary: this directive is not supported"),
        ("auto", "line 2: auto: this directive is not supported"),
    ] {
        let error = read(&format!("x.test {{\n {options}\n}}")).unwrap_err();
        assert_eq!(error.to_string(), told);
    }
    let missing = read("x.test {\n file /nowhere/db {\n reload 0\n }\n}").unwrap().check().unwrap_err();
    assert_eq!(std::error::Error::source(&missing).unwrap().to_string(), "/nowhere/db");
    assert!(read("x.test {\n file /nowhere/db\n}").unwrap().check().is_ok(), "it may come");
}

proptest! {
    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..300), more in "[@$a-zA-Z0-9 .*\\\\\"();\n]{0,200}") {
        crate::fuzz::master(&text);
        crate::fuzz::master(format!("@ SOA a b 1 2 3 4 5\n{more}").as_bytes());
    }
}
