//! What goes wrong with a list or a watch, and what is to be done about it.

use std::time::Duration;

use kube::core::Status;

use super::{access::AccessError, json::Malformed, stream::ReadError};

/// A list or a watch has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    /// There is no client.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The request did not get through.
    #[error("the request failed: {0}")]
    Request(#[source] Box<kube::Error>),
    /// The server answers with an error.
    #[error("the server answers {}: {} ({})", .0.code, .0.message, .0.reason)]
    Status(Box<Status>),
    /// No answer.
    #[error("the server has not answered for {0:?}")]
    NoAnswer(Duration),
    /// The answer cannot be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The answer cannot be understood.
    #[error("the answer is not what the API says: {0}")]
    Malformed(#[from] Malformed),
    /// The answer ends before the list is complete.
    #[error("the server ended a list before it was complete")]
    Incomplete,
    /// The watch ends as soon as it has begun.
    #[error("the server ended a watch as soon as it had begun")]
    AtOnce,
    /// The server knows less than it did: it has been set back.
    #[error("the server is at version {now}, and was at {before}: it has another history")]
    AnotherHistory {
        /// What is known here.
        before: String,
        /// Where the server is.
        now: String,
    },
}

impl From<kube::Error> for FeedError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status(status),
            other => Self::Request(Box::new(other)),
        }
    }
}

impl FeedError {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.code),
            _ => None,
        }
    }

    /// The reason, as a metric's label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Access(_) => "access",
            _ if self.is_expired() => "expired",
            Self::Status(status) => match status.code {
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not_found",
                429 => "throttled",
                500.. => "server",
                _ => "refused",
            },
            Self::NoAnswer(_) | Self::Read(ReadError::Silent(_)) => "silent",
            Self::Request(_) | Self::Read(ReadError::Lost(_)) | Self::Incomplete | Self::AtOnce => {
                "connection"
            }
            Self::Read(ReadError::TooLong(_)) | Self::Malformed(_) => "malformed",
            Self::AnotherHistory { .. } => "history",
        }
    }

    /// The server does not know any more what happened since: everything must be listed.
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Status(status) if status.code == 410 || matches!(&*status.reason, "Expired" | "Gone"))
    }

    /// Nothing that was known of versions holds any more.
    pub(super) fn needs_list(&self) -> bool {
        self.is_expired() || matches!(self, Self::AnotherHistory { .. })
    }

    /// Another server, or at least another connection with credentials read anew, may do better.
    pub(super) fn is_servers_fault(&self) -> bool {
        match self {
            Self::Request(_) | Self::NoAnswer(_) | Self::Read(_) | Self::Malformed(_) | Self::Incomplete => {
                true
            }
            Self::AtOnce => true,
            Self::Status(status) => status.code == 401 || status.code >= 500 && !self.is_expired(),
            Self::Access(_) | Self::AnotherHistory { .. } => false,
        }
    }

    /// The server has no such kind.
    pub(super) fn is_absence(&self) -> bool {
        self.code() == Some(404)
    }

    /// The server does not let us see it.
    pub(super) fn is_refusal(&self) -> bool {
        self.code() == Some(403)
    }

    /// Nothing came for as long as a watch may be silent.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Read(ReadError::Silent(_)))
    }

    /// The server does not know how to list as a stream. Servers before 1.27 do not know the parameter and find fault
    /// with another one that comes with it; later ones may have it switched off; and those whose etcd is older than
    /// 3.4.25 agree, and then say in the stream that it is an internal error.
    pub(super) fn refuses_streaming(&self) -> bool {
        matches!(self.code(), Some(400 | 405 | 406 | 415 | 422 | 500)) && !self.is_expired()
    }

    /// How long the server asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Self::Status(status) = self else { return None };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.min(120).into()))
    }
}
