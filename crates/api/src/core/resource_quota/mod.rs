//! ResourceQuota. Upstream: `pkg/apis/core`, `pkg/registry/core/resourcequota`.

mod validation;

use crate::access::{Read, Write};
use crate::core::resource_list;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Request"), text("Limit"), AGE],
        cells,
    },
    default,
    prepare_for_create: |quota| quota.put("status", json!({})),
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings,
    ..Kind::new(Facts {
        generation: false,
        ..Facts::NAMESPACED
    })
};

fn default(quota: &mut Value) {
    for (part, list) in [("spec", "hard"), ("status", "hard"), ("status", "used")] {
        if let Some(list) = quota.existing(part).and_then(|part| part.existing(list)) {
            resource_list::default_list(list);
        }
    }
}

/// `NAME: USED/HARD`, limits apart from the rest.
/// Requests beyond limits can never be used up.
fn warnings(quota: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_some() {
        return warnings;
    }
    let hard = quota.sub("spec").sub("hard");
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let mut requests = format!("requests.{resource}");
        if !hard.has(&requests) && matches!(resource, "cpu" | "memory") {
            requests = resource.to_owned();
        }
        let limits = format!("limits.{resource}");
        let amount = |key: &str| resource_list::quantity(hard.sub(key));
        if let (Some(request), Some(limit)) = (amount(&requests), amount(&limits))
            && request > limit
        {
            warnings.push(format!(
                "ResourceQuota {requests} ({request}) should be less than {limits} ({limit})"
            ));
        }
    }
    warnings
}

fn cells(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = quota.sub("status");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, _) in status.entries("hard") {
        let amount = |list: &str| resource_list::text_of(status.sub(list), name);
        let text = format!("{name}: {}/{}", amount("used"), amount("hard"));
        if name.starts_with("limits.") {
            limits.push(text);
        } else {
            requests.push(text);
        }
    }
    vec![
        quota.name().into(),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(quota, now),
    ]
}
