//! Takes the addresses that a server listens on.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::DnsError;

/// Room for bursts of queries; the kernel may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often a port is looked for that is free for both protocols.
const PORT_ATTEMPTS: usize = 16;
/// The port of RFC 863, from which nobody asks.
const DISCARD: u16 = 9;

/// The sockets of one listen address.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The address, with the port that was taken.
    pub(crate) address: SocketAddr,
    /// One for each thread; the kernel spreads clients over them.
    pub(crate) udp: Vec<Socket>,
    /// Listening, not blocking.
    pub(crate) tcp: Socket,
}

impl Sockets {
    /// Binds `address`, whether or not a device has it.
    pub(crate) fn bind(address: SocketAddr, udp_count: usize) -> Result<Self, DnsError> {
        let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let first = open(address, Type::DGRAM)?;
            let bound = first.local_addr().map_err(failed("getsockname", address, "udp"))?;
            let address = bound.as_socket().unwrap_or(address);
            let tcp = match open(address, Type::STREAM) {
                Err(_) if attempts > 0 => continue,
                tcp => tcp?,
            };
            tcp.listen(BACKLOG).map_err(failed("listen", address, "tcp"))?;
            tcp.set_nonblocking(true).map_err(failed("fcntl", address, "tcp"))?;
            let mut udp = vec![first];
            while udp.len() < udp_count {
                udp.push(open(address, Type::DGRAM)?);
            }
            return Ok(Self { address, udp, tcp });
        }
    }
}

fn open(address: SocketAddr, kind: Type) -> Result<Socket, DnsError> {
    let (protocol, name) = if kind == Type::DGRAM { (Protocol::UDP, "udp") } else { (Protocol::TCP, "tcp") };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))
        .map_err(failed("socket", address, name))?;
    // So that the address may come to its device after us, and a successor may bind before we go.
    let set = match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true).and_then(|()| socket.set_only_v6(true)),
    };
    set.and_then(|()| socket.set_reuse_port(true))
        .and_then(|()| socket.set_reuse_address(true))
        .map_err(failed("setsockopt", address, name))?;
    if kind == Type::DGRAM {
        // As much as is granted will do.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    socket.bind(&address.into()).map_err(failed("bind", address, name))?;
    Ok(socket)
}

/// Takes a UDP socket out of those between which the kernel spreads the queries for an address, so that what comes
/// from now on goes to the others, and nothing comes between the last look into the socket and its end. A
/// socket with a peer gets packets of that peer alone; ours will never be heard of.
pub(crate) fn leave_group(socket: &Socket) {
    let nobody = socket.local_addr().ok().and_then(|address| address.as_socket()).map(|mut address| {
        address.set_port(DISCARD);
        address
    });
    if let Some(nobody) = nobody
        && let Err(error) = socket.connect(&nobody.into())
    {
        tracing::debug!(%error, "a socket that ends is still one of its group");
    }
}

fn failed(
    call: &'static str,
    address: SocketAddr,
    protocol: &'static str,
) -> impl FnOnce(io::Error) -> DnsError {
    move |source| DnsError::Socket { call, address, protocol, source }
}
