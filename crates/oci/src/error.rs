//! What can go wrong, in words that `kubectl describe` can show.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on images or containers failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image reference cannot be parsed.
    #[error("invalid image reference {reference:?}: {reason}")]
    InvalidReference {
        /// As given.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such image, locally or in the registry.
    #[error("image {0} not found")]
    ImageNotFound(String),
    /// The registry refused the credentials, or none were given.
    #[error("pull access denied for {reference}: {reason}")]
    Unauthorized {
        /// The image.
        reference: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry could not be reached or answered with an error.
    #[error("pulling image {reference}: {reason}")]
    Pull {
        /// The image.
        reference: String,
        /// What happened.
        reason: String,
    },
    /// An image or archive is broken or hostile.
    #[error("invalid image: {0}")]
    InvalidImage(String),
    /// No such pod.
    #[error("pod {0} not found")]
    PodNotFound(String),
    /// No such container.
    #[error("container {0} not found")]
    ContainerNotFound(String),
    /// A name is taken.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// The request makes no sense for the thing's present state.
    #[error("{0}")]
    InvalidState(String),
    /// A value of a spec is wrong.
    #[error("{0}")]
    InvalidSpec(String),
    /// A process could not be started; the message is what kubelet users know from runc.
    #[error("{0}")]
    Start(String),
    /// The shim of the pod is gone.
    #[error("the shim of pod {0} is gone")]
    ShimGone(String),
    /// The operating system said no.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// An error of the operating system: for `map_err`.
    pub(crate) fn io<E: Into<std::io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source: source.into(),
        }
    }
}
