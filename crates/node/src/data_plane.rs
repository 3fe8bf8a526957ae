//! The seam between a pod's life and the data plane: no container starts before the NetworkPolicies for the pod are in
//! force, and SIGTERM is held until nothing is sent to the pod any more.

use futures::future::{BoxFuture, join_all, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// The kernel did not take what it was told; why is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the packet rules are not in force")]
pub struct DataPlaneError;

/// Knows where connections go.
pub trait DataPlane: Send + Sync + 'static {
    /// Resolves when no new connection goes to the address through a Service, at the latest at the deadline.
    fn drained(&self, ip: IpAddr, deadline: Instant) -> BoxFuture<'_, ()>;

    /// Resolves when the NetworkPolicies that select a pod are in force for the addresses that it was attached to the
    /// network with: before its status tells them. At once where policies have no say.
    fn secured(&self, _pod: &Pod, _ips: &[IpAddr]) -> BoxFuture<'_, Result<(), DataPlaneError>> {
        Box::pin(std::future::ready(Ok(())))
    }
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

    fn secured(&self, pod: &Pod, ips: &[IpAddr]) -> BoxFuture<'_, Result<(), DataPlaneError>> {
        let all = try_join_all(self.0.iter().map(|way| way.secured(pod, ips)));
        Box::pin(async { all.await.map(drop) })
    }
}
