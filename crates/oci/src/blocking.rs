//! Work that may block, out of the way of the asynchronous tasks.

use crate::{Error, Result};

/// Runs something that works on files on a thread for such things. When the future is dropped the work goes on.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::InvalidState(format!("interrupted: {error}"))),
    }
}
