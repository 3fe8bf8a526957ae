//! The seam between the node's API and whoever knows the story of a Service.

use serde_json::Value;

/// Tells what happened to a Service: what the node's API answers to `/debug/services/NAMESPACE/NAME`.
pub trait ServiceTracer: Send + Sync + 'static {
    /// The last change of a Service as JSON; it may take milliseconds. None if there is no such Service.
    fn trace(&self, namespace: &str, name: &str) -> Option<Value>;
}
