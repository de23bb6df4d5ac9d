//! The testbed's helper: enters namespaces, removes beds. Started by the library, never by a person, except
//! for `sweep`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sluice_tests::{Result, datagram, enter, names_load, reaper, service_manager, stream, upstream};

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
        /// How many bytes to send instead of a question; the answer must be the same, and its length is printed.
        #[arg(long)]
        size: Option<usize>,
    },
    /// Send a datagram from each of many ports, and wait for nothing.
    Flood {
        /// To whom.
        target: SocketAddr,
        /// The first port.
        #[arg(long)]
        from: u16,
        /// How many.
        #[arg(long)]
        count: u16,
    },
    /// Send datagrams back.
    Echo {
        /// To which port they come.
        port: u16,
    },
    /// Connect from one port again and again, as soon as the connection before has ended, and print the answers.
    Again {
        /// To whom, for an answer of HTTP.
        target: SocketAddr,
        /// From which port.
        #[arg(long)]
        from: u16,
        /// How often.
        #[arg(long)]
        times: u32,
    },
    /// Send a TCP segment that belongs to nothing this side knows of.
    Segment {
        /// The sender, an address of this namespace.
        from: SocketAddr,
        /// To whom.
        to: SocketAddr,
        /// The header's flags.
        flags: u8,
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
    /// Be the service manager of a program: start it again when it dies, and keep the sockets that it gives away.
    Manage {
        /// The folder for what is told.
        folder: PathBuf,
        /// How long nothing runs after the program's end.
        #[arg(long, default_value_t = 100)]
        milliseconds: u64,
        /// The program and its arguments.
        #[arg(last = true)]
        command: Vec<String>,
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
        Cli::Ask { target, from, size: Some(size) } => {
            datagram::echoed(target, from, size).map(|length| println!("{length}"))
        }
        Cli::Flood { target, from, count } => datagram::flood(target, from, count),
        Cli::Echo { port } => datagram::echo(port),
        Cli::Again { target, from, times } => stream::again(target, from, times),
        Cli::Segment { from, to, flags } => stream::segment(from, to, flags),
        Cli::Ask { target, from, size: None } => datagram::ask(target, from).map(|answer| print!("{answer}")),
        Cli::NamesLoad { server, name, address, rate, milliseconds } => {
            let time = std::time::Duration::from_millis(milliseconds);
            let outcome = names_load::run(server, &name, address, rate, time);
            outcome.map(|outcome| println!("{outcome}"))
        }
        Cli::Manage { folder, milliseconds, command } => {
            let pause = std::time::Duration::from_millis(milliseconds);
            service_manager::run(&folder, pause, &command).map(|never| match never {})
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
