//! Every source file opens by saying what it is for, and is short enough to be read in one sitting.

use super::Text;

/// Lines above which a file is worth splitting; a remark, no finding.
const SOFT: usize = 400;
/// Lines above which a file must be split.
const HARD: usize = 600;

/// The findings.
pub(super) fn check(sources: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let path = source.path.display();
        if !has_head(&source.text) {
            findings.push(format!("{path}: opens without a `//!` head that says what it is for"));
        }
        let lines = production_lines(&source.text);
        if lines > HARD {
            findings.push(format!("{path}: {lines} lines before its tests; {HARD} is the limit"));
        } else if lines > SOFT {
            eprintln!("tidy: remark: {path}: {lines} lines before its tests; better below {SOFT}");
        }
    }
    findings
}

fn has_head(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//!"))
}

/// The lines up to the inline tests.
pub(super) fn production(text: &str) -> &str {
    let Some(at) = text.find("\n#[cfg(test)]\nmod ") else { return text };
    // Only a module with a body ends the production code; `mod tests;` is a file of its own.
    let declaration = text[at..].lines().nth(2).unwrap_or_default();
    if declaration.ends_with('{') { &text[..at] } else { text }
}

fn production_lines(text: &str) -> usize {
    production(text).lines().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn source(text: &str) -> Vec<Text> {
        vec![Text { path: PathBuf::from("a/src/b.rs"), text: text.to_owned() }]
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(check(&source("use std::fs;\n")).len(), 1);
        assert_eq!(check(&source("#![no_std]\n\n//! The programs.\n")).len(), 0);
    }

    #[test]
    fn tests_do_not_count_into_the_size() {
        let body = "// a line\n".repeat(550);
        let with_tests = format!("//! Head.\n{body}\n#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(check(&source(&with_tests)), Vec::<String>::new());
        assert_eq!(check(&source(&format!("//! Head.\n{body}{body}"))).len(), 1);
    }
}
