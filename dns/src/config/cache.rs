//! What of upstreams' answers is kept: CoreDNS's `cache`.

use std::time::Duration;

/// What upstreams answered is kept for a while: the `cache` of CoreDNS. Denials are names and types that do
/// not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Whether anything is kept.
    pub enabled: bool,
    /// Answers kept.
    pub success_capacity: usize,
    /// Denials kept.
    pub denial_capacity: usize,
    /// The most bytes all of them take, half for answers and half for denials.
    pub max_bytes: usize,
    /// The most seconds an answer is kept.
    pub success_ttl: u32,
    /// The most seconds a denial is kept.
    pub denial_ttl: u32,
    /// The least seconds an answer is kept.
    pub min_success_ttl: u32,
    /// The least seconds a denial is kept.
    pub min_denial_ttl: u32,
    /// Clients are told the whole time to live of what is kept, not what is left of it.
    pub keep_ttl: bool,
    /// The seconds an upstream's SERVFAIL is kept.
    pub servfail_ttl: u32,
    /// Whether answers are told past their time.
    pub serve_stale: Option<ServeStale>,
    /// Whether what is asked often is asked for again before its time is up.
    pub prefetch: Option<Prefetch>,
    /// Only names of these domains are kept; empty: all.
    pub zones: Vec<String>,
    /// Domains of whose names answers are not kept.
    pub no_success: Vec<String>,
    /// Domains of whose names denials are not kept.
    pub no_denial: Vec<String>,
}

/// Answers past their time are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeStale {
    /// How long past their time.
    pub duration: Duration,
    /// Only where the upstreams do not answer; without, at once, and the upstreams are asked meanwhile.
    pub verify: bool,
    /// How long the upstreams are waited for then; none: until they are given up.
    pub patience: Option<Duration>,
    /// The time to live that clients are told, in seconds.
    pub ttl: u32,
    /// How long after the upstreams were asked in vain they are not asked again, and the answer is told at once; zero: they
    /// are asked each time.
    pub recheck: Duration,
    /// An answer goes before a denial or failure that came after it, as long as it may be told.
    pub prefer_positive: bool,
}

impl Default for ServeStale {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(3600),
            verify: false,
            patience: None,
            ttl: 0,
            recheck: Duration::ZERO,
            prefer_positive: false,
        }
    }
}

/// When an answer is asked for again while it is still good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// It was asked for so often.
    pub hits: u32,
    /// With no longer pauses than this.
    pub within: Duration,
    /// And so much of its time is left, or less.
    pub percent: u8,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            success_capacity: 9984,
            denial_capacity: 9984,
            max_bytes: 16 << 20,
            success_ttl: 30,
            denial_ttl: 30,
            min_success_ttl: 5,
            min_denial_ttl: 5,
            keep_ttl: false,
            servfail_ttl: 5,
            serve_stale: None,
            prefetch: None,
            zones: Vec::new(),
            no_success: Vec::new(),
            no_denial: Vec::new(),
        }
    }
}
