//! Takes the addresses that a server listens on.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};

use crate::DnsError;

/// Room for bursts of queries, in bytes of the kernel's counting: some 5,000 of them. The kernel may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often a port is looked for that is free for both protocols.
const PORT_ATTEMPTS: usize = 16;
/// The port of RFC 863, from which nobody asks.
const DISCARD: u16 = 9;

/// How long a thread waits for a query before it looks whether it shall stop, where its socket is not to be shut down.
const LOOK: Duration = Duration::from_secs(1);

/// Sockets that an earlier server has left with somebody who keeps them between two processes (systemd's
/// `FileDescriptorStoreMax`). A server that begins with some, or none, may leave its own in turn:
/// [`crate::Configurator::sockets`].
#[derive(Debug, Default)]
pub struct Inherited(Vec<(SocketAddr, Type, Socket)>);

impl Inherited {
    /// Takes what can be used of these: UDP sockets without a peer, and listening TCP sockets. The others are closed.
    pub fn new(fds: impl IntoIterator<Item = OwnedFd>) -> Self {
        let read = |fd: OwnedFd| {
            let socket = Socket::from(fd);
            let kind = socket.r#type().ok()?;
            let address = socket.local_addr().ok()?.as_socket()?;
            // One with a peer has left its group.
            let is_good = match kind {
                Type::DGRAM => socket.peer_addr().is_err(),
                Type::STREAM => socket.is_listener().unwrap_or(false),
                _ => false,
            };
            is_good.then_some((address, kind, socket))
        };
        Self(fds.into_iter().filter_map(read).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, address: SocketAddr, kind: Type) -> Option<Socket> {
        let place = self.0.iter().position(|(of, is, _)| (*of, *is) == (address, kind))?;
        Some(self.0.swap_remove(place).2)
    }
}

/// Whether the sockets outlive the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keeping {
    /// Somebody may keep them.
    pub(crate) is_possible: bool,
    is_kept: Arc<AtomicBool>,
}

impl Keeping {
    /// Somebody may.
    pub(crate) fn possible() -> Self {
        Self { is_possible: true, ..Self::default() }
    }

    /// Says whether somebody does.
    pub(crate) fn set(&self, kept: bool) {
        self.is_kept.store(kept && self.is_possible, Ordering::Relaxed);
    }

    /// Whether somebody does.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }
}

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
    /// Binds `address`, whether or not a device has it; what is there already is taken.
    pub(crate) fn bind(
        address: SocketAddr,
        udp_count: usize,
        inherited: &mut Inherited,
        keeping: &Keeping,
    ) -> Result<Self, DnsError> {
        let mut open = |address, kind| match inherited.take(address, kind) {
            Some(socket) => Ok(socket),
            None => open(address, kind),
        };
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
            let look = keeping.is_possible.then_some(LOOK);
            for socket in &udp {
                socket.set_read_timeout(look).map_err(failed("setsockopt", address, "udp"))?;
            }
            return Ok(Self { address, udp, tcp });
        }
    }
}

impl Sockets {
    /// The same sockets once more, for somebody to keep.
    pub(crate) fn copies(&self) -> Result<Vec<OwnedFd>, DnsError> {
        let copy = |socket: &Socket| socket.try_clone().map(OwnedFd::from);
        let all = self.udp.iter().chain([&self.tcp]).map(copy);
        all.collect::<io::Result<_>>().map_err(failed("fcntl", self.address, "udp"))
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
        // As much as is granted will do; with CAP_NET_ADMIN that is all.
        if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        }
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
