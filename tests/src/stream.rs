//! TCP as nobody's library does it: one port used over and over, and segments out of nowhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::packet::Packet;
use crate::{Error, Result};

/// How long a connection and an answer are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The length of an Ethernet header.
const LINK: usize = 14;
/// `IPPROTO_RAW`: what is sent has its IP header.
const RAW: i32 = 255;

/// Asks an HTTP server over connections from one port, each begun as soon as the one before it has ended; prints the
/// answers. The server closes first, so that the port is free at once here, and the connection in TIME-WAIT there.
pub fn again(target: SocketAddr, from: u16, times: u32) -> Result<()> {
    for number in 0..times {
        let answer = once(target, from).map_err(Error::file("ask", format!("{target} for time {number}")))?;
        println!("{}", answer.lines().last().unwrap_or_default());
    }
    Ok(())
}

fn once(target: SocketAddr, from: u16) -> std::io::Result<String> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    let any = if target.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, from))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, from))
    };
    socket.bind(&any.into())?;
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Sends one segment, whose sequence number is in nobody's window but by an accident of one in some ten thousand.
pub fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Result<()> {
    let failed = |verb| Error::file::<std::io::Error>(verb, to.to_string());
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(RAW)));
    let socket = socket.map_err(failed("open a raw socket for"))?;
    let packet = Packet { payload: Vec::new(), ..Packet::tcp(&from.to_string(), &to.to_string(), flags) };
    // Raw sockets know no ports.
    let to = SocketAddr::new(to.ip(), 0);
    socket.send_to(&packet.frame()[LINK..], &to.into()).map_err(failed("send to"))?;
    Ok(())
}
