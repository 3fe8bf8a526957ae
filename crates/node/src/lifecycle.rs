//! postStart and preStop hooks. Upstream: `pkg/kubelet/lifecycle/handlers.go`.

use crate::kubelet::Kubelet;
use crate::probe;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use std::net::IpAddr;
use std::time::Duration;

/// Runs a hook in a running instance; it is given up after `limit`. The error is for the container's state.
pub async fn run(
    kubelet: &Kubelet,
    pod_name: &str,
    container: &Container,
    id: &str,
    handler: &LifecycleHandler,
    pod_ip: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    let failed = |what: String, error: String| {
        format!(
            "{what} for Container {:?} in Pod {pod_name:?} failed - error: {error}",
            container.name
        )
    };
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let what = format!("Exec lifecycle hook ({})", command.join(" "));
        return probe::exec(kubelet, id, command, limit)
            .await
            .map_err(|error| failed(what, error));
    }
    if let Some(action) = &handler.http_get {
        let what = format!(
            "HTTP lifecycle hook ({})",
            action.path.as_deref().unwrap_or_default()
        );
        let ip = pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let request = probe::http::Request::of(action, container, &ip, "kube-lifecycle/1.36");
        let request = request.map_err(|error| failed(what.clone(), error))?;
        // Any answer will do.
        return match tokio::time::timeout(limit, probe::http::get(&request)).await {
            Ok(result) => result.map(|_| ()).map_err(|error| failed(what, error)),
            Err(_) => Err(failed(what, "timed out".to_owned())),
        };
    }
    if let Some(action) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    Err(failed("Lifecycle hook".to_owned(), "invalid handler".to_owned()))
}
