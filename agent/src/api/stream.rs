//! The body of an answer, read with limited patience.

use std::{io, pin::Pin, time::Duration};

use futures_util::{AsyncBufRead, AsyncBufReadExt};
use tokio::time::timeout;

/// No object is as large as this: the API server takes none above three megabytes.
const LONGEST_LINE: usize = 32 << 20;
/// Nor is a page of a list.
const LONGEST_BODY: usize = 1 << 30;

/// Why no more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Nothing came for too long, not even a bookmark: the server is gone, or half dead.
    #[error("the server has said nothing for {0:?}")]
    Silent(Duration),
    /// The connection.
    #[error("the connection is lost: {0}")]
    Lost(#[from] io::Error),
    /// More than can be right.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// A body.
pub(super) struct Body {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    line: Vec<u8>,
}

impl Body {
    /// A body of which nothing has been read.
    pub(super) fn new(reader: impl AsyncBufRead + Send + 'static) -> Self {
        Self { reader: Box::pin(reader), line: Vec::new() }
    }

    /// The next line that is not empty, without its end; `None` after the last. A line without an end has been cut
    /// off, and is left out: what it said comes again.
    pub(super) async fn line(&mut self, patience: Duration) -> Result<Option<&[u8]>, ReadError> {
        self.line.clear();
        self.line.shrink_to(1 << 16);
        loop {
            let chunk = timeout(patience, self.reader.fill_buf())
                .await
                .map_err(|_| ReadError::Silent(patience))??;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            self.line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume_unpin(used);
            if self.line.len() > LONGEST_LINE {
                return Err(ReadError::TooLong(LONGEST_LINE));
            }
            if end.is_some() {
                if !self.line.trim_ascii().is_empty() {
                    return Ok(Some(&self.line));
                }
                self.line.clear();
            }
        }
    }

    /// All that is left.
    pub(super) async fn rest(mut self, patience: Duration) -> Result<Vec<u8>, ReadError> {
        let mut all = Vec::new();
        loop {
            let chunk = timeout(patience, self.reader.fill_buf())
                .await
                .map_err(|_| ReadError::Silent(patience))??;
            if chunk.is_empty() {
                return Ok(all);
            }
            let used = chunk.len();
            all.extend_from_slice(chunk);
            self.reader.consume_unpin(used);
            if all.len() > LONGEST_BODY {
                return Err(ReadError::TooLong(LONGEST_BODY));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{TryStreamExt, stream};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn body(chunks: &[&'static str], end: Option<io::ErrorKind>) -> Body {
        let chunks: Vec<io::Result<&'static str>> =
            chunks.iter().map(|chunk| Ok(*chunk)).chain(end.map(|kind| Err(kind.into()))).collect();
        Body::new(stream::iter(chunks).into_async_read())
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_were_sent() {
        let mut body = body(&["on", "e\ntwo\n", "\n\r\n", "three", "\nfo"], None);
        for expected in ["one", "two", "three"] {
            assert_eq!(body.line(PATIENCE).await.unwrap(), Some(expected.as_bytes()));
        }
        assert_eq!(body.line(PATIENCE).await.unwrap(), None, "a line that is cut off is none");
    }

    #[tokio::test]
    async fn a_lost_connection_and_a_silent_one_are_errors() {
        let mut lost = body(&["one\ntw"], Some(io::ErrorKind::ConnectionReset));
        assert!(lost.line(PATIENCE).await.unwrap().is_some());
        assert!(matches!(lost.line(PATIENCE).await, Err(ReadError::Lost(_))));
        let silent = stream::pending::<io::Result<&'static str>>();
        let mut silent = Body::new(silent.into_async_read());
        assert!(matches!(silent.line(PATIENCE).await, Err(ReadError::Silent(_))));
        assert_eq!(body(&["a", "b"], None).rest(PATIENCE).await.unwrap(), b"ab");
    }
}
