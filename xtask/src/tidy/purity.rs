//! A file named `desired` or `plan` is a pure function: it imports nothing that reaches the kernel, the
//! network, the cluster or the clock.

use super::Text;
use super::sources::production;

/// Crates and modules that a pure file does not name.
const IMPURE: [&str; 12] = [
    "aya",
    "hickory_proto",
    "hickory_resolver",
    "hickory_server",
    "kube",
    "netlink_packet_route",
    "netlink_sys",
    "nix",
    "notify",
    "rtnetlink",
    "std::fs",
    "tokio",
];

/// The findings.
pub(super) fn check(sources: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_pure(source)) {
        for (number, line) in production(&source.text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for name in IMPURE.iter().filter(|name| names(code, name)) {
                let path = source.path.display();
                findings
                    .push(format!("{path}:{}: a `desired` or `plan` file does not use {name}", number + 1));
            }
        }
    }
    findings
}

fn is_pure(source: &Text) -> bool {
    source
        .path
        .iter()
        .any(|part| ["desired", "desired.rs", "plan", "plan.rs"].iter().any(|pure| part == *pure))
}

/// Whether the code uses the crate or module: `use name`, or `name::`, as a whole word.
fn names(code: &str, name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].bytes().next_back();
        let rest = &code[at + name.len()..];
        let whole = !before.is_some_and(|byte| is_word(byte) || byte == b':');
        whole
            && (rest.starts_with("::")
                || (code[..at].ends_with("use ") && rest.trim_start().starts_with(';')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn findings(path: &str, text: &str) -> usize {
        check(&[Text { path: PathBuf::from(path), text: text.to_owned() }]).len()
    }

    #[test]
    fn a_pure_file_names_no_impure_crate() {
        assert_eq!(findings("proxy/src/plan.rs", "use aya::maps::HashMap;\n"), 1);
        assert_eq!(findings("agent/src/routes/desired.rs", "fn f() { std::fs::read(p) }\n"), 1);
        assert_eq!(findings("dns/src/desired/zone.rs", "use tokio;\n"), 1);
    }

    #[test]
    fn other_files_words_within_words_and_comments_are_free() {
        assert_eq!(findings("proxy/src/maps.rs", "use aya::maps::HashMap;\n"), 0);
        assert_eq!(findings("proxy/src/plan.rs", "use himalaya::peak; // not aya::maps\n"), 0);
        assert_eq!(
            findings("proxy/src/plan.rs", "//! Head.\n\n#[cfg(test)]\nmod tests {\nuse tokio::x;\n}\n"),
            0
        );
    }
}
