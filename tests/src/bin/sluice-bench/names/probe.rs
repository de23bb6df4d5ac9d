//! Asks at a steady rate, and measures what the answers take up to where the kernel has them for the client.
//!
//! A client that waits is woken, and what that takes is in every latency that it measures. This one asks again and
//! again whether there is something, on a core of its own, and reads of each answer when it came: from SO_TIMESTAMPNS,
//! a clock that does not wait for the client. What remains is the way there, the server with its waking, and the way
//! back.

use std::fs;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns};
use nix::sys::time::TimeSpec;
use sluice_tests::bed::Host;
use sluice_tests::{Error, Result, programs};

/// How long is asked, and how long the last answers may take.
const ASKED: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_millis(50);
/// A client that was itself held up this long does not make up for it: that would be a flood, and no rate.
const LATE: u32 = 4;
/// The ids of messages.
const IDS: usize = 1 << 16;

/// Has it measured from `client`, on a core; the median and the 99th percentile in microseconds.
pub(crate) fn run(
    client: &Host,
    core: &str,
    server: SocketAddr,
    questions: &Path,
    rate: f64,
) -> Result<[f64; 2]> {
    let own = programs::built("sluice-bench")?.display().to_string();
    let (server, questions, rate) =
        (server.to_string(), questions.display().to_string(), format!("{rate:.0}"));
    let arguments = ["-n", "-20", "taskset", "-c", core, &own, "names-probe", &server, &questions, &rate];
    let text = client.succeed("nice", &arguments)?;
    let numbers: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    numbers.try_into().map_err(|_| Error::answer("names-probe", text))
}

/// Measures, with the questions of a file for `dnsperf`.
pub(crate) fn measure(server: SocketAddr, questions: &Path, rate: u32) -> Result<[f64; 2]> {
    let text = fs::read_to_string(questions).map_err(Error::file("read", questions))?;
    let queries: Vec<Vec<u8>> = text.lines().filter_map(|line| line.split(' ').next()).map(query).collect();
    let failed = |error: std::io::Error| Error::answer(format!("asking {server}"), error.to_string());
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    setsockopt(&socket, ReceiveTimestampns, &true).map_err(|errno| failed(errno.into()))?;
    let mut times = ask(&socket, &queries, ASKED / rate.max(1)).map_err(failed)?;
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).map(|time| time.as_nanos() as f64 / 1e3);
    at(50).zip(at(99)).map(|(p50, p99)| [p50, p99]).ok_or_else(|| Error::answer("names-probe", "no answer"))
}

/// Asks one question after the other, `gap` apart, and gives what each answer took.
fn ask(socket: &UdpSocket, queries: &[Vec<u8>], gap: Duration) -> std::io::Result<Vec<Duration>> {
    let mut under_way: Vec<Option<Duration>> = vec![None; IDS];
    let mut times = Vec::new();
    let begin = now();
    let mut next = begin;
    let mut queries = queries.iter().cycle();
    let mut id: u16 = 0;
    let mut message = Vec::new();
    loop {
        let time = now();
        if time >= begin + ASKED + GRACE {
            return Ok(times);
        }
        if time >= next && time < begin + ASKED {
            let Some(query) = queries.next() else { return Ok(times) };
            id = id.wrapping_add(1);
            message.clear();
            message.extend_from_slice(&id.to_be_bytes());
            message.extend_from_slice(query);
            under_way[usize::from(id)] = Some(now());
            socket.send(&message)?;
            next = if time > next + gap * LATE { time + gap } else { next + gap };
        }
        if let Some((id, came)) = receive(socket)?
            && let Some(sent) = under_way[usize::from(id)].take()
        {
            times.push(came.saturating_sub(sent));
        }
    }
}

/// An answer's id and when the kernel had it, if there is one.
fn receive(socket: &UdpSocket) -> std::io::Result<Option<(u16, Duration)>> {
    let mut message = [0; 4096];
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let (length, came) = match received {
        Err(Errno::EAGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
        Ok(received) => {
            let came = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            });
            (received.bytes, came)
        }
    };
    let id = message.first_chunk().filter(|_| length >= 2).map(|bytes| u16::from_be_bytes(*bytes));
    Ok(id.zip(came))
}

/// The clock that the kernel's stamps are of.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A query for the addresses of a name, without the id in front (RFC 1035, 4.1).
fn query(name: &str) -> Vec<u8> {
    // Recursion desired; one question, nothing else.
    let mut query = vec![1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}
