//! Load: a client that measures and a server that answers, one process and one thread each, blocking sockets, and
//! no allocation while the clock runs.
//!
//! *rr*: one connection, one byte there, one byte back, again. *crr*: a connection for each such exchange; the
//! server closes first, so that the client's ports are free again at once. *udp*: one datagram there, one back.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The CPU of client and server. One of them always waits for the other, so one CPU is enough; two would
/// measure how long an idle CPU of this machine takes to wake.
const CPU: usize = 1;
/// Exchanges between two looks at the clock.
const BATCH: u64 = 16;

/// Which exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Exchange {
    /// Over one connection.
    Rr,
    /// Over a connection each.
    Crr,
    /// By datagrams.
    Udp,
}

/// How long a datagram's answer is waited for before it counts as lost.
const LOST: Duration = Duration::from_millis(200);

/// Answers for ever: on `port` as *rr*, on the next as *crr*, on the one after as *udp*. Connections are served one
/// after the other.
pub(crate) fn serve(port: u16) -> io::Result<()> {
    pin()?;
    let crr = listen(port + 1)?;
    let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port + 2))?;
    let thread = std::thread::spawn(move || answer(&crr, Exchange::Crr));
    std::thread::spawn(move || echo(&udp));
    answer(&listen(port)?, Exchange::Rr)?;
    thread.join().unwrap_or(Ok(()))
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
}

fn answer(listener: &TcpListener, exchange: Exchange) -> io::Result<()> {
    let mut byte = [0_u8; 1];
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {
            if exchange == Exchange::Crr {
                break;
            }
        }
    }
}

fn echo(socket: &UdpSocket) {
    let mut byte = [0_u8; 1];
    loop {
        if let Ok((length, client)) = socket.recv_from(&mut byte) {
            // A client that has gone does not wait for it.
            let _ = socket.send_to(&byte[..length], client);
        }
    }
}

/// Exchanges per second.
pub(crate) fn measure(exchange: Exchange, target: SocketAddr, time: Duration) -> io::Result<f64> {
    pin()?;
    let mut byte = [0_u8; 1];
    let mut count = 0_u64;
    let mut kept = None;
    let datagrams = if exchange == Exchange::Udp { Some(connect_udp(target)?) } else { None };
    let mut started = Instant::now();
    let warm = time / 10;
    let mut warming = true;
    loop {
        for _ in 0..BATCH {
            if let Some(socket) = &datagrams {
                socket.send(&byte)?;
                // A lost datagram shows in the rate.
                let _ = socket.recv(&mut byte);
                continue;
            }
            let stream = match (&mut kept, exchange) {
                (Some(stream), Exchange::Rr) => stream,
                _ => kept.insert(connect(target)?),
            };
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            if exchange == Exchange::Crr && stream.read(&mut byte)? != 0 {
                return Err(io::Error::other("the server did not close the connection"));
            }
        }
        count += BATCH;
        let elapsed = started.elapsed();
        if warming && elapsed >= warm {
            (warming, count, started) = (false, 0, Instant::now());
        } else if !warming && elapsed >= time {
            return Ok(count as f64 / elapsed.as_secs_f64());
        }
    }
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn connect_udp(target: SocketAddr) -> io::Result<UdpSocket> {
    let any =
        if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(LOST))?;
    Ok(socket)
}

fn pin() -> io::Result<()> {
    let count = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(CPU.min(count - 1))?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
