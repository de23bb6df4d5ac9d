//! A token in a file, which others change: read again every minute.
//!
//! kube's own reading of such files takes what is there for a token, whatever it is. An empty file then asks as nobody
//! (`system:anonymous`), and the server's refusal says nothing of the file; one that ends with a new line is no header.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, Request, header::AUTHORIZATION};
use tracing::{info, warn};

/// How long a token is taken for what the file says.
const FRESH: Duration = Duration::from_secs(60);

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("token file {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// There is nothing in it.
    #[error("token file {0} is empty")]
    Empty(PathBuf),
    /// There is something else in it.
    #[error("token file {0} holds what cannot be a token: spaces, line breaks or control characters within")]
    Malformed(PathBuf),
}

/// A file with a token.
#[derive(Clone, Debug)]
pub(super) struct TokenFile {
    path: Arc<Path>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    header: HeaderValue,
    read: Instant,
    failing: bool,
}

impl TokenFile {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path) -> Result<Self, TokenError> {
        let held = Held { header: read(path)?, read: Instant::now(), failing: false };
        Ok(Self { path: path.into(), held: Arc::new(Mutex::new(held)) })
    }

    /// Says who asks.
    pub(super) fn sign<B>(&self, request: &mut Request<B>) {
        request.headers_mut().insert(AUTHORIZATION, self.header(Instant::now()));
    }

    /// The token as of now. While the file gives none, the last one stays: it may be good for longer than the file, and
    /// a server that refuses it makes for another client, which says what is wrong with the file.
    fn header(&self, now: Instant) -> HeaderValue {
        // Plain values, each valid by itself, whoever panicked.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(held.read) >= FRESH {
            held.read = now;
            match read(&self.path) {
                Ok(header) => {
                    held.header = header;
                    if std::mem::take(&mut held.failing) {
                        info!(file = %self.path.display(), "the token file gives a token again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut held.failing, true) {
                        warn!("{error}; the token that was in it before is used");
                    }
                }
            }
        }
        held.header.clone()
    }
}

/// Spaces around a token are none of it.
fn read(path: &Path) -> Result<HeaderValue, TokenError> {
    let text = std::fs::read_to_string(path).map_err(|error| TokenError::Read(path.to_owned(), error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(TokenError::Empty(path.to_owned()));
    }
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let is_one_word = !token.contains(|c: char| c.is_ascii_whitespace());
    let mut header = header.ok().filter(|_| is_one_word).ok_or(TokenError::Malformed(path.to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_token_is_named_and_does_not_undo_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let said = |path: &Path| TokenFile::open(path).unwrap_err().to_string();
        let name = path.display().to_string();
        assert_eq!(said(&path), format!("token file {name}: No such file or directory (os error 2)"));
        for (text, reason) in
            [("", "is empty"), (" \n", "is empty"), ("one two\n", "holds what cannot be a token")]
        {
            std::fs::write(&path, text).unwrap();
            assert!(said(&path).starts_with(&format!("token file {name} {reason}")), "{}", said(&path));
        }

        std::fs::write(&path, "first\n").unwrap();
        let file = TokenFile::open(&path).unwrap();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(file.header(later(0)), "Bearer first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(file.header(later(30)), "Bearer first");
        assert_eq!(file.header(later(61)), "Bearer second");
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.header(later(130)), "Bearer second");
        std::fs::write(&path, "third").unwrap();
        assert_eq!(file.header(later(200)), "Bearer third");
    }
}
