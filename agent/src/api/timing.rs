//! How long things may take, and how long is waited.

use std::time::Duration;

/// All of it. Tests have less patience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The first list begins within this time: enough that the kinds, and nodes that start together, do not come in
    /// the same moment; little, as the node's DNS waits for it. A server with too many to serve says so, and is
    /// left alone for longer.
    pub start_jitter: Duration,
    /// How long the server may take to answer, and between two pieces of an answer.
    pub answer: Duration,
    /// How long a watch may be silent. Kubernetes sends a bookmark every minute.
    pub idle: Duration,
    /// How long a watch is asked to last, at least; at most twice as long.
    pub watch: Duration,
    /// A watch that the server ends sooner is one that it does not give.
    pub shortest_watch: Duration,
    /// A watch that has lasted so long is a success.
    pub steady: Duration,
    /// The first wait after a failure.
    pub first_wait: Duration,
    /// The longest wait after failures.
    pub longest_wait: Duration,
    /// After so long without a word everything is listed anew: servers keep no more than this of what has been.
    pub memory: Duration,
    /// How often it is told what the first update waits for.
    pub told_awaited: Duration,
    /// How long a server may refuse to show objects that can be done without before they are.
    pub refusal: Duration,
    /// How long until the API is asked again for a kind that it does not have; at least half of this.
    pub absence: Duration,
}

impl Timing {
    /// For a server that is out there.
    pub fn usual(idle: Duration) -> Self {
        Self {
            start_jitter: Duration::from_millis(250),
            answer: Duration::from_secs(30),
            idle,
            watch: Duration::from_secs(300),
            shortest_watch: Duration::from_secs(1),
            steady: Duration::from_secs(5),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            memory: Duration::from_secs(300),
            told_awaited: Duration::from_secs(15),
            refusal: Duration::from_secs(5),
            absence: Duration::from_secs(600),
        }
    }
}
