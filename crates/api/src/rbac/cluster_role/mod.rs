//! ClusterRole. Upstream: `pkg/apis/rbac`, `pkg/registry/rbac/clusterrole`.

use crate::access::Read;
use crate::at::At;
use crate::label_selector;
use crate::rbac::FACTS;
use crate::rbac::role::validate_rule;
use crate::strategy::{Errors, Facts, Kind};
use coracle_meta::FieldPath;
use serde_json::Value;

pub(crate) static STRATEGY: Kind = Kind {
    check,
    ..Kind::new(Facts {
        namespaced: false,
        ..FACTS
    })
};

fn check(role: &Value, errors: &mut Errors) {
    let root = At::new(role, FieldPath::default());
    for rule in root.each("rules") {
        validate_rule(&rule, false, errors);
    }
    let Some(aggregation) = root.present("aggregationRule") else {
        return;
    };
    if aggregation.list("clusterRoleSelectors").is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        let selectors = aggregation.child("clusterRoleSelectors");
        errors.push(selectors.required(detail));
    }
    for selector in aggregation.each("clusterRoleSelectors") {
        label_selector::validate(&selector, errors);
    }
}
