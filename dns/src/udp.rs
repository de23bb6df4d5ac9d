//! Answers over UDP: a thread a socket, queries taken and answers sent by the batch.
//!
//! A thread of its own, and not a task, so that answers do not wait for whatever else the process does. A
//! query that needs others goes to the runtime, and its answer leaves through the same socket.

use std::{
    io::{IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg},
};
use socket2::Socket;

use crate::{
    handler::{Client, Handler, HandlerSlot, Outcome, Transport},
    metrics::Listener,
    server::Busy,
};

/// Queries taken by one system call.
const BATCH: usize = 32;
/// No query is longer: what is cut off was not one.
const QUERY: usize = 2048;

/// How long a thread goes on at most once it shall stop.
const DRAIN: Duration = Duration::from_millis(200);

/// What one thread works with.
pub(crate) struct Worker {
    pub(crate) socket: Arc<Socket>,
    pub(crate) handler: HandlerSlot,
    pub(crate) listener: Arc<Listener>,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Set before the socket is shut down.
    pub(crate) stop: Arc<AtomicBool>,
    /// Held by every query under way.
    pub(crate) busy: Busy,
}

/// A query's length, or an answer's place, with the client's address.
type Packet = Option<(usize, SockaddrStorage)>;

impl Worker {
    /// Answers until the socket is shut down.
    pub(crate) fn run(self) {
        let mut buffers = Box::new([[0_u8; QUERY]; BATCH]);
        let mut answers: Vec<Vec<u8>> = vec![Vec::new(); BATCH];
        let mut incoming = MultiHeaders::preallocate(BATCH, None);
        let mut outgoing = MultiHeaders::preallocate(BATCH, None);
        let mut turn: u32 = rand::random();
        let mut stopping = None;
        loop {
            let packets = match self.receive(&mut buffers, &mut incoming) {
                Ok(packets) => packets,
                // Nothing came for a while.
                Err(Errno::EAGAIN) if self.stop.load(Ordering::Relaxed) => return,
                Err(Errno::EAGAIN) => continue,
                // ICMP errors about answers that did not arrive.
                Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "receiving DNS queries");
                    return;
                }
            };
            let came = Instant::now();
            let mut clients = [None; BATCH];
            let mut count = 0;
            let mut is_empty = true;
            let handler = self.handler.load();
            for (buffer, (length, client)) in buffers.iter().zip(packets.into_iter().map_while(|p| p)) {
                if length == 0 {
                    continue;
                }
                is_empty = false;
                turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if self.answer(&handler, &buffer[..length], client, turn >> 8, came, &mut answers[count]) {
                    clients[count] = Some(client);
                    count += 1;
                }
            }
            self.send(&answers[..count], &clients[..count], &mut outgoing);
            if self.stop.load(Ordering::Relaxed) {
                // What is in the socket is answered still; a successor gets what comes from now on, sooner or later.
                let since = *stopping.get_or_insert(came);
                if is_empty || came.duration_since(since) > DRAIN {
                    return;
                }
            }
        }
    }

    fn receive(
        &self,
        buffers: &mut [[u8; QUERY]; BATCH],
        headers: &mut MultiHeaders<SockaddrStorage>,
    ) -> Result<[Packet; BATCH], Errno> {
        let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let flags = MsgFlags::MSG_WAITFORONE;
        let received = recvmmsg(self.socket.as_raw_fd(), headers, slices.iter_mut(), flags, None)?;
        let mut packets = [None; BATCH];
        for (packet, message) in packets.iter_mut().zip(received) {
            // A socket that was shut down gives messages without an address.
            *packet = message.address.map(|client| (message.bytes, client));
        }
        Ok(packets)
    }

    /// Whether there is an answer to send now.
    fn answer(
        &self,
        handler: &Arc<Handler>,
        query: &[u8],
        client: SockaddrStorage,
        turn: u32,
        came: Instant,
        answer: &mut Vec<u8>,
    ) -> bool {
        let Some(from) = to_std(&client) else { return false };
        let asker = Client { transport: Transport::Udp, address: from.ip(), port: from.port() };
        let handle = AssertUnwindSafe(|| handler.answer(query, asker, turn, answer));
        let Ok((outcome, asked)) = std::panic::catch_unwind(handle) else {
            self.listener.panicked();
            return false;
        };
        match outcome {
            // A transfer is one over TCP.
            Outcome::Silence | Outcome::Transfer => return false,
            Outcome::Answered(part) | Outcome::Refresh(part) => {
                if matches!(outcome, Outcome::Refresh(_)) {
                    let _runtime = self.runtime.enter();
                    handler.refresh(query, asker);
                }
                self.listener.request(asked, query.len());
                self.listener.response(answer, part, came.elapsed());
                return true;
            }
            Outcome::Later => self.listener.request(asked, query.len()),
        }
        let (handler, listener, socket) = (handler.clone(), self.listener.clone(), self.socket.clone());
        let (query, busy) = (query.to_vec(), self.busy.clone());
        self.runtime.spawn(async move {
            if let Some((answer, part)) = handler.later(&query, asker, turn).await {
                listener.response(&answer, part, came.elapsed());
                // A client that went away, or a full buffer: it asks again.
                let _ = socket.send_to_with_flags(&answer, &from.into(), libc::MSG_DONTWAIT);
            }
            drop(busy);
        });
        false
    }

    fn send(
        &self,
        answers: &[Vec<u8>],
        clients: &[Option<SockaddrStorage>],
        headers: &mut MultiHeaders<SockaddrStorage>,
    ) {
        let none: &[u8] = &[];
        let slices: [_; BATCH] =
            std::array::from_fn(|n| [IoSlice::new(answers.get(n).map_or(none, Vec::as_slice))]);
        let slices = &slices[..answers.len()];
        let mut sent = 0;
        while sent < slices.len() {
            let (rest, to) = (slices[sent..].iter(), &clients[sent..]);
            match sendmmsg(self.socket.as_raw_fd(), headers, rest, to, [], MsgFlags::empty()) {
                Ok(results) => sent += results.count().max(1),
                Err(Errno::EINTR) => {}
                // The first one cannot be sent: its client is gone. The others can.
                Err(_) => sent += 1,
            }
        }
    }
}

/// The address in the standard library's form.
fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
