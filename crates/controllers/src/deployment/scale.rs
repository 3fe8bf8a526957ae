//! The size of a Deployment, and how its ReplicaSets follow when it changes in the middle of a rollout: in proportion,
//! so that a bad version does not get more than its share. Upstream: `scale` in `pkg/controller/deployment/sync.go`.

use super::sets::{Set, Sets};
use crate::int_or_percent::scaled;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::cmp::Reverse;

/// How many pods a Deployment has and may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// `spec.replicas`.
    pub replicas: i32,
    /// Whether old and new pods may run side by side.
    pub is_rolling: bool,
    /// So many pods more than `replicas` may exist during a rollout.
    pub max_surge: i32,
    /// So many pods less than `replicas` may be available during a rollout.
    pub max_unavailable: i32,
}

impl Size {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
        let is_rolling = kind != Some("Recreate");
        if !is_rolling {
            return Self {
                replicas,
                is_rolling,
                max_surge: 0,
                max_unavailable: 0,
            };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let default = IntOrString::String("25%".to_owned());
        let surge = rolling
            .and_then(|rolling| rolling.max_surge.as_ref())
            .unwrap_or(&default);
        let unavailable = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .unwrap_or(&default);
        let max_surge = scaled(surge, replicas, true);
        let mut max_unavailable = scaled(unavailable, replicas, false);
        // Rounded down to nothing at all, nothing could ever move.
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self {
            replicas,
            is_rolling,
            max_surge,
            max_unavailable: max_unavailable.min(replicas),
        }
    }

    /// The most pods that may exist.
    pub(super) fn most(&self) -> i32 {
        self.replicas + self.max_surge
    }

    /// The fewest pods that must be available.
    pub(super) fn least_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

/// Brings the ReplicaSets to the size of the Deployment without moving the rollout forward.
pub(super) fn scale(sets: &mut Sets<'_>, size: &Size, deployment: &Deployment) {
    let saturated = sets.new.as_ref().is_some_and(|new| {
        new.replicas() == size.replicas
            && new.desired_replicas() == Some(size.replicas)
            && new.available() == size.replicas
    });
    sets.old.sort_by_key(|set| Reverse(set.age()));
    let mut active: Vec<&mut Set<'_>> = Vec::new();
    let has_new = sets.new.is_some();
    let mut everybody: Vec<&mut Set<'_>> = sets.old.iter_mut().chain(&mut sets.new).collect();
    if everybody.iter().all(|set| set.replicas() == 0) {
        // No pods at all: the newest gets them.
        let newest = if has_new {
            everybody.pop()
        } else {
            everybody.into_iter().next()
        };
        if let Some(newest) = newest {
            newest.scale(size.replicas, size);
        }
        return;
    }
    active.extend(everybody.into_iter().filter(|set| set.replicas() > 0));
    if let [only] = active.as_mut_slice() {
        only.scale(size.replicas, size);
        return;
    }
    if saturated {
        for old in sets.old.iter_mut().filter(|set| set.replicas() > 0) {
            old.scale(0, size);
        }
        return;
    }
    if size.is_rolling {
        proportionally(active, size, deployment);
    }
}

fn proportionally(mut active: Vec<&mut Set<'_>>, size: &Size, deployment: &Deployment) {
    let allowed = if size.replicas > 0 { size.most() } else { 0 };
    let to_add = allowed - active.iter().map(|set| set.replicas()).sum::<i32>();
    // The largest first. Among equals new ones grow first and old ones shrink first.
    if to_add > 0 {
        active.sort_by_key(|set| (Reverse(set.replicas()), Reverse(set.age())));
    } else if to_add < 0 {
        active.sort_by_key(|set| (Reverse(set.replicas()), set.age()));
    }
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let share = share(set, size, deployment, to_add, added);
        added += share;
        sizes.push(set.replicas() + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (set, replicas) in active.into_iter().zip(sizes) {
        set.scale_and_mark(replicas, size);
    }
}

/// What one ReplicaSet gets of `to_add`, of which `added` is given away.
fn share(set: &Set<'_>, size: &Size, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if left == 0 {
        return 0;
    }
    let fraction = fraction(set, size, deployment);
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(set: &Set<'_>, size: &Size, deployment: &Deployment) -> i32 {
    let replicas = set.replicas();
    if size.replicas == 0 {
        return -replicas;
    }
    let current = deployment
        .status
        .as_ref()
        .and_then(|status| status.replicas)
        .unwrap_or_default();
    let before = set.max_replicas().filter(|most| *most > 0).unwrap_or(current);
    if before == 0 {
        return 0;
    }
    let wanted = f64::from(replicas) * f64::from(size.most()) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "a number of pods")]
    let wanted = wanted.round() as i32;
    wanted - replicas
}
