//! The testbed's helper: enters namespaces, removes beds. Started by the library, never by a person, except
//! for `sweep`.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use sluice_tests::{Result, datagram, enter, reaper, upstream};

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
    /// Send a datagram and print the first answer.
    Ask {
        /// To whom.
        target: SocketAddr,
        /// From which port.
        #[arg(long, default_value_t = 0)]
        from: u16,
    },
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
        Cli::Ask { target, from } => datagram::ask(target, from).map(|answer| print!("{answer}")),
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
