//! How pods of an old version are replaced: `maxUnavailable` at a time, or with `maxSurge` the new one first.
//! Upstream: `pkg/controller/daemon/update.go`.

use super::nodes::placement;
use super::{Changes, Observed};
use crate::int_or_percent::scaled;
use crate::pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// How far an update may go at a time.
pub(super) struct Bounds {
    on_delete: bool,
    max_unavailable: i32,
    max_surge: i32,
}

impl Bounds {
    pub(super) fn of(observed: &Observed<'_>) -> Self {
        let strategy = observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let desired = observed
            .nodes
            .iter()
            .filter(|node| placement(observed.set, node).runs)
            .count();
        let desired = i32::try_from(desired).unwrap_or(i32::MAX);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.clone());
        let surge = rolling.and_then(|rolling| rolling.max_surge.clone());
        let mut max_unavailable = scaled(&unavailable.unwrap_or(IntOrString::Int(1)), desired, true);
        let max_surge = scaled(&surge.unwrap_or(IntOrString::Int(0)), desired, true);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self {
            on_delete: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete"),
            max_unavailable,
            max_surge,
        }
    }

    pub(super) fn surges(&self) -> bool {
        !self.on_delete && self.max_surge > 0
    }
}

/// The pods of one node: the updated one and the old one. Absent if there are more, which is put right first.
type OnNode<'a> = Option<(Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>)>;

fn on_node<'a>(observed: &Observed<'a>, pods: &[&'a Arc<Pod>]) -> OnNode<'a> {
    let alive = pods
        .iter()
        .copied()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| observed.is_updated(pod));
    (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
}

/// Moves the update on.
pub(super) fn update<'a>(observed: &'a Observed<'a>, changes: &mut Changes<'a>, now: Timestamp) {
    let bounds = Bounds::of(observed);
    if bounds.on_delete {
        return;
    }
    if bounds.surges() {
        surge(observed, &bounds, changes, now);
    } else {
        replace(observed, &bounds, changes, now);
    }
}

/// Old pods go and the next round brings new ones.
fn replace<'a>(observed: &'a Observed<'a>, bounds: &Bounds, changes: &mut Changes<'a>, now: Timestamp) {
    let available = |pod: &Pod| pod::is_available(pod, observed.min_ready_seconds(), now);
    let mut unavailable = 0;
    let mut candidates = Vec::new();
    for pods in observed.pods.values() {
        match on_node(observed, pods) {
            Some((Some(new), None)) => unavailable += i32::from(!available(new)),
            Some((None, Some(old))) if available(old) => candidates.push(old),
            // It does not serve anyway.
            Some((None, Some(old))) => {
                changes.delete.push(old);
                unavailable += 1;
            }
            _ => unavailable += 1,
        }
    }
    let room = usize::try_from(bounds.max_unavailable - unavailable).unwrap_or_default();
    changes.delete.extend(candidates.into_iter().take(room));
}

/// New pods come and take the place of old ones when they are available.
fn surge<'a>(observed: &'a Observed<'a>, bounds: &Bounds, changes: &mut Changes<'a>, now: Timestamp) {
    let available = |pod: &Pod| pod::is_available(pod, observed.min_ready_seconds(), now);
    let mut surging = 0;
    let mut candidates = Vec::new();
    for node in &observed.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let runs = placement(observed.set, node).runs;
        match on_node(observed, observed.on(node)) {
            None => surging += 1,
            Some((_, None)) => {}
            Some((None, Some(old))) if !available(old) => {
                if runs {
                    changes.create.push(name);
                } else {
                    changes.delete.push(old);
                }
            }
            Some((None, Some(_))) if runs => candidates.push(name),
            Some((None, Some(_))) => {}
            Some((Some(new), Some(old))) => {
                if available(new) {
                    changes.delete.push(old);
                } else {
                    surging += 1;
                }
            }
        }
    }
    let room = usize::try_from(bounds.max_surge - surging).unwrap_or_default();
    changes.create.extend(candidates.into_iter().take(room));
}
