//! Why a request did not give what was asked for.

use crate::transport::TransportError;
use coracle_meta::Status;

/// Why a request did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered and refused. The message is the server's.
    #[error("{0}")]
    Refused(Box<Status>),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer broke off.
    #[error("read the answer to {request}")]
    Body {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what was asked for.
    #[error("decode the answer to {request}")]
    Decode {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A name or path that cannot be part of a URL.
    #[error("build the request {request}")]
    Request {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}

impl ClientError {
    /// The server's refusal, if it is one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// The server says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// The server says that the name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    /// The server says that a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    /// The server says that the revision asked for is compacted: list again.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410)
    }

    /// The error and all its sources in one line.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }

    /// As a `Status`: the server's own, or 503 with what went wrong on the way.
    pub fn into_status(self) -> Status {
        match self {
            Self::Refused(status) => *status,
            other => Status::failure(503, "ServiceUnavailable", other.describe()),
        }
    }
}
