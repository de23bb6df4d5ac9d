//! Every target, for a moment: its findings, its seeds, and mutations of both. `SLUICE_FUZZ_SECONDS` makes it longer,
//! `SLUICE_FUZZ_SEED` different; the input of a failure is written to a file that the failure names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

use std::{
    panic::catch_unwind,
    time::{Duration, Instant},
};

use sluice_fuzz::{Mutator, TARGETS, Target, inputs};

/// Longer than any input may take, however busy the machine.
const TOO_LONG: Duration = Duration::from_secs(5);

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Runs the target on an input; fails with the place of a copy of it.
fn try_input(target: &Target, bytes: &[u8]) {
    let started = Instant::now();
    let survived = catch_unwind(|| (target.run)(bytes)).is_ok();
    if !survived || started.elapsed() > TOO_LONG {
        let path = std::env::temp_dir().join(format!("{}-{}", target.name, std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let what = if survived { "takes too long on" } else { "panics on" };
        panic!("{} {what} {}: {:?}", target.name, path.display(), String::from_utf8_lossy(bytes));
    }
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut corpus = Vec::new();
    for folder in ["findings", "seeds"] {
        for (_, bytes) in inputs(folder, name).unwrap() {
            try_input(target, &bytes);
            corpus.push(bytes);
        }
    }
    assert!(!corpus.is_empty(), "fuzz/seeds/{name} is empty");
    try_input(target, b"");
    let mut mutator = Mutator::new(number("SLUICE_FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs(number("SLUICE_FUZZ_SECONDS", 1));
    while Instant::now() < end {
        try_input(target, &mutator.input(&corpus, target.words));
    }
}

/// A test for each target, so that each fails by its name.
macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })+

        #[test]
        fn every_target_is_run_here_and_by_cargo_fuzz() {
            let run: Vec<_> = [$(stringify!($name)),+].into();
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(run, known);
            let manifest = include_str!("../libfuzzer/Cargo.toml");
            for name in known {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/libfuzzer");
            }
        }
    };
}

targets! {
    cni_config
    cni_args
    cni_record
    cni_pool
    cni_node
    cni_ipam_result
    dns_query
    dns_answer
    dns_corefile
    dns_master
    dns_saved
}
