//! `nodeSelector` and node affinity. Upstream: `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.

use coracle_meta::labels::{Operator, Requirement};
use coracle_meta::{FieldPath, Selector};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, PodSpec};
use std::collections::BTreeMap;

/// A parsed term: all of it must hold.
#[derive(Debug, Clone)]
pub struct NodeSelectorTerm {
    labels: Selector,
    /// Allowed and forbidden values of `metadata.name`, the only field.
    name_is: Vec<String>,
    name_is_not: Vec<String>,
}

impl NodeSelectorTerm {
    /// Parses a term. An empty one and one that does not parse match nothing and are absent.
    pub fn parse(term: &core::NodeSelectorTerm) -> Option<Self> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let requirements: Option<Vec<Requirement>> = expressions.iter().map(requirement).collect();
        let mut parsed = Self {
            labels: Selector::from_requirements(requirements?),
            name_is: Vec::new(),
            name_is_not: Vec::new(),
        };
        for field in fields {
            let [value] = field.values.as_deref().unwrap_or_default() else {
                return None;
            };
            match (field.key.as_str(), field.operator.as_str()) {
                ("metadata.name", "In") => parsed.name_is.push(value.clone()),
                ("metadata.name", "NotIn") => parsed.name_is_not.push(value.clone()),
                _ => return None,
            }
        }
        Some(parsed)
    }

    /// Whether a node has all of it.
    pub fn matches(&self, node: &Node) -> bool {
        let name = node.metadata.name.as_ref();
        self.labels.matches(&node.metadata.labels)
            && self.name_is.iter().all(|wanted| Some(wanted) == name)
            && self.name_is_not.iter().all(|unwanted| Some(unwanted) != name)
    }
}

fn requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    let values = expression.values.clone().unwrap_or_default();
    Requirement::new(&expression.key, operator, values, &FieldPath::default()).ok()
}

/// What a pod demands of its node.
#[derive(Debug, Clone, Default)]
pub struct RequiredNodeAffinity {
    labels: Option<BTreeMap<String, String>>,
    /// One of these must match, if there is a list at all.
    terms: Option<Vec<NodeSelectorTerm>>,
}

impl RequiredNodeAffinity {
    /// Reads `nodeSelector` and the required node affinity.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: spec.node_selector.clone().filter(|labels| !labels.is_empty()),
            terms: required.map(|selector| {
                let terms = selector.node_selector_terms.iter();
                terms.filter_map(NodeSelectorTerm::parse).collect()
            }),
        }
    }

    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.labels.is_none() && self.terms.is_none()
    }

    /// Whether a node will do.
    pub fn matches(&self, node: &Node) -> bool {
        let wanted = self.labels.iter().flatten();
        let labels = node.metadata.labels.as_ref();
        let has_labels = wanted
            .into_iter()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
        has_labels
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn accepts(spec: Value, labels: Value) -> bool {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}});
        RequiredNodeAffinity::of(&spec).matches(&serde_json::from_value(node).unwrap())
    }

    fn required(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn selector_and_terms_both_count() {
        assert!(accepts(json!({}), json!({})));
        assert!(accepts(
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({"disk": "ssd"})
        ));
        assert!(!accepts(
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({"disk": "hdd"})
        ));
        let mut both =
            required(json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]));
        both["nodeSelector"] = json!({"disk": "ssd"});
        assert!(accepts(both.clone(), json!({"disk": "ssd", "zone": "a"})));
        assert!(!accepts(both, json!({"disk": "ssd", "zone": "b"})));
    }

    #[test]
    fn terms_are_alternatives_and_expressions_are_not() {
        let terms = required(json!([
            {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]},
                                  {"key": "spot", "operator": "DoesNotExist"}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
        ]));
        assert!(accepts(terms, json!({"spot": "yes"})), "the name matches");
        let cores =
            required(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]}]));
        assert!(accepts(cores.clone(), json!({"cores": "16"})));
        assert!(!accepts(cores, json!({"cores": "8"})));
    }

    #[test]
    fn an_empty_term_matches_nothing() {
        assert!(!accepts(required(json!([{}])), json!({})));
        assert!(!accepts(required(json!([])), json!({})));
    }
}
