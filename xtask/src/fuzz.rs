//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, which looks for inputs that reach code that no other did.
//!
//! Not a part of `cargo xtask test`, which runs the same targets with mutations of its own: this needs cargo-fuzz and a
//! C++ compiler. It does without a sanitizer, and so without a nightly compiler.

use std::fs;
use std::path::Path;

use crate::command::{cargo, run as run_command, step, which};
use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// Where the targets are.
const FOLDER: &str = "fuzz/libfuzzer";
/// Seconds that an input may take: as in `fuzz/tests`, and some for a busy machine.
const TOO_LONG: u32 = 10;

/// Run fuzzing targets under libFuzzer (needs cargo-fuzz and a C++ compiler).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The target; without one, all of them, one after the other.
    target: Option<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    for (program, way) in
        [("cargo-fuzz", "cargo install cargo-fuzz --locked"), ("c++", "apt-get install g++, or clang")]
    {
        if which(program).is_none() {
            return Err(Error::Missing { what: program.to_owned(), way: way.to_owned() });
        }
    }
    let targets = targets(workspace)?;
    let chosen: Vec<&String> =
        targets.iter().filter(|name| args.target.as_ref().is_none_or(|asked| asked == *name)).collect();
    if chosen.is_empty() {
        let what = format!("a target {}", args.target.as_deref().unwrap_or_default());
        return Err(Error::Missing { what, way: format!("one of {}", targets.join(", ")) });
    }
    for target in chosen {
        step(target, &format!("{} s, and some minutes to build the first", args.seconds), || {
            libfuzzer(workspace, target, args.seconds)
        })?;
    }
    Ok(())
}

/// The names of the targets: each has its folder of seeds.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let seeds = workspace.root().join("fuzz/seeds");
    let entries = fs::read_dir(&seeds).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(Error::file("list", &seeds))?;
    let mut names: Vec<_> =
        entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Runs one. What it finds worth keeping stays in the target folder for the next time; an input that breaks it, too.
fn libfuzzer(workspace: &Workspace, target: &str, seconds: u32) -> Result<()> {
    let own = workspace.target().join("fuzz");
    let corpus = own.join("corpus").join(target);
    fs::create_dir_all(&corpus).map_err(Error::file("make", &corpus))?;
    let mut command = cargo(workspace.root(), ["fuzz", "run", "--fuzz-dir", FOLDER, "--sanitizer", "none"]);
    command.arg("--target-dir").arg(&own).arg(target).arg(corpus);
    for folder in ["seeds", "findings"].map(|folder| Path::new("fuzz").join(folder).join(target)) {
        if workspace.root().join(&folder).is_dir() {
            command.arg(folder);
        }
    }
    command.args(["--", &format!("-max_total_time={seconds}"), &format!("-timeout={TOO_LONG}")]);
    run_command(command.arg(format!("-artifact_prefix={}/{target}-", own.display())))
}
