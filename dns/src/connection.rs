//! Connections to an upstream: shared by questions at one time, and kept for the next.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use hickory_proto::op::DnsRequest;
use hickory_resolver::net::NetError;
use prometheus::IntCounter;
use tokio::{sync::OnceCell, time::Instant};

use crate::{
    ForwardOptions,
    exchange::{Connected, Connector, MAX_SHARED},
};

/// The least time between two looks at a connection that is in use.
const LOOK: Duration = Duration::from_secs(1);

/// The connections to one upstream that take questions.
#[derive(Debug)]
pub(crate) struct Pool {
    held: Mutex<Vec<Arc<Connection>>>,
    /// How many there are at the most; with none, each question has one for itself, which closes after the answer.
    max: usize,
    /// How long one is kept without a question.
    expire: Duration,
    /// How old one gets before another one takes its place.
    max_age: Option<Duration>,
    /// So many questions share a connection before another one is opened, as long as there may be another one.
    shared: usize,
    /// Questions that found a connection.
    found: IntCounter,
    /// Questions that found none.
    opened: IntCounter,
}

/// A connection, from the moment at which it is wanted.
#[derive(Debug)]
struct Connection {
    /// What came of connecting, once something has.
    opened: OnceCell<Result<Connected, NetError>>,
    born: Instant,
    state: Mutex<State>,
}

/// What became of a connection so far.
#[derive(Debug)]
struct State {
    /// Questions that wait for their answers.
    under_way: usize,
    /// Answers that have come.
    heard: usize,
    /// It takes no further question.
    is_retired: bool,
    /// When it was last wanted, or left.
    since: Instant,
}

impl Connection {
    fn new() -> Arc<Self> {
        let born = Instant::now();
        let state = State { under_way: 0, heard: 0, is_retired: false, since: born };
        Arc::new(Self { opened: OnceCell::new(), born, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes_questions(&self, max_age: Option<Duration>) -> bool {
        let is_open = match self.opened.get() {
            None => true,
            Some(Ok(connected)) => !connected.is_over(),
            Some(Err(_)) => false,
        };
        let is_old = max_age.is_some_and(|age| self.born.elapsed() >= age);
        is_open && !is_old && !self.state().is_retired
    }
}

impl Pool {
    /// Opens as many connections as the options say, each for `shared` questions if there may be another one. `counters`:
    /// of questions that find one, and of those that do not.
    pub(crate) fn new(options: &ForwardOptions, shared: usize, counters: [IntCounter; 2]) -> Arc<Self> {
        let ForwardOptions { max_idle: max, idle_for: expire, max_age, .. } = *options;
        let [found, opened] = counters;
        Arc::new(Self { held: Mutex::default(), max, expire, max_age, shared, found, opened })
    }

    /// Asks over a connection that is there, or else a new one.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        connector: &Connector,
        request: DnsRequest,
    ) -> Result<Vec<u8>, NetError> {
        let mut place = self.place();
        let opened = place.connection.opened.get_or_init(|| connector.connect());
        let connected = opened.await.clone()?;
        match connected.ask(request.clone()).await {
            Ok(answer) => {
                place.is_answered = true;
                Ok(answer)
            }
            Err(NetError::Timeout) => Err(NetError::Timeout),
            // What an HTTP server says in the place of an answer it would say again.
            Err(error @ NetError::Msg(_)) if connector.is_https() => {
                place.is_answered = true;
                Err(error)
            }
            // Servers close connections whenever they like: idle ones, or each after an answer, whatever else was asked on it.
            // That is no failure; one to a connection that nobody else uses is.
            Err(error) => {
                tracing::debug!(%error, "a connection to an upstream DNS server was closed");
                drop(place);
                connector.connect().await?.ask(request).await
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place on the connection that has the fewest questions, or on a new one.
    fn place(self: &Arc<Self>) -> Place {
        let mut held = self.held();
        held.retain(|connection| connection.takes_questions(self.max_age));
        let limit = if held.len() < self.max { self.shared } else { MAX_SHARED };
        let by_questions = held.iter().map(|connection| (connection.state().under_way, connection));
        let connection = match by_questions.min_by_key(|(under_way, _)| *under_way) {
            Some((under_way, connection)) if under_way < limit => {
                self.found.inc();
                connection.clone()
            }
            _ => {
                self.opened.inc();
                let connection = Connection::new();
                if held.len() < self.max {
                    held.push(connection.clone());
                    tokio::spawn(close_idle(Arc::downgrade(self), Arc::downgrade(&connection)));
                }
                connection
            }
        };
        Place::on(connection)
    }

    /// Gives a connection up that has had no question for long; else, how long it may stay without one.
    fn close_idle(&self, connection: &Arc<Connection>) -> Option<Duration> {
        let mut held = self.held();
        let state = connection.state();
        let left = match state.under_way {
            0 => self.expire.saturating_sub(state.since.elapsed()),
            _ => self.expire.max(LOOK),
        };
        if left.is_zero() {
            held.retain(|other| !Arc::ptr_eq(other, connection));
        }
        (!left.is_zero()).then_some(left)
    }
}

/// Keeps an eye on a connection for as long as it is there.
async fn close_idle(pool: Weak<Pool>, connection: Weak<Connection>) {
    while let Some((pool, connection)) = pool.upgrade().zip(connection.upgrade()) {
        let Some(left) = pool.close_idle(&connection) else { return };
        drop((pool, connection));
        tokio::time::sleep(left).await;
    }
}

/// A question's place on a connection.
struct Place {
    connection: Arc<Connection>,
    /// What had come on it before.
    heard: usize,
    is_answered: bool,
}

impl Place {
    fn on(connection: Arc<Connection>) -> Self {
        let heard = {
            let mut state = connection.state();
            state.under_way += 1;
            state.heard
        };
        Self { connection, heard, is_answered: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.under_way -= 1;
        state.since = Instant::now();
        if self.is_answered {
            state.heard += 1;
        } else if state.heard == self.heard {
            // Nothing came on it meanwhile: it may be dead. Those who wait on it may go on, nobody else shall.
            state.is_retired = true;
        }
    }
}
