//! A rollout without overlap: all old pods go before the first new one comes.
//! Upstream: `pkg/controller/deployment/recreate.go`.

use super::scale::Size;
use super::sets::Sets;
use k8s_openapi::api::apps::v1::Deployment;

/// Moves the rollout as far as the old pods allow.
pub(super) fn recreate(sets: &mut Sets<'_>, size: &Size, deployment: &Deployment, old_pods_run: bool) {
    let some_left = sets.old.iter().any(|set| set.replicas() > 0);
    for old in &mut sets.old {
        old.scale(0, size);
    }
    if some_left || old_pods_run {
        return;
    }
    sets.make_new(deployment, size);
    if let Some(new) = &mut sets.new {
        new.scale(size.replicas, size);
    }
}
