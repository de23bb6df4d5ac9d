//! Why a verb failed, in words that say what to do about it.

use std::path::PathBuf;

/// Any failure of a verb.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program could not be started at all.
    #[error("cannot run `{program}`: {source}")]
    Start { program: String, source: std::io::Error },
    /// A program ran and reported failure.
    #[error("`{command}` failed ({status})")]
    Failed { command: String, status: String },
    /// A file or folder could not be read or written.
    #[error("cannot {verb} {path}: {source}")]
    File { verb: &'static str, path: PathBuf, source: std::io::Error },
    /// Something is missing that this program cannot install.
    #[error("missing: {what}\n  to get it: {way}")]
    Missing { what: String, way: String },
    /// The verb needs root.
    #[error("`cargo xtask {verb}` needs root: {reason}")]
    NotRoot { verb: &'static str, reason: &'static str },
    /// A program's output was not what it should be.
    #[error("cannot make sense of the output of `{command}`: {reason}")]
    Output { command: String, reason: String },
    /// A virtual machine did not come to the end of its tests.
    #[error("the virtual machine with Linux {kernel}: {reason}\n  what its kernel said: {log}")]
    Machine { kernel: String, reason: String, log: PathBuf },
    /// Rules of the repository are broken; they have been printed.
    #[error("{count} {what}")]
    Findings { count: usize, what: &'static str },
}

/// The result of a step.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path, source }
    }
}
