//! Queries at a steady rate from clients that ask once more, as resolvers do: sooner than these, and for no longer.
//!
//! One thread goes round its sockets every millisecond: it sends what is due, takes what came, and asks again
//! what has waited too long. An answer to either attempt is one, as long as the client waits.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// When a client asks again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long it waits then: what `resolv.conf` has by default for each attempt.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the sockets are looked at.
const STEP: Duration = Duration::from_millis(1);
/// Sockets, and so ports: between them the kernel spreads the queries over the servers.
const SOCKETS: usize = 64;

/// What became of the queries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many there were.
    pub asked: u32,
    /// Those answered with the address that the name has.
    pub right: u32,
    /// Those answered otherwise.
    pub wrong: u32,
    /// Those that had to be asked a second time.
    pub again: u32,
    /// Those that were not answered even then.
    pub lost: u32,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, right, wrong, again, lost } = self;
        write!(f, "{asked} {right} {wrong} {again} {lost}")
    }
}

impl FromStr for Outcome {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<u32> = text.split_whitespace().flat_map(str::parse).collect();
        match *numbers {
            [asked, right, wrong, again, lost] => Ok(Self { asked, right, wrong, again, lost }),
            _ => Err(Error::answer("names-load", text.to_owned())),
        }
    }
}

/// A query that waits for its answer.
struct Waiting {
    /// The socket and the id of this attempt.
    sent: (usize, u16),
    /// Those of the one before.
    before: Option<(usize, u16)>,
    since: Instant,
}

/// Asks `server` for the A record of `name`, which is `address`.
pub fn run(server: SocketAddr, name: &str, address: Ipv4Addr, rate: u32, time: Duration) -> Result<Outcome> {
    let failed = |verb| Error::file::<std::io::Error>(verb, server.to_string());
    let sockets = (0..SOCKETS)
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed("bind a socket for"))?;
    let mut outcome = Outcome::default();
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut again: VecDeque<Waiting> = VecDeque::new();
    // Attempts that wait, each with the other of its query.
    let mut open: HashMap<(usize, u16), Option<(usize, u16)>> = HashMap::new();
    let mut next = 0_u32;
    let mut send = |before: Option<(usize, u16)>, open: &mut HashMap<_, _>| {
        let sent = (next as usize % SOCKETS, (next as usize / SOCKETS) as u16);
        next += 1;
        // What cannot be sent is as good as lost on the way.
        let _ = sockets[sent.0].send_to(&query(sent.1, name), server);
        open.insert(sent, before);
        if let Some(before) = before {
            open.insert(before, Some(sent));
        }
        Waiting { sent, before, since: Instant::now() }
    };
    let start = Instant::now();
    let mut buffer = [0; 512];
    loop {
        let passed = start.elapsed().min(time);
        let due = (passed.as_secs_f64() * f64::from(rate)) as u32;
        while outcome.asked < due {
            outcome.asked += 1;
            waiting.push_back(send(None, &mut open));
        }
        for (place, socket) in sockets.iter().enumerate() {
            while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                let answer = &buffer[..length];
                let Some(id) = answer.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
                if let Some(other) = open.remove(&(place, id)) {
                    other.map(|other| open.remove(&other));
                    let is_right = answer[3] & 0xf == 0 && answer.ends_with(&address.octets());
                    *(if is_right { &mut outcome.right } else { &mut outcome.wrong }) += 1;
                }
            }
        }
        while waiting.front().is_some_and(|first| first.since.elapsed() >= AGAIN) {
            let Some(late) = waiting.pop_front() else { break };
            if open.contains_key(&late.sent) {
                outcome.again += 1;
                again.push_back(send(Some(late.sent), &mut open));
            }
        }
        while again.front().is_some_and(|first| first.since.elapsed() >= TIMEOUT) {
            let Some(late) = again.pop_front() else { break };
            if open.remove(&late.sent).is_some() {
                outcome.lost += 1;
                late.before.map(|before| open.remove(&before));
            }
        }
        if passed == time && open.is_empty() {
            return Ok(outcome);
        }
        thread::sleep(STEP);
    }
}

/// A query for a name's A record.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::from(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
