//! One datagram there, one back: what `socat` does too, but without waiting for a second answer that never comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::{Error, Result};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `target` from the port `from` (0: any) and returns its answer.
pub fn ask(target: SocketAddr, from: u16) -> Result<String> {
    let any =
        if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let failed = |verb| Error::file::<std::io::Error>(verb, target.to_string());
    let socket = UdpSocket::bind((any, from)).map_err(failed("bind a socket for"))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed("wait for"))?;
    // Not connected: an answer from elsewhere would be taken, and is then an error that shows where from.
    socket.send_to(b"ask\n", target).map_err(failed("send to"))?;
    let mut buffer = [0_u8; 2048];
    let (length, sender) = socket.recv_from(&mut buffer).map_err(failed("hear from"))?;
    if sender != target {
        return Err(Error::answer(target.to_string(), format!("answered from {sender}")));
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
