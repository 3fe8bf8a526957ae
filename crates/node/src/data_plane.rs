//! The seam between the end of a pod and the data plane: SIGTERM is held until nothing is sent to the pod any more.

use futures::future::BoxFuture;
use std::net::IpAddr;
use tokio::time::Instant;

/// Knows where connections go.
pub trait DataPlane: Send + Sync + 'static {
    /// Resolves when no new connection goes to the address through a Service, at the latest at the deadline.
    fn drained(&self, ip: IpAddr, deadline: Instant) -> BoxFuture<'_, ()>;
}
