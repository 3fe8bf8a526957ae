//! Golden cases of custom resource definitions.

use crate::strategy::strategy;
use crate::tests::{create, named, row, update};
use serde_json::{Value, json};

fn definition(name: &str, versions: Value) -> Value {
    let kind = strategy("apiextensions.k8s.io", "CustomResourceDefinition");
    named(
        kind,
        name,
        json!({"spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": versions,
        }}),
    )
}

fn version(name: &str, storage: bool) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}})
}

#[test]
fn definitions() {
    let kind = strategy("apiextensions.k8s.io", "CustomResourceDefinition");
    let mut crontabs = definition("crontabs.example.com", json!([version("v1", true)]));
    assert_eq!(create(kind, &mut crontabs), "");
    assert_eq!(
        crontabs["spec"]["names"],
        json!({"plural": "crontabs", "kind": "CronTab", "singular": "crontab", "listKind": "CronTabList"})
    );
    assert_eq!(crontabs["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(
        row(kind, &crontabs),
        json!(["crontabs.example.com", "2026-01-01T00:00:00Z"])
    );
    let errors = create(kind, &mut definition("wrong", json!([version("v1", true)])));
    assert_eq!(
        errors,
        "metadata.name: Invalid value: \"wrong\": must be spec.names.plural+\".\"+spec.group"
    );
    let both = json!([version("v1", true), version("v2", true)]);
    assert_eq!(
        create(kind, &mut definition("crontabs.example.com", both.clone())),
        format!(
            "spec.versions: Invalid value: {}: must have exactly one version marked as storage version",
            both
        )
    );
    let mut moved = crontabs.clone();
    moved["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let established = moved.clone();
    moved["spec"]["group"] = json!("other.com");
    assert_eq!(
        update(kind, &mut moved, &established),
        "spec.group: Invalid value: \"other.com\": field is immutable"
    );
}
