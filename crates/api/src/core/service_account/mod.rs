//! ServiceAccount. Upstream: `pkg/apis/core`, `pkg/registry/core/serviceaccount`.

use crate::access::{Read, Write};
use crate::strategy::{Facts, Kind};
use crate::table::NAME_AGE;
use serde_json::{Value, json};

/// Deprecated; setting it anew is warned of.
const ENFORCE_MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

pub(crate) static STRATEGY: Kind = Kind {
    table: &NAME_AGE,
    prepare_for_create: clean_secret_references,
    prepare_for_update: |account, _| clean_secret_references(account),
    warnings,
    ..Kind::new(Facts::NAMESPACED_DATA)
};

/// References to Secrets have a name and nothing else.
fn clean_secret_references(account: &mut Value) {
    for secret in account.items("secrets") {
        *secret = json!({"name": secret.text("name")});
    }
}

fn warnings(account: &Value, old: Option<&Value>) -> Vec<String> {
    let is_set = |object: &Value| {
        object
            .sub("metadata")
            .sub("annotations")
            .has(ENFORCE_MOUNTABLE_SECRETS)
    };
    if !is_set(account) || old.is_some_and(is_set) {
        return Vec::new();
    }
    vec![format!(
        "metadata.annotations[{ENFORCE_MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to \
         isolate access to mounted secrets"
    )]
}
