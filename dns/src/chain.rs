//! Upstreams that are asked after others, where the answer of those is not good enough: several `forward` of one domain.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    forward::{ForwardError, Forwarder},
    message::{Answer, Question},
    name::WireName,
};

/// How long all of them are given: a client asks again after five seconds, and by then must have heard of us.
pub(crate) const TOTAL: Duration = Duration::from_secs(4);

/// Forwarders, at least one. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    first: Arc<Forwarder>,
    rest: Arc<[Arc<Forwarder>]>,
}

impl Chain {
    /// The first is asked; each of the rest where the one before passes its answer on.
    pub(crate) fn new(first: Forwarder, rest: Vec<Forwarder>) -> Self {
        Self { first: Arc::new(first), rest: rest.into_iter().map(Arc::new).collect() }
    }

    /// Those who are asked.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Forwarder>> {
        [&self.first].into_iter().chain(self.rest.iter())
    }

    /// Whether anybody is ever asked.
    pub(crate) fn is_enabled(&self) -> bool {
        self.first.is_enabled()
    }

    /// Whether a question more would be one too many.
    pub(crate) fn is_full(&self) -> bool {
        self.first.is_full()
    }

    /// The host's search domains, where a file says them.
    pub(crate) fn search(&self) -> Arc<Vec<WireName>> {
        self.first.search.load_full()
    }

    /// Asks one after the other. What the last that was asked comes to counts: a name is not denied as long as it may be
    /// known to one that could not be asked.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer, ForwardError> {
        let end = Instant::now() + TOTAL;
        let mut answer = self.first.ask(question, end).await?;
        let mut asked = &self.first;
        for forwarder in self.rest.iter() {
            if !asked.passes_on(&answer) {
                break;
            }
            // In a box: it is seldom wanted.
            answer = Box::pin(forwarder.ask(question, end)).await?;
            asked = forwarder;
        }
        Ok(answer)
    }

    /// Keeps up with the files that name upstreams, and sees whether questions about names of `loops_of` come back, for ever.
    pub(crate) async fn watch(&self, loops_of: Option<&WireName>) {
        let mut watches = JoinSet::new();
        for forwarder in self.all() {
            let (forwarder, loops_of) = (forwarder.clone(), loops_of.cloned());
            watches.spawn(async move { forwarder.watch(loops_of.as_ref()).await });
        }
        while watches.join_next().await.is_some() {}
    }
}
