//! What questions to upstreams take while they wait: many at one time, to a server that says nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sluice_dns::{DnsConfig, Server, Upstreams};
use sluice_tests::{Error, Result};

use super::cluster;

/// Until all must have been given up.
const PATIENCE: Duration = Duration::from_secs(8);
/// So many are asked in a millisecond: a socket holds some hundreds.
const PACE: u32 = 10;

/// Some questions may be lost on their way to the server; the others tell what all of them would take.
const ENOUGH: f64 = 0.9;

/// How much more memory the process has while `count` questions are under way, in KiB.
pub(crate) fn measure(count: u32) -> Result<f64> {
    let failed = |error: std::io::Error| Error::answer("asking the DNS server", error.to_string());
    let silent = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 5398));
    let config = DnsConfig {
        listen: vec![listen],
        udp_threads: 1,
        upstreams: Upstreams::Addresses(vec![silent.local_addr().map_err(failed)?]),
        max_concurrent: 0,
        detect_loops: false,
        ..DnsConfig::default()
    };
    let server = Server::bind(config).map_err(|error| Error::answer("the DNS server", error.to_string()))?;
    let runtime = cluster::runtime()?;
    runtime.spawn(server.run(std::future::pending()));
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    socket.connect(listen).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let before = resident("VmRSS:")?;
    let (mut given_up, mut buffer) = (0, [0; 512]);
    let end = Instant::now() + PATIENCE;
    let mut asked = 0;
    while given_up < count && Instant::now() < end {
        for _ in 0..PACE.min(count - asked) {
            socket.send(&query(asked)).map_err(failed)?;
            asked += 1;
        }
        while socket.recv(&mut buffer).is_ok() {
            // SERVFAIL; a question more than may be under way is refused.
            given_up += u32::from(buffer[3] & 0xf == 2);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let part = f64::from(given_up) / f64::from(count);
    if part < ENOUGH {
        return Err(Error::answer(
            "the DNS server",
            format!("{given_up} of {count} questions were under way"),
        ));
    }
    Ok((resident("VmHWM:")? - before) / part)
}

/// What of this process is in memory, or was at the most, in KiB.
fn resident(what: &str) -> Result<f64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    size.ok_or_else(|| Error::answer(path, format!("no {what}")))
}

/// A query for the address of a name of its own.
fn query(number: u32) -> Vec<u8> {
    let label = format!("name-{number}");
    let mut message =
        vec![(number >> 8) as u8, number as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8];
    message.extend(label.as_bytes());
    message.extend(b"\x07example\x03org\0\0\x01\0\x01");
    message
}
