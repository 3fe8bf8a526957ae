//! The decision about one pod. Upstream: `schedulePod` in `pkg/scheduler/schedule_one.go`.

use crate::node_info::NodeInfo;
use crate::plugins::{self, Filter, Rejection};
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// To this node.
    Bind(String),
    /// Nowhere for now.
    Unschedulable(Unfit),
}

/// Why a pod goes nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfit {
    /// Nodes that exist.
    pub nodes: usize,
    /// Why each of them does not do.
    pub rejections: BTreeMap<String, Rejection>,
}

impl Unfit {
    /// The plugins that said no.
    pub fn plugins(&self) -> BTreeSet<&'static str> {
        self.rejections
            .values()
            .map(|rejection| rejection.plugin)
            .collect()
    }
}

/// Upstream's words: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let reasons = self
            .rejections
            .values()
            .flat_map(|r| r.reasons.iter().map(String::as_str));
        write!(f, "{}", histogram(self.nodes, reasons))
    }
}

/// `0/N nodes are available: ` and how often each reason holds.
pub(crate) fn histogram<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut texts: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    // Upstream sorts the texts, counts included.
    texts.sort();
    if texts.is_empty() {
        return format!("0/{nodes} nodes are available:");
    }
    format!("0/{nodes} nodes are available: {}.", texts.join(", "))
}

/// Decides about a pod. Among equally good nodes, `tie` chooses; pass another number each time to spread pods.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, tie: usize) -> Decision {
    let filters = plugins::filters(pod, snapshot);
    let mut fitting: Vec<&Arc<NodeInfo>> = Vec::new();
    let mut rejections = BTreeMap::new();
    let mut nodes = 0;
    for node in snapshot.nodes() {
        nodes += 1;
        match judge(&filters, node).and_then(|()| judge_with_nominated(pod, snapshot, node)) {
            Ok(()) => fitting.push(node),
            Err(rejection) => {
                rejections.insert(node.name().to_owned(), rejection);
            }
        }
    }
    match fitting.as_slice() {
        [] => Decision::Unschedulable(Unfit { nodes, rejections }),
        [only] => Decision::Bind(only.name().to_owned()),
        _ => Decision::Bind(best(pod, snapshot, &fitting, tie)),
    }
}

/// The first rejection of a node.
pub(crate) fn judge(filters: &[Box<dyn Filter + '_>], node: &NodeInfo) -> Result<(), Rejection> {
    filters.iter().try_for_each(|filter| filter.filter(node))
}

/// Judges a node once more with the pods in place that it is kept for. Upstream: `RunFilterPluginsWithNominatedPods`.
fn judge_with_nominated(pod: &PodInfo, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Rejection> {
    let Some(trial) = snapshot.with_nominated(pod, node.name()) else {
        return Ok(());
    };
    match trial.node(node.name()) {
        Some(node) => judge(&plugins::filters(pod, &trial), node),
        None => Ok(()),
    }
}

fn best(pod: &PodInfo, snapshot: &Snapshot, nodes: &[&Arc<NodeInfo>], tie: usize) -> String {
    let mut totals = vec![0; nodes.len()];
    for plugin in plugins::scores(pod, snapshot, nodes) {
        let mut scores: Vec<i64> = nodes.iter().map(|node| plugin.score(node)).collect();
        plugin.normalize(nodes, &mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    let most = totals.iter().copied().max().unwrap_or_default();
    let best: Vec<_> = nodes
        .iter()
        .zip(&totals)
        .filter(|(_, total)| **total == most)
        .collect();
    best[tie % best.len()].0.name().to_owned()
}
