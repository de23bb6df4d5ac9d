//! Signatures of what is answered: CoreDNS's `dnssec`.

use std::path::PathBuf;

/// Answers of domains are signed as they are given, for those who ask for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnssec {
    /// The domains.
    pub zones: Vec<String>,
    /// Files of keys, as `dnssec-keygen` and `ldns-keygen` write them: with or without `.key` or `.private`. Where some are to sign
    /// keys (SEP) and some are not, the former sign keys alone; otherwise all sign everything.
    pub keys: Vec<PathBuf>,
    /// The most sets of records whose signatures are kept.
    pub cache_capacity: usize,
}

impl Default for Dnssec {
    fn default() -> Self {
        Self { zones: Vec::new(), keys: Vec::new(), cache_capacity: 10_000 }
    }
}
