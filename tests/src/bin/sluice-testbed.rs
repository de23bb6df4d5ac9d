//! The testbed's helper: enters namespaces, removes beds. Started by the library, never by a person, except
//! for `sweep`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Parser;
use sluice_tests::{Result, enter, reaper, upstream};

/// The testbed's helper.
#[derive(Parser)]
enum Cli {
    /// Enter a namespace and become the program given.
    Enter(enter::Entry),
    /// Wait for the end of the input, then remove the bed.
    Reap {
        /// The bed's name.
        bed: String,
    },
    /// Remove the beds that nobody owns any more.
    Sweep,
    /// Serve DNS: every name has these addresses.
    Upstream {
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
}

fn main() -> ExitCode {
    let outcome: Result<()> = match Cli::parse() {
        Cli::Enter(entry) => entry.enter().map(|never| match never {}),
        Cli::Reap { bed } => reaper::watch(&bed),
        Cli::Sweep => reaper::sweep(),
        Cli::Upstream { addresses } => upstream::serve(&addresses),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-testbed: {error}");
            ExitCode::from(125)
        }
    }
}
