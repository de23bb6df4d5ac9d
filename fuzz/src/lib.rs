//! Fuzzing: one plain function for each place where foreign bytes are read, and what runs it.
//!
//! A target is `fn(&[u8])` that must neither panic nor hang, whatever it is given; it may also assert what has to hold
//! of any input (what was read and written again reads the same). It lives in the crate it is about, in a module
//! `fuzz`, and is entered in [`TARGETS`]. Then
//!
//! - `fuzz/tests/targets.rs` gives it its findings, its seeds and a second of mutations of them, with the stable
//!   compiler, in every test run;
//! - `cargo xtask fuzz` runs the same under libFuzzer, guided by coverage, for as long as one likes (`fuzz/libfuzzer`).
//!
//! ```text
//! fuzz/seeds/<target>/*          inputs that are right, or nearly: where mutations begin
//! fuzz/findings/<target>/<name>  inputs that once broke it, named after what they broke; tried first, for ever
//! ```

mod mutate;

use std::path::{Path, PathBuf};

pub use mutate::Mutator;

/// A place where foreign bytes are read.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its folders, and of its libFuzzer target.
    pub name: &'static str,
    /// What is run.
    pub run: fn(&[u8]),
    /// Words of its language, to put into inputs.
    pub words: &'static [&'static str],
}

const JSON: &[&str] = &[
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "0",
    "-1",
    "4294967296",
    "1e400",
    "\"\"",
    "\"::/0\"",
    "\"0.0.0.0/0\"",
];

/// Labels, pointers, types and an OPT record, as they stand in messages.
const NAMES: &[&str] = &[
    "\u{3}web\u{7}default\u{3}svc\u{7}cluster\u{5}local\0",
    "\u{2}db\u{7}default\u{3}svc",
    "\u{5}_http\u{4}_tcp",
    "\u{7}in-addr\u{4}arpa\0",
    "\u{5}exact\u{4}test\0",
    "\u{6}suffix\u{4}test\0",
    "\u{8}template\u{4}test\0",
    "\u{5}alias\u{6}suffix\u{4}test\0",
    "\u{3}web\u{5}regex\u{4}test\0",
    "\u{3}www\u{6}suffix\u{4}test\0",
    "\0\u{63}\0\u{1}",
    "\0\u{1}\0\u{3}",
    "\0\u{8}\0\u{4}\0\u{1}\u{18}\0",
    "\u{4}gate\u{4}test\0",
    "\u{2}db\u{7}default\u{7}outside\u{4}test\0",
    "\u{3}ns1\u{3}dns\u{7}outside\u{4}test\0",
    "\0\u{1}\0\u{1}",
    "\0\u{1c}\0\u{1}",
    "\0\u{21}\0\u{1}",
    "\0\0\u{29}\u{10}\0\0\0\0\0\0\0",
    "\u{3f}",
];

const COREFILE: &[&str] = &[
    "kubernetes",
    "forward",
    "next",
    "except",
    "tls://192.0.2.1%a",
    "https://192.0.2.1",
    "cache",
    "serve_stale",
    "serve_stale_policy",
    "prefer_positive",
    "hosts",
    "rewrite",
    "name",
    "regex",
    "answer",
    "template",
    "ederror",
    "{{ parseInt .Group.a 16 8 }}",
    "IN",
    "ANY",
    "acl",
    "dns64",
    "health",
    "lameduck",
    "import",
    "(snippet) {",
    "snippet",
    "*.conf",
    "ttl",
    "rcode",
    "cname",
    "edns0",
    "local",
    "subnet",
    "set",
    "0xffee",
    "value",
    "auto",
    "log",
    "class",
    "{common}",
    "serve_stale",
    "verify",
    "bind",
    "{",
    "}",
    "\n",
    "\"",
    "\\",
    "{$HOME}",
    "fallthrough",
    ".",
    "5s",
    "10.0.0.0/9",
    "tls://",
    "::1",
    "continue",
    "prefetch",
    "serve_stale",
    "autopath",
    "@kubernetes",
    "namespace_labels",
    "a in (b)",
    "#",
];

/// A master file's words.
const MASTER: &[&str] = &[
    "$ORIGIN ",
    "$TTL ",
    "$INCLUDE db\n",
    "$GENERATE 1-9/2 ",
    "${1,2,x}",
    "\n",
    "\n ",
    "(",
    ")",
    ";",
    "\"",
    "\\",
    "\\000",
    "@ ",
    "* ",
    ".",
    " IN ",
    " 1h ",
    " A 192.0.2.1\n",
    " AAAA ::1\n",
    " NS ns\n",
    " CNAME ",
    " DNAME ",
    " MX 10 ",
    " SRV 0 0 80 ",
    " TXT \"a\" b\n",
    " SOA ns host 1 2 3 4 5\n",
    " CAA 0 issue \"ca\"\n",
    " TYPE65280 \\# 2 0001\n",
    " HTTPS 1 . alpn=h2\n",
    " NSEC a A MX TYPE1234\n",
    " RRSIG A 8 2 60 20300101000000 0 1 @ AAAA\n",
    " DS 1 8 2 00\n",
    " NAPTR 1 2 a b c .\n",
    " NSEC3 1 0 0 - 00 A\n",
];

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "cni_config", run: sluice_cni::fuzz::config, words: JSON },
    Target {
        name: "cni_args",
        run: sluice_cni::fuzz::args,
        words: &[";", "=", "IgnoreUnknown=1", "IP=", "MAC=", "K8S_POD_NAME="],
    },
    Target { name: "cni_record", run: sluice_cni::fuzz::record, words: JSON },
    Target { name: "cni_pool", run: sluice_cni::fuzz::pool, words: &["sluice\u{0}1"] },
    Target { name: "cni_node", run: sluice_cni::fuzz::node, words: JSON },
    Target { name: "cni_ipam_result", run: sluice_cni::fuzz::ipam_result, words: JSON },
    Target { name: "dns_query", run: sluice_dns::fuzz::query, words: NAMES },
    Target { name: "dns_answer", run: sluice_dns::fuzz::answer, words: NAMES },
    Target { name: "dns_corefile", run: sluice_dns::fuzz::corefile, words: COREFILE },
    Target { name: "dns_master", run: sluice_dns::fuzz::master, words: MASTER },
    Target { name: "dns_saved", run: sluice_dns::fuzz::saved, words: JSON },
];

/// The inputs of a folder (`seeds`, `findings`) of a target, in the order of their names.
pub fn inputs(folder: &str, target: &str) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let mut paths = match std::fs::read_dir(&directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(&path).map(|bytes| (path, bytes))).collect()
}
