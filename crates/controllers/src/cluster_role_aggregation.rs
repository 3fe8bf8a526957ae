//! Cluster role aggregation: a ClusterRole with an aggregation rule has the rules of all ClusterRoles that the rule
//! selects. Upstream: `pkg/controller/clusterroleaggregation`.

use coracle_meta::labels::Selector;
use coracle_reconcile::{Action, Cache, Key, PatchType, Plan, Spec, Watch};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;
use std::collections::BTreeMap;

/// The controller. Its keys are aggregated roles.
pub fn spec() -> Spec {
    Spec::new("clusterrole-aggregation-controller", |key, cache, _| {
        plan(key, cache)
    })
    .watch(Watch::of(|_: &ClusterRole, cache| {
        let aggregated = |role: &&std::sync::Arc<ClusterRole>| role.aggregation_rule.is_some();
        cache
            .list::<ClusterRole>()
            .filter(aggregated)
            .map(|role| Key::of(&**role))
            .collect()
    }))
}

fn plan(key: &Key, cache: &Cache) -> Plan {
    let mut plan = Plan::nothing();
    let Some(role) = cache.get::<ClusterRole>("", &key.name) else {
        return plan;
    };
    let Some(selectors) = role
        .aggregation_rule
        .as_ref()
        .map(|rule| rule.cluster_role_selectors.as_deref())
    else {
        return plan;
    };
    let selectors: Vec<Selector> = selectors
        .unwrap_or_default()
        .iter()
        // Validation has let none through that does not parse.
        .filter_map(|selector| Selector::from_label_selector(&json!(selector)).ok())
        .collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    // The cache lists by name, so the order is the same every time.
    for source in cache.list::<ClusterRole>() {
        let labels: BTreeMap<String, String> = source.metadata.labels.clone().unwrap_or_default();
        let selected = selectors.iter().any(|selector| selector.matches(&labels));
        if !selected || source.metadata.name == role.metadata.name {
            continue;
        }
        for rule in source.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    if rules != role.rules.as_deref().unwrap_or_default() {
        plan.note(format!("{} aggregates {} rules", key.name, rules.len()));
        let body = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
        plan.push(Action::patch(&**role, PatchType::Merge, body));
    }
    plan
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        crate::testing::golden(&super::spec(), "cluster_role_aggregation");
    }
}
