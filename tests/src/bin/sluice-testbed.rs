//! The testbed's helper: enters namespaces, removes beds. Started by the library, never by a person, except
//! for `sweep`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use sluice_tests::{Result, datagram, enter, names_load, reaper, upstream};

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
    /// Ask for a name's address at a steady rate, each query twice at most, and print what became of them.
    NamesLoad {
        /// Whom.
        server: SocketAddr,
        /// For which name.
        name: String,
        /// Its address.
        address: Ipv4Addr,
        /// Queries a second.
        #[arg(long, default_value_t = 10_000)]
        rate: u32,
        /// For how long.
        #[arg(long, default_value_t = 1000)]
        milliseconds: u64,
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
        Cli::NamesLoad { server, name, address, rate, milliseconds } => {
            let time = std::time::Duration::from_millis(milliseconds);
            let outcome = names_load::run(server, &name, address, rate, time);
            outcome.map(|outcome| println!("{outcome}"))
        }
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
