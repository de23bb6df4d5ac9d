//! Datagrams there and back: what `socat` does too, but without waiting for a second answer that never comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::{Error, Result};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `target` from the port `from` (0: any) and returns its answer.
pub fn ask(target: SocketAddr, from: u16) -> Result<String> {
    let answer = exchange(target, from, b"ask\n")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends so many bytes to an [`echo`] and returns how many came back, if they are the same.
pub fn echoed(target: SocketAddr, from: u16, size: usize) -> Result<usize> {
    let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let answer = exchange(target, from, &bytes)?;
    if answer != bytes {
        return Err(Error::answer(target.to_string(), format!("{} other bytes", answer.len())));
    }
    Ok(answer.len())
}

/// Sends a datagram from each of so many ports, and waits for no answer.
pub fn flood(target: SocketAddr, first: u16, count: u16) -> Result<()> {
    for port in first..first.saturating_add(count) {
        bound(target, port)?.send_to(b"ask\n", target).map_err(Error::file("send to", target.to_string()))?;
    }
    Ok(())
}

/// Sends every datagram back, of both families.
pub fn echo(port: u16) -> Result<()> {
    let failed = |error| Error::file("serve on", port.to_string())(error);
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).map_err(failed)?;
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        // An error is about a client that has gone.
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _gone = socket.send_to(&buffer[..length], client);
        }
    }
}

/// A socket of the target's family.
fn bound(target: SocketAddr, from: u16) -> Result<UdpSocket> {
    let any =
        if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, from)).map_err(Error::file("bind a socket for", target.to_string()))
}

fn exchange(target: SocketAddr, from: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let failed = |verb| Error::file::<std::io::Error>(verb, target.to_string());
    let socket = bound(target, from)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed("wait for"))?;
    // Not connected: an answer from elsewhere would be taken, and is then an error that shows where from.
    socket.send_to(bytes, target).map_err(failed("send to"))?;
    let mut buffer = vec![0_u8; 1 << 16];
    let (length, sender) = socket.recv_from(&mut buffer).map_err(failed("hear from"))?;
    if sender != target {
        return Err(Error::answer(target.to_string(), format!("answered from {sender}")));
    }
    buffer.truncate(length);
    Ok(buffer)
}
