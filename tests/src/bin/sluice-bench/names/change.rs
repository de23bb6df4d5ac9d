//! How long a change takes: from a slice's being known to its being answered, among 10,000 services.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sluice_model::{Changes, Object, ObjectName};
use sluice_tests::{Error, Result};

use super::cluster;

/// Changes in a run.
const COUNT: u32 = 300;
/// A query for the addresses of `headless.ns-0.svc.cluster.local`, by a client that takes 4096 bytes.
const QUERY: &[u8] =
    b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x08headless\x04ns-0\x03svc\x07cluster\x05local\0\0\x01\0\x01\
                       \0\0\x29\x10\0\0\0\0\0\0\0";

/// The median and the 99th percentile, in microseconds.
pub(crate) fn measure() -> Result<[f64; 2]> {
    let failed = |error: std::io::Error| Error::answer("asking the DNS server", error.to_string());
    let listen = SocketAddr::from(([127, 0, 0, 1], 5399));
    let (server, mut snapshot) = cluster::server(listen, listen)?;
    let publisher = server.publisher();
    let runtime = cluster::runtime()?;
    runtime.spawn(server.run(std::future::pending()));
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    socket.connect(listen).map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(failed)?;
    let name = ObjectName::new("ns-0", "headless");
    let mut times = Vec::new();
    let mut buffer = [0; 4096];
    for n in 0..COUNT {
        // One endpoint in fifty is another.
        let slice = cluster::slice(&name, (0..49).chain([100_000 + n]));
        let address = slice.endpoints.last().and_then(|endpoint| endpoint.addresses.first().copied());
        let Some(std::net::IpAddr::V4(address)) = address else { break };
        let start = Instant::now();
        let mut changes = Changes::default();
        snapshot.apply(Object::EndpointSlice(slice), &mut changes);
        publisher.publish(&snapshot, &changes);
        loop {
            socket.send(QUERY).map_err(failed)?;
            let length = socket.recv(&mut buffer).map_err(failed)?;
            if buffer[..length].windows(4).any(|bytes| bytes == address.octets()) {
                break;
            }
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    Ok([at(0.5), at(0.99)])
}
