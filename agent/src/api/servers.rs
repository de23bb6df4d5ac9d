//! The API servers, of which one is used at a time, by everybody: a client for it, and another one when it fails.

use std::sync::Arc;

use kube::Client;
use tokio::sync::Mutex;

use super::access::{Access, AccessError};

/// The servers.
pub(super) struct Servers {
    access: Access,
    state: Mutex<State>,
}

struct State {
    /// Which address is used, counted on over the end of the list.
    turn: usize,
    /// Which client is used; each has its own number.
    generation: u64,
    client: Option<(Client, Arc<str>)>,
    /// How many addresses there are.
    count: usize,
}

/// The server that is used at present.
#[derive(Clone)]
pub(super) struct Server {
    /// A client for it.
    pub(super) client: Client,
    /// Its address.
    pub(super) address: Arc<str>,
    generation: u64,
}

impl Servers {
    /// No connection is made yet.
    pub(super) fn new(access: Access) -> Self {
        let state = State { turn: 0, generation: 0, client: None, count: 1 };
        Self { access, state: Mutex::new(state) }
    }

    /// The server to use now.
    pub(super) async fn get(&self) -> Result<Server, AccessError> {
        let mut state = self.state.lock().await;
        if let Some((client, address)) = state.client.clone() {
            return Ok(Server { client, address, generation: state.generation });
        }
        let made = self.make(&mut state).await;
        if made.is_err() {
            state.turn = state.turn.wrapping_add(1);
        }
        let (client, address) = made?;
        state.client = Some((client.clone(), address.clone()));
        Ok(Server { client, address, generation: state.generation })
    }

    async fn make(&self, state: &mut State) -> Result<(Client, Arc<str>), AccessError> {
        let servers = self.access.servers()?;
        state.count = servers.len().max(1);
        let address = servers.get(state.turn % state.count).cloned().unwrap_or_default();
        let client = self.access.client(&address).await?;
        Ok((client, address.into()))
    }

    /// The server failed: the next one has its turn, with credentials read anew. Told by several about one and the
    /// same client, this does it once.
    pub(super) async fn failed(&self, server: &Server) {
        let mut state = self.state.lock().await;
        if state.generation == server.generation {
            state.generation += 1;
            state.turn = state.turn.wrapping_add(1);
            state.client = None;
        }
    }

    /// How many addresses there are to try.
    pub(super) async fn count(&self) -> usize {
        self.state.lock().await.count
    }
}
