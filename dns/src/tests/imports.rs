//! Corefiles that import snippets and other files.

use std::{collections::BTreeMap, io};

use crate::{Corefile, CorefileError, DnsConfig, Upstreams};

/// Files by the pattern that finds them.
type Files<'f> = BTreeMap<&'f str, Vec<(&'f str, &'f str)>>;

fn read(text: &str, files: &Files<'_>) -> Result<DnsConfig, CorefileError> {
    let load = |pattern: &str| -> io::Result<Vec<(String, String)>> {
        if pattern == "secret" {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        let found = files.get(pattern).into_iter().flatten();
        Ok(found.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    };
    let text = Corefile::bundle(text, load)?;
    // What was put together once needs no file any more.
    let again = Corefile::bundle(&text, |pattern| panic!("{pattern} is asked for again"));
    assert_eq!(again.as_ref(), Ok(&text));
    Corefile::read(&text, DnsConfig::default()).map(|corefile| corefile.config)
}

#[test]
fn snippets_and_files_stand_in_the_place_of_their_import() {
    let files = Files::from([
        ("common.conf", vec![("common.conf", "cache 17\nimport bind.conf")]),
        ("bind.conf", vec![("bind.conf", "bind 192.0.2.10 # here")]),
        (
            "zones/*.conf",
            vec![
                ("zones/a.conf", "a.test {\n import where\n}\n"),
                ("zones/b.conf", "(other) {\n forward . 192.0.2.3\n}\nb.test {\n import other\n}\n"),
            ],
        ),
        ("none/*", vec![]),
        ("options", vec![("options", "force_tcp")]),
    ]);
    let text = "
        (where) {
            forward . 192.0.2.2 {
                import options
            }
        }
        import zones/*.conf
        import none/*
        . {
            import common.conf
            import where
        }
        c.test { 
            forward . 192.0.2.4
        }
    ";
    let config = read(text, &files).unwrap();
    let stubs: Vec<_> = config
        .stub_domains
        .iter()
        .map(|stub| match &stub.upstreams {
            Upstreams::Addresses(all) => format!("{} {} {}", stub.zone, all[0], stub.forward.force_tcp),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        stubs,
        ["a.test. 192.0.2.2:53 true", "b.test. 192.0.2.3:53 false", "c.test. 192.0.2.4:53 false"]
    );
    assert_eq!((config.cache.success_ttl, config.forward.force_tcp), (17, true));
    assert_eq!(config.listen, ["192.0.2.10:53".parse().unwrap()]);
}

#[test]
fn what_cannot_be_imported_is_told_with_its_place() {
    let files = Files::from([
        ("bad.conf", vec![("bad.conf", "\nwhoami\n")]),
        ("open.conf", vec![("open.conf", "health {\n")]),
        ("closed.conf", vec![("closed.conf", "\n}\n")]),
        ("quote.conf", vec![("quote.conf", "a\n\"b\n")]),
        ("ring.conf", vec![("ring.conf", "import ring.conf\n")]),
        ("deep.conf", vec![("deep.conf", "import bad.conf\n")]),
    ]);
    for (text, told) in [
        (". {\n import bad.conf\n}", "bad.conf: line 2: whoami: this directive is not supported"),
        (". {\n import deep.conf\n}", "bad.conf: line 2: whoami: this directive is not supported"),
        (". {\n import open.conf\n}", "open.conf: line 1: {: a \"}\" is missing"),
        (". {\n import closed.conf\n}", "closed.conf: line 2: }: there is no \"{\" before it"),
        (". {\n import quote.conf\n}", "quote.conf: line 2: \": the quote does not end"),
        (". {\n import ring.conf\n}", "ring.conf: line 1: import: too many imports"),
        (". {\n\n import missing.conf\n}", "line 3: import: \"missing.conf\" is no snippet and no file"),
        (". {\n import secret\n}", "line 2: import: secret: permission denied"),
        (". {\n import a b\n}", "line 2: import: \"a\" is no snippet and no file"),
        (
            "(a) {\n errors\n}\n. {\n import a b\n}",
            "line 5: import: one snippet or pattern of files is expected",
        ),
        ("(a) {\n}\n(a) {\n}\n", "line 3: (a): there is another snippet of this name"),
        ("(a) {\n whoami\n}\n. {\n import a\n}", "line 2: whoami: this directive is not supported"),
        ("(a) {\n import b\n}\n(b) {\n import a\n}\n. {\n import a\n}", "line 2: import: too many imports"),
    ] {
        assert_eq!(read(text, &files).unwrap_err().to_string(), told, "{text}");
    }
}

#[test]
fn many_imports_end() {
    // Each stands for twice as many of the one after it.
    let mut text = String::new();
    for n in 0..40 {
        text += &format!("(s{n}) {{\n import s{}\n import s{}\n}}\n", n + 1, n + 1);
    }
    text += "(s40) {\n errors\n}\n. {\n import s0\n}\n";
    let error = read(&text, &Files::new()).unwrap_err();
    assert_eq!(error.problem, "too many imports");
}
