//! The least that a DNS server can do: take a query, and send it back as its own answer, one system call each.

use std::net::{SocketAddr, UdpSocket};

use sluice_tests::{Error, Result};

/// Where a message says whether it is an answer, and the bit that says so (RFC 1035, 4.1.1).
const FLAGS: usize = 2;
const ANSWER: u8 = 0x80;

/// Sends queries back until the process is killed.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let failed = |error: std::io::Error| Error::answer(format!("the floor on {listen}"), error.to_string());
    let socket = UdpSocket::bind(listen).map_err(failed)?;
    let mut message = [0; 2048];
    loop {
        // A client that is gone is told of here.
        let Ok((length, client)) = socket.recv_from(&mut message) else { continue };
        message[FLAGS] |= ANSWER;
        let _ = socket.send_to(&message[..length], client);
    }
}
