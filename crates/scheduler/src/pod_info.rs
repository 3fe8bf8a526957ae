//! A pod with everything that scheduling asks about it, read once. Upstream: `framework.PodInfo`.

use crate::resources::{Resources, pod_requests};
use coracle_meta::labels::{Operator, Requirement};
use coracle_meta::{FieldPath, Selector};
use coracle_reconcile::Key;
use coracle_reconcile::scheduling::RequiredNodeAffinity;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

/// Other pods that a pod wants to be near to or far from.
#[derive(Debug, Clone)]
pub struct AffinityTerm {
    namespaces: Vec<String>,
    namespace_selector: Selector,
    selector: Selector,
    /// The node label whose value says what is near.
    pub topology_key: String,
}

impl AffinityTerm {
    /// Whether a pod is meant. `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &Pod, namespace_labels: Option<&BTreeMap<String, String>>) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        (self.namespaces.iter().any(|n| n == namespace) || self.namespace_selector.matches(&namespace_labels))
            && self.selector.matches(&pod.metadata.labels)
    }
}

/// A term and how much it counts, from 1 to 100.
pub type WeightedTerm = (AffinityTerm, i64);

/// The terms of pod affinity or anti-affinity.
#[derive(Debug, Clone, Default)]
pub struct AffinityTerms {
    /// All of these must hold.
    pub required: Vec<AffinityTerm>,
    /// These are wishes.
    pub preferred: Vec<WeightedTerm>,
}

impl AffinityTerms {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.preferred.is_empty()
    }
}

/// See the file's head.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its key.
    pub key: Key,
    /// What it needs.
    pub requests: Resources,
    /// What it counts for when nodes are compared: like `requests`, with a usual amount where nothing is asked.
    pub usual_requests: Resources,
    /// Ports of the node that it takes.
    pub host_ports: Vec<HostPort>,
    /// Nodes that it accepts.
    pub node_affinity: RequiredNodeAffinity,
    /// Pods that it wants near.
    pub affinity: AffinityTerms,
    /// Pods that it wants far.
    pub anti_affinity: AffinityTerms,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let near = affinity.and_then(|a| a.pod_affinity.as_ref());
        let far = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let terms = |required: Option<&Vec<PodAffinityTerm>>,
                     preferred: Option<&Vec<WeightedPodAffinityTerm>>| AffinityTerms {
            required: required.into_iter().flatten().map(|t| term(t, &pod)).collect(),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|w| (term(&w.pod_affinity_term, &pod), i64::from(w.weight)))
                .collect(),
        };
        Self {
            key: Key::of(&*pod),
            requests: pod_requests(&pod, false),
            usual_requests: pod_requests(&pod, true),
            host_ports: host_ports(&spec),
            node_affinity: RequiredNodeAffinity::of(&spec),
            affinity: terms(
                near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
                near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            anti_affinity: terms(
                far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
                far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            pod,
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// Its spec; every pod has one.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its priority; higher goes first.
    pub fn priority(&self) -> i32 {
        self.spec().and_then(|spec| spec.priority).unwrap_or_default()
    }

    /// The node it is bound to, or empty.
    pub fn node_name(&self) -> &str {
        let node = self.spec().and_then(|spec| spec.node_name.as_deref());
        node.unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether it cares about other pods.
    pub fn has_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty()
    }
}

/// Parses a selector; one that is not valid selects nothing.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Selector {
    let Some(selector) = selector else {
        return Selector::nothing();
    };
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    Selector::from_parts(
        labels.map(|(key, value)| (key.as_str(), value.as_str())),
        expressions.map(|e| {
            let values = e.values.clone().unwrap_or_default();
            (e.key.as_str(), e.operator.as_str(), values)
        }),
    )
    .unwrap_or_else(|_| Selector::nothing())
}

/// The selector, and the pod's own values of these labels.
pub(crate) fn with_label_keys(
    selector: Selector,
    keys: &[String],
    pod: &Pod,
    operator: Operator,
) -> Selector {
    let labels = pod.metadata.labels.as_ref();
    let own = keys.iter().filter_map(|key| {
        let value = labels?.get(key)?.clone();
        Requirement::new(key, operator, vec![value], &FieldPath::default()).ok()
    });
    let own: Vec<Requirement> = own.collect();
    if own.is_empty() {
        return selector;
    }
    Selector::from_requirements(selector.requirements().iter().cloned().chain(own).collect())
}

fn term(term: &PodAffinityTerm, pod: &Pod) -> AffinityTerm {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces = pod.metadata.namespace.clone().into_iter().collect();
    }
    let mut pods = selector(term.label_selector.as_ref());
    if term.label_selector.is_some() {
        let same = term.match_label_keys.as_deref().unwrap_or_default();
        pods = with_label_keys(pods, same, pod, Operator::In);
        let other = term.mismatch_label_keys.as_deref().unwrap_or_default();
        pods = with_label_keys(pods, other, pod, Operator::NotIn);
    }
    AffinityTerm {
        namespaces,
        namespace_selector: selector(term.namespace_selector.as_ref()),
        selector: pods,
        topology_key: term.topology_key.clone(),
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                ip: match port.host_ip.as_deref().unwrap_or_default() {
                    "" => "0.0.0.0".to_owned(),
                    ip => ip.to_owned(),
                },
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}
