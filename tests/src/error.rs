//! What can go wrong while a bed is made or used.

use std::path::PathBuf;
use std::time::Duration;

/// A failure, with the thing and the call.
#[derive(thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// As a person would type it.
        command: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}): {output}")]
    Failed {
        /// As a person would type it.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// A file, folder or mount.
    #[error("cannot {verb} {path}: {source}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Something did not come about in time.
    #[error("waited {waited:?} in vain for {what}{}", .last.as_ref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen instead, if anything.
        last: Option<String>,
    },
    /// A program answered with something else than agreed.
    #[error("{what}: {reason}")]
    Answer {
        /// Whose answer.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something the machine lacks.
    #[error("this machine has no {0}")]
    Missing(String),
}

/// As [`std::fmt::Display`]: it is how a test that returns an error shows it.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on file operations.
    pub fn file<E: Into<std::io::Error>>(
        verb: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path, source: source.into() }
    }

    /// For answers that are not what was agreed.
    pub fn answer(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Answer { what: what.into(), reason: reason.to_string() }
    }
}
