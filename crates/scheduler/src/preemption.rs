//! Which pods of lower priority make room for one that fits nowhere. Upstream: `pkg/scheduler/framework/preemption`,
//! `plugins/defaultpreemption`. PodDisruptionBudgets are not looked at.

use crate::plugins::{self, Rejection};
use crate::pod_info::PodInfo;
use crate::schedule::{Unfit, histogram, judge};
use crate::snapshot::Snapshot;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What preemption can do for a pod.
#[derive(Debug, Clone)]
pub(crate) enum Preemption {
    /// These go, and their node is kept for the pod.
    Evict {
        node: String,
        victims: Vec<Arc<PodInfo>>,
    },
    /// Nothing, in upstream's words.
    Unhelpful(String),
}

/// Looks for the node where the least harm is done.
pub(crate) fn preempt(pod: &PodInfo, snapshot: &Snapshot, unfit: &Unfit) -> Preemption {
    let policy = pod.spec().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Preemption::Unhelpful("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if victims_are_going(pod, snapshot) {
        let why = "not eligible due to a terminating pod on the nominated node.";
        return Preemption::Unhelpful(why.to_owned());
    }
    let mut reasons: Vec<String> = Vec::new();
    let mut candidates: BTreeMap<Harm, (String, Vec<Arc<PodInfo>>)> = BTreeMap::new();
    for (name, rejection) in &unfit.rejections {
        if !rejection.resolvable {
            reasons.push("Preemption is not helpful for scheduling".to_owned());
            continue;
        }
        match victims(pod, snapshot, name) {
            Ok(victims) => {
                candidates.insert(harm(&victims, name), (name.clone(), victims));
            }
            Err(rejection) => reasons.extend(rejection.reasons),
        }
    }
    match candidates.pop_first() {
        Some((_, (node, victims))) => Preemption::Evict { node, victims },
        None => Preemption::Unhelpful(histogram(unfit.nodes, reasons.iter().map(String::as_str))),
    }
}

/// Whether an earlier preemption for this pod is still under way.
fn victims_are_going(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let status = pod.pod.status.as_ref();
    let nominated = status.and_then(|status| status.nominated_node_name.as_deref());
    let node = nominated.and_then(|name| snapshot.node(name));
    node.is_some_and(|node| {
        node.pods()
            .any(|other| other.is_terminating() && other.priority() < pod.priority())
    })
}

/// The pods of a node that must go: first all of lower priority, then as many as possible come back.
fn victims(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> Result<Vec<Arc<PodInfo>>, Rejection> {
    let nothing = || Rejection {
        plugin: "DefaultPreemption",
        reasons: vec!["No preemption victims found for incoming pod".to_owned()],
        resolvable: false,
    };
    let mut trial = snapshot.clone();
    let here = snapshot.node(node).ok_or_else(nothing)?;
    let mut lower: Vec<Arc<PodInfo>> = here
        .pods()
        .filter(|other| other.priority() < pod.priority())
        .cloned()
        .collect();
    if lower.is_empty() {
        return Err(nothing());
    }
    for other in &lower {
        trial.remove_pod(&other.key);
    }
    fits(pod, &trial, node)?;
    // The most important ones come back first.
    lower.sort_by_key(|other| (Reverse(other.priority()), started(other)));
    let mut victims = Vec::new();
    for other in lower {
        trial.put_pod(other.clone(), node);
        if fits(pod, &trial, node).is_err() {
            trial.remove_pod(&other.key);
            victims.push(other);
        }
    }
    Ok(victims)
}

fn fits(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> Result<(), Rejection> {
    match snapshot.node(node) {
        Some(info) => judge(&plugins::filters(pod, snapshot), info),
        None => Ok(()),
    }
}

/// Less is better: the highest priority hit, the sum of priorities, how many, how young the most important one is.
type Harm = (i32, i64, usize, Reverse<Option<Timestamp>>, String);

fn harm(victims: &[Arc<PodInfo>], node: &str) -> Harm {
    let highest = victims.iter().map(|pod| pod.priority()).max();
    // Priorities can be negative; each victim has to add to the sum.
    let sum = victims
        .iter()
        .map(|pod| i64::from(pod.priority()) - i64::from(i32::MIN));
    let most_important = victims.iter().filter(|pod| Some(pod.priority()) == highest);
    (
        highest.unwrap_or(i32::MIN),
        sum.sum(),
        victims.len(),
        Reverse(most_important.filter_map(|pod| started(pod)).min()),
        node.to_owned(),
    )
}

fn started(pod: &PodInfo) -> Option<Timestamp> {
    let status = pod.pod.status.as_ref()?;
    status.start_time.as_ref().map(|time| time.0)
}
