//! The seam between the end of a pod and the data plane: SIGTERM is held until nothing is sent to the pod any more.

use futures::future::{BoxFuture, join_all};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// Knows where connections go.
pub trait DataPlane: Send + Sync + 'static {
    /// Resolves when no new connection goes to the address through a Service, at the latest at the deadline.
    fn drained(&self, ip: IpAddr, deadline: Instant) -> BoxFuture<'_, ()>;
}

/// Several ways on which connections come: packet rules, and names that stand for pods.
pub struct Ways(pub Vec<Arc<dyn DataPlane>>);

impl DataPlane for Ways {
    fn drained(&self, ip: IpAddr, deadline: Instant) -> BoxFuture<'_, ()> {
        let all = join_all(self.0.iter().map(|way| way.drained(ip, deadline)));
        Box::pin(async {
            all.await;
        })
    }
}
