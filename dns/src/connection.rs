//! Connections to an upstream that are kept for the next question.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

/// A connection, plain or encrypted.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that a question has for itself.
pub(crate) struct Connection(Box<dyn Duplex>);

impl Connection {
    /// A connection that was just opened.
    pub(crate) fn new(stream: impl Duplex + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// Sends a message and waits for one.
    pub(crate) async fn exchange(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
        self.0.write_all(&framed).await?;
        self.0.flush().await?;
        let length = self.0.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        self.0.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

/// Connections without a question. One whose question timed out never comes back, so an answer that comes late
/// meets no other question.
pub(crate) struct Pool {
    idle: Mutex<Vec<(Connection, Instant)>>,
    /// How many are kept; more questions at one time open more, which close after their answer.
    max: usize,
    /// How long one is kept without a question.
    expire: Duration,
}

impl Pool {
    /// Keeps at most `max` connections, each for `expire`.
    pub(crate) fn new(max: usize, expire: Duration) -> Self {
        Self { idle: Mutex::default(), max, expire }
    }

    /// The connection used last, if it is fresh.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        idle.retain(|(_, since)| now.duration_since(*since) < self.expire);
        idle.pop().map(|(connection, _)| connection)
    }

    /// Keeps a connection whose question is answered.
    pub(crate) fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.max {
            idle.push((connection, Instant::now()));
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Pool({})", idle.len())
    }
}
