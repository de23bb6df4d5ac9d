//! Answers over TCP (RFC 7766): several queries at once on a connection, answers as they are ready, and no
//! client that is slow, silent or greedy is at the cost of the others.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::{
    handler::{Client, HandlerSlot, Outcome, Transport},
    metrics::{Listener, Part},
    server::Busy,
    wire::HEADER,
};

/// A client may think this long between two queries, and take this long over one.
const IDLE: Duration = Duration::from_secs(10);
/// A client must take an answer within this time.
const WRITE: Duration = Duration::from_secs(5);
/// Answers that may wait for a client to take them.
const PIPELINE: usize = 64;
/// Connections of all clients of an address, and of one client.
const CONNECTIONS: usize = 1024;
const CONNECTIONS_OF_CLIENT: usize = 128;
/// After a failure to accept (no more descriptors, say).
const PAUSE: Duration = Duration::from_millis(100);

/// What all connections of an address share.
pub(crate) struct Acceptor {
    pub(crate) handler: HandlerSlot,
    pub(crate) listener: Arc<Listener>,
    pub(crate) busy: Busy,
    connections: Arc<Semaphore>,
    clients: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Acceptor {
    /// An acceptor without connections.
    pub(crate) fn new(handler: HandlerSlot, listener: Arc<Listener>, busy: Busy) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Self { handler, listener, busy, connections, clients: Arc::default() }
    }

    /// Accepts connections until `stopped` resolves, and then those that wait.
    pub(crate) async fn run(self, socket: TcpListener, mut stopped: oneshot::Receiver<()>) {
        let this = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                _ = &mut stopped => return,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting DNS connections");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // One too many is closed at once, which tells the client more than silence.
            let Ok(permit) = this.connections.clone().try_acquire_owned() else { continue };
            let Some(place) = Place::take(&this.clients, client.ip()) else { continue };
            let this = this.clone();
            tokio::spawn(async move {
                this.serve(stream, client).await;
                drop((permit, place));
            });
        }
    }

    async fn serve(&self, stream: TcpStream, client: SocketAddr) {
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let (answers, queue) = mpsc::channel(PIPELINE);
        let reader = self.read(BufReader::new(read), client, answers);
        let writer = write_answers(BufWriter::new(write), queue);
        tokio::pin!(writer);
        // The reader ends when the client is done: what it asked is still answered. The writer ends first
        // only when the client takes no answers, and then nothing is worth reading.
        tokio::select! {
            () = reader => writer.await,
            () = &mut writer => tracing::debug!(%client, "takes no answers"),
        }
    }

    async fn read(
        &self,
        mut stream: BufReader<OwnedReadHalf>,
        from: SocketAddr,
        answers: mpsc::Sender<Vec<u8>>,
    ) {
        let client = Client { transport: Transport::Tcp, address: from.ip(), port: from.port() };
        let mut message = Vec::new();
        let mut turn: u32 = rand::random();
        while let Ok(Ok(())) = timeout(IDLE, read_message(&mut stream, &mut message)).await {
            if message.len() < HEADER {
                return;
            }
            turn = turn.wrapping_add(1);
            let came = Instant::now();
            let mut answer = Vec::new();
            let handler = self.handler.load_full();
            let (outcome, asked) = handler.answer(&message, client, turn, &mut answer);
            // Waits where the client takes answers too slowly, and so stops reading from it.
            let Ok(place) = answers.clone().reserve_owned().await else { return };
            match outcome {
                Outcome::Silence => {}
                Outcome::Answered(part) | Outcome::Refresh(part) => {
                    if matches!(outcome, Outcome::Refresh(_)) {
                        handler.refresh(&message, client);
                    }
                    self.listener.request(asked, message.len());
                    self.listener.response(&answer, part, came.elapsed());
                    place.send(answer);
                }
                Outcome::Transfer => {
                    self.listener.request(asked, message.len());
                    let mut place = Some(place);
                    for answer in handler.transfer(&message, client) {
                        let place = match place.take() {
                            Some(place) => place,
                            None => match answers.clone().reserve_owned().await {
                                Ok(place) => place,
                                Err(_) => return,
                            },
                        };
                        self.listener.response(&answer, Part::Kubernetes, came.elapsed());
                        place.send(answer);
                    }
                }
                Outcome::Later => {
                    self.listener.request(asked, message.len());
                    let listener = self.listener.clone();
                    let (message, busy) = (message.clone(), self.busy.clone());
                    tokio::spawn(async move {
                        if let Some((answer, part)) = handler.later(&message, client, turn).await {
                            listener.response(&answer, part, came.elapsed());
                            place.send(answer);
                        }
                        drop(busy);
                    });
                }
            }
        }
    }
}

async fn read_message(stream: &mut BufReader<OwnedReadHalf>, message: &mut Vec<u8>) -> std::io::Result<()> {
    let length = stream.read_u16().await?;
    message.resize(usize::from(length), 0);
    stream.read_exact(message).await?;
    Ok(())
}

async fn write_answers(mut stream: BufWriter<OwnedWriteHalf>, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut answer) = queue.recv().await {
        let written = timeout(WRITE, async {
            loop {
                stream.write_u16(answer.len() as u16).await?;
                stream.write_all(&answer).await?;
                // What is ready already goes along.
                match queue.try_recv() {
                    Ok(next) => answer = next,
                    Err(_) => return stream.flush().await,
                }
            }
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
}

/// One of the connections that a client may have.
struct Place {
    clients: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Place {
    fn take(clients: &Arc<Mutex<HashMap<IpAddr, usize>>>, client: IpAddr) -> Option<Self> {
        let mut held = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(client).or_default();
        if *count >= CONNECTIONS_OF_CLIENT {
            return None;
        }
        *count += 1;
        Some(Self { clients: clients.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}
