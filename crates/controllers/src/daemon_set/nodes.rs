//! Which nodes a DaemonSet's pods belong on, and how a pod is sent to its node: by an affinity that the scheduler obeys.
//! Upstream: `pkg/controller/daemon/util`, `NodeShouldRunDaemonPod`.

use crate::controller_history::REVISION_HASH;
use crate::pod;
use coracle_reconcile::scheduling::{
    NO_EXECUTE, NO_SCHEDULE, RequiredNodeAffinity, forbids_scheduling, untolerated_taint,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};

const NAME: &str = "metadata.name";

/// Troubles of a node that its daemons stay through.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
];
const TOLERATED_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", NO_SCHEDULE);

/// What a DaemonSet has to do with a node.
pub(super) struct Placement {
    /// A pod belongs there.
    pub runs: bool,
    /// A pod that is there may stay.
    pub may_stay: bool,
}

/// Judges a node.
pub(super) fn placement(set: &DaemonSet, node: &Node) -> Placement {
    let spec = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let Some(spec) = spec else {
        return Placement {
            runs: false,
            may_stay: false,
        };
    };
    let named = spec.node_name.as_ref().filter(|name| !name.is_empty());
    let fits = named.is_none_or(|name| Some(name) == node.metadata.name.as_ref())
        && RequiredNodeAffinity::of(spec).matches(node);
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let tolerations = tolerations(spec);
    let repels = |filter: &dyn Fn(&k8s_openapi::api::core::v1::Taint) -> bool| {
        untolerated_taint(taints, &tolerations, filter).is_some()
    };
    Placement {
        runs: fits && !repels(&forbids_scheduling),
        may_stay: fits && !repels(&|taint| taint.effect == NO_EXECUTE),
    }
}

/// The template's tolerations and those that every daemon has.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let network = spec
        .host_network
        .unwrap_or_default()
        .then_some(TOLERATED_ON_HOST_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |known: &Toleration| {
            known.key == wanted.key
                && known.effect == wanted.effect
                && known.operator == wanted.operator
                && known.value.as_deref().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(|known| same(known)) {
            Some(known) => *known = wanted,
            None => tolerations.push(wanted),
        }
    }
    tolerations
}

/// The template of a pod of this version.
pub(super) fn template(template: &PodTemplateSpec, hash: &str) -> PodTemplateSpec {
    let mut template = template.clone();
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    template
}

/// Sends a pod to a node.
pub(super) fn aim(pod: &mut Pod, node: &str) {
    let spec = pod.spec.get_or_insert_default();
    let affinity = spec.affinity.get_or_insert_default();
    let required = affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_default();
    required.node_selector_terms = vec![NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    }];
}

/// The node that a pod is on or was sent to.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let bound = pod::node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NAME && field.operator == "In");
    let [name] = names.next()?.values.as_deref()? else {
        return None;
    };
    Some(name)
}
