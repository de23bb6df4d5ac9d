//! `cargo xtask tidy`: the rules that no compiler checks. Each rule is a file that returns its findings.

mod dependencies;
mod documents;
mod purity;
mod sources;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// Check what no compiler checks: file sizes, purity, paths in documents, crate dependencies.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// A file of the repository.
pub(crate) struct Text {
    /// Its path from the top folder.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) text: String,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, _args: &Args) -> Result<()> {
    let root = workspace.root();
    let sources = read(root, "rs")?;
    let documents = read(root, "md")?;
    let mut findings = sources::check(&sources);
    findings.extend(purity::check(&sources));
    findings.extend(documents::check(root, &documents, &sources));
    findings.extend(dependencies::check(workspace)?);
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if findings.is_empty() {
        eprintln!("==> tidy: {} source files and {} documents in order", sources.len(), documents.len());
        return Ok(());
    }
    Err(Error::Findings { count: findings.len(), what: "findings of tidy" })
}

/// All files with an extension, below the top folder, in a fixed order.
fn read(root: &Path, extension: &str) -> Result<Vec<Text>> {
    let mut paths = Vec::new();
    walk(root, extension, &mut paths)?;
    paths.sort();
    let texts = paths.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        Ok(Text { path: path.strip_prefix(root).unwrap_or(&path).to_owned(), text })
    });
    texts.collect()
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::file("read", folder))? {
        let entry = entry.map_err(Error::file("read", folder))?;
        let name = entry.file_name();
        // Hidden folders are tools', and `target` is cargo's.
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            walk(&path, extension, found)?;
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    Ok(())
}
