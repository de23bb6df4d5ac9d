//! Domains whose names are in master files: CoreDNS's `file`.

use std::{path::PathBuf, time::Duration};

/// A master file (RFC 1035, 5), and the domains that it tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// The file.
    pub file: PathBuf,
    /// The domains: each is what the file says below it, for names in it that are not complete.
    pub zones: Vec<String>,
    /// How often the file is looked at, to be read again when it has changed; none: it is not.
    pub reload: Option<Duration>,
    /// Names that do not exist are asked for elsewhere: none of them, all (empty), or those of the domains.
    pub fallthrough: Option<Vec<String>>,
}

impl Default for ZoneFile {
    fn default() -> Self {
        let reload = Some(Duration::from_secs(5));
        Self { file: PathBuf::new(), zones: Vec::new(), reload, fallthrough: None }
    }
}
