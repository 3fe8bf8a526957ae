//! A rollout with old and new pods side by side. Upstream: `pkg/controller/deployment/rolling.go`.

use super::scale::Size;
use super::sets::Sets;
use k8s_openapi::api::apps::v1::Deployment;

/// Moves the rollout as far as surge and availability allow.
pub(super) fn roll(sets: &mut Sets<'_>, size: &Size, deployment: &Deployment) {
    let is_made_now = sets.new.is_none();
    sets.make_new(deployment, size);
    let scaled = grow_new(sets, size);
    // A ReplicaSet that exists is scaled first and the old ones follow; a new one is made with its first pods.
    if !scaled || is_made_now {
        shrink_old(sets, size);
    }
}

/// Brings the new ReplicaSet nearer to the whole size; true if that changed it.
fn grow_new(sets: &mut Sets<'_>, size: &Size) -> bool {
    let all = sets.replicas();
    let Some(new) = &mut sets.new else {
        return false;
    };
    let before = new.replicas();
    let wanted = if before > size.replicas {
        size.replicas
    } else {
        let room = (size.most() - all).max(0);
        before + room.min(size.replicas - before)
    };
    new.scale(wanted, size);
    wanted != before
}

fn shrink_old(sets: &mut Sets<'_>, size: &Size) {
    if sets.old.iter().all(|set| set.replicas() == 0) {
        return;
    }
    // New pods that are not available yet must not let old ones go.
    let new_unavailable = sets
        .new
        .as_ref()
        .map_or(0, |new| new.replicas() - new.available());
    let may_go = sets.replicas() - size.least_available() - new_unavailable;
    if may_go <= 0 {
        return;
    }
    sets.old.sort_by_key(super::sets::Set::age);
    // Pods that do not work go first: they only stand in the way.
    let mut gone = 0;
    for old in &mut sets.old {
        let broken = (old.replicas() - old.available()).max(0);
        let going = broken.min(may_go - gone).max(0);
        old.scale(old.replicas() - going, size);
        gone += going;
    }
    let mut spare = sets.available() - size.least_available();
    for old in &mut sets.old {
        let going = old.replicas().min(spare).max(0);
        old.scale(old.replicas() - going, size);
        spare -= going;
    }
}
