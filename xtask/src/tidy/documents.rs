//! What the documents name exists: every relative link, every path of the repository in a code span, and every
//! test that `docs/parity.md` claims (`path/to/file.rs::name_of_the_test`).

use std::path::Path;

use super::Text;

/// The findings.
pub(super) fn check(root: &Path, documents: &[Text], sources: &[Text]) -> Vec<String> {
    let folders = top_folders(root);
    let mut findings = Vec::new();
    for document in documents {
        for (number, line) in outside_fences(&document.text) {
            let place = format!("{}:{number}", document.path.display());
            for link in links(line) {
                let base = document.path.parent().unwrap_or(Path::new(""));
                if !root.join(base).join(link).exists() {
                    findings.push(format!("{place}: the link to {link} leads nowhere"));
                }
            }
            for span in code_spans(line) {
                findings
                    .extend(missing(root, &folders, sources, span).map(|what| format!("{place}: {what}")));
            }
        }
    }
    findings
}

/// What is wrong with a code span, if it is a path of this repository (with or without the name of a test).
fn missing(root: &Path, folders: &[String], sources: &[Text], span: &str) -> Option<String> {
    let (path, test) = span.split_once("::").map_or((span, None), |(path, test)| (path, Some(test)));
    let ours = path.split_once('/').is_some_and(|(first, _)| folders.iter().any(|folder| folder == first));
    if !ours || path.contains(['*', '<', '{', ' ', '$']) {
        return None;
    }
    if !root.join(path).exists() && !is_module(root, path) {
        return Some(format!("{path} does not exist"));
    }
    let test = test?;
    let function = test.rsplit("::").next().unwrap_or(test);
    let source = sources.iter().find(|source| source.path == Path::new(path))?;
    let there = source.text.contains(&format!("fn {function}("));
    (!there).then(|| format!("{path} has no test {function}"))
}

/// Whether this is the short form of a module's path: `agent/convert` for `agent/src/convert` or `agent/src/convert.rs`.
fn is_module(root: &Path, path: &str) -> bool {
    path.split_once('/').is_some_and(|(package, module)| {
        let long = root.join(package).join("src").join(module);
        long.exists() || long.with_extension("rs").exists()
    })
}

fn top_folders(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir() && entry.file_name() != "target");
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The lines, with their numbers, that are not inside a fenced block.
fn outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// Targets of relative links, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).then_some(target)
    })
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn findings(document: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("tests/tests")).unwrap();
        std::fs::create_dir_all(root.path().join("docs")).unwrap();
        let test =
            Text { path: PathBuf::from("tests/tests/dns.rs"), text: "#[test]\nfn srv() {}\n".to_owned() };
        std::fs::write(root.path().join(&test.path), &test.text).unwrap();
        std::fs::create_dir_all(root.path().join("tests/src")).unwrap();
        std::fs::write(root.path().join("tests/src/bed.rs"), "").unwrap();
        let document = Text { path: PathBuf::from("docs/a.md"), text: document.to_owned() };
        check(root.path(), &[document], &[test])
    }

    #[test]
    fn names_of_things_that_exist_are_fine() {
        assert_eq!(
            findings(
                "See `tests/bed`, `tests/tests/dns.rs`, `tests/tests/dns.rs::srv` and [it](../tests/tests/dns.rs#L1)."
            ),
            [""; 0]
        );
        assert_eq!(
            findings(
                "`kube-system/kube-dns`, `tests/*/x`, <https://x.org/tests/nothing>, [a](https://x.org/b)"
            ),
            [""; 0]
        );
    }

    #[test]
    fn names_of_things_that_do_not_exist_are_found() {
        assert_eq!(findings("`tests/tests/gone.rs`"), ["docs/a.md:1: tests/tests/gone.rs does not exist"]);
        assert_eq!(
            findings("\n`tests/tests/dns.rs::ptr`"),
            ["docs/a.md:2: tests/tests/dns.rs has no test ptr"]
        );
        assert_eq!(findings("[x](gone.md)"), ["docs/a.md:1: the link to gone.md leads nowhere"]);
    }

    #[test]
    fn fenced_blocks_are_free() {
        assert_eq!(findings("```\n`tests/tests/gone.rs`\n```\n"), [""; 0]);
    }
}
