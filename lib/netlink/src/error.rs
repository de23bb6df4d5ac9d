//! What can go wrong, always with the verb and the object it was about.

use std::{fmt, io, path::PathBuf, time::Duration};

/// The result of this crate's verbs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request, or the socket failed.
    #[error("cannot {verb} {object}: {source}{}", Words(message))]
    Request {
        /// What was asked for, e.g. `delete link`.
        verb: &'static str,
        /// What it was about.
        object: String,
        /// The kernel's own explanation, where it gave one.
        message: Option<String>,
        /// The errno.
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("cannot {verb} {object}: the kernel's answer is not understood: {reason}")]
    Decode {
        /// What was asked for.
        verb: &'static str,
        /// What it was about.
        object: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// A dump was interrupted by changes each time it was tried.
    #[error("cannot {verb} {object}: it changed during each of {attempts} attempts")]
    Interrupted {
        /// What was asked for.
        verb: &'static str,
        /// What it was about.
        object: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// Waiting took too long.
    #[error("{object} did not get {wanted} within {limit:?}")]
    TimedOut {
        /// What was waited for.
        object: String,
        /// The state it should have reached.
        wanted: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A call on a network namespace failed.
    #[error("cannot {verb} the network namespace {path}: {source}", path = path.display())]
    Namespace {
        /// What was tried, e.g. `enter`.
        verb: &'static str,
        /// Where the namespace is, or what it is called.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// A file below `/proc/sys` could not be read or written.
    #[error("cannot {verb} the sysctl {name}: {source}")]
    Sysctl {
        /// `read` or `set`.
        verb: &'static str,
        /// Its path below `/proc/sys`.
        name: String,
        /// The errno.
        source: io::Error,
    },
}

/// The kernel's words in brackets, or nothing.
struct Words<'a>(&'a Option<String>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(words) => write!(f, " ({words})"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The errno behind this error, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Request { source, .. } | Self::Namespace { source, .. } | Self::Sysctl { source, .. } => {
                source.raw_os_error()
            }
            Self::Decode { .. } | Self::Interrupted { .. } | Self::TimedOut { .. } => None,
        }
    }

    /// Whether the object does not exist: `ENODEV`, `ENOENT`, `ESRCH` (routes) or `EADDRNOTAVAIL` (addresses).
    pub fn is_not_found(&self) -> bool {
        use nix::errno::Errno;
        self.errno().is_some_and(|errno| {
            matches!(
                Errno::from_raw(errno),
                Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL
            )
        })
    }

    /// Whether the kernel knows no such thing: `EOPNOTSUPP`.
    pub fn is_unsupported(&self) -> bool {
        self.errno() == Some(nix::errno::Errno::EOPNOTSUPP as i32)
    }

    /// Whether the object exists already: `EEXIST`.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(nix::errno::Errno::EEXIST as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_verb_object_cause_and_the_kernels_words() {
        let error = Error::Request {
            verb: "delete link",
            object: "eth7".to_owned(),
            message: Some("device is in use".to_owned()),
            source: io::Error::from_raw_os_error(16),
        };
        assert_eq!(
            error.to_string(),
            "cannot delete link eth7: Device or resource busy (os error 16) (device is in use)"
        );
        assert!(!error.is_not_found() && !error.is_exists());
    }
}
