//! `cargo xtask VERB`: everything a person runs in this repository. This file parses and calls; each verb is
//! a file of its own.

mod bench;
mod build;
mod command;
mod debian;
mod demo;
mod dist;
mod error;
mod fuzz;
mod kernels;
mod lint;
mod plugin;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// What a person runs in Sluice's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what the other verbs need: the eBPF toolchain, the test runner, the test programs.
    Setup(setup::Args),
    /// Build the eBPF programs, then the user-space binaries with the programs inside.
    Build(build::Args),
    /// Set up, build, and show two nodes, real pods, curl and nslookup at work (needs root).
    Demo(demo::Args),
    /// Run everything that tests the project (needs root).
    Test(test::Args),
    /// Run tests on other kernels, in virtual machines (needs root).
    Kernels(kernels::Args),
    /// Measure, print a table, and write the numbers as JSON (needs root).
    Bench(bench::Args),
    /// Run fuzzing targets under libFuzzer (needs cargo-fuzz and a C++ compiler).
    Fuzz(fuzz::Args),
    /// Build static programs and make the release archive.
    Dist(dist::Args),
    /// Check formatting and lints.
    Lint(lint::Args),
    /// Check what no compiler checks: file sizes, purity, paths in documents, crate dependencies.
    Tidy(tidy::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Workspace::find().and_then(|workspace| match cli.verb {
        Verb::Setup(args) => setup::run(&workspace, &args),
        Verb::Build(args) => build::run(&workspace, &args),
        Verb::Demo(args) => demo::run(&workspace, &args),
        Verb::Test(args) => test::run(&workspace, &args),
        Verb::Kernels(args) => kernels::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args),
        Verb::Fuzz(args) => fuzz::run(&workspace, &args),
        Verb::Dist(args) => dist::run(&workspace, &args),
        Verb::Lint(args) => lint::run(&workspace, &args),
        Verb::Tidy(args) => tidy::run(&workspace, &args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
