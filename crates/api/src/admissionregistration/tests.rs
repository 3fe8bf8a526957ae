//! Golden cases of webhooks and policies.

use crate::strategy::strategy;
use crate::tests::{create, named, row, wrong};
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io";

fn rule() -> Value {
    json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]})
}

fn webhook(url: &str) -> Value {
    json!({
        "name": "pods.example.com", "rules": [rule()], "clientConfig": {"url": url}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    })
}

#[test]
fn webhooks() {
    let kind = strategy(GROUP, "MutatingWebhookConfiguration");
    let mut configuration = named(
        kind,
        "pods",
        json!({"webhooks": [webhook("https://10.0.0.1:8443/mutate")]}),
    );
    assert_eq!(create(kind, &mut configuration), "");
    let made = &configuration["webhooks"][0];
    assert_eq!(made["failurePolicy"], "Fail");
    assert_eq!(made["matchPolicy"], "Equivalent");
    assert_eq!(made["timeoutSeconds"], 10);
    assert_eq!(made["reinvocationPolicy"], "Never");
    assert_eq!(made["namespaceSelector"], json!({}));
    assert_eq!(made["rules"][0]["scope"], "*");
    assert_eq!(row(kind, &configuration), json!(["pods", 1, "5m"]));

    let mut bad = webhook("http://user@host?q#f");
    bad["name"] = json!("short.name");
    bad["rules"][0]["operations"] = json!(["*", "MAKE"]);
    bad["rules"][0]["resources"] = json!(["*/*", "pods/log", "*", "pods"]);
    bad["sideEffects"] = json!("Some");
    bad["admissionReviewVersions"] = json!(["v2", "v2"]);
    bad["timeoutSeconds"] = json!(31);
    let expected = [
        "webhooks[0].name: Invalid value: \"short.name\": should be a domain with at least three segments separated \
         by dots",
        "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"MAKE\"]: if '*' is present, must not specify other \
         operations",
        "webhooks[0].rules[0].operations[1]: Unsupported value: \"MAKE\": supported values: \"*\", \"CONNECT\", \
         \"CREATE\", \"DELETE\", \"UPDATE\"",
        "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods/log\",\"*\",\"pods\"]: if '*/*' is present, \
         must not specify other resources",
        "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods/log\",\"*\",\"pods\"]: if '*' is present, must \
         not specify other resources without subresources",
        "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme",
    ];
    let errors = wrong(
        strategy(GROUP, "ValidatingWebhookConfiguration"),
        json!({"webhooks": [bad]}),
    );
    for text in expected {
        assert!(errors.contains(text), "{text}\nis missing in\n{errors}");
    }
    assert!(errors.ends_with(
        "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version; \
         webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1"
    ));
}

#[test]
fn policies() {
    let kind = strategy(GROUP, "ValidatingAdmissionPolicy");
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [rule()]},
        "validations": [{"expression": "object.spec.replicas <= 5"}],
    });
    let mut policy = named(kind, "replicas", json!({"spec": spec}));
    assert_eq!(create(kind, &mut policy), "");
    assert_eq!(row(kind, &policy), json!(["replicas", 1, "<unset>", "5m"]));
    spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    spec["validations"] = json!([{"expression": " ", "message": "a\nb", "reason": "Gone"}]);
    spec["variables"] = json!([{"name": "if", "expression": "1"}]);
    assert_eq!(
        wrong(kind, json!({"spec": spec})),
        "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier; \
         spec.validations[0].expression: Required value: expression is not specified; spec.validations[0].message: \
         Invalid value: \"a\\nb\": must not contain line breaks; spec.validations[0].reason: Unsupported value: \
         \"Gone\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\""
    );
    assert_eq!(
        wrong(kind, json!({"spec": {}})),
        "spec.matchConstraints: Required value; spec.validations: Required value: validations or auditAnnotations must \
         contain at least one item; spec.auditAnnotations: Required value: validations or auditAnnotations must \
         contain at least one item"
    );
}

#[test]
fn bindings() {
    let kind = strategy(GROUP, "ValidatingAdmissionPolicyBinding");
    let spec = json!({"policyName": "replicas", "validationActions": ["Deny"]});
    let mut binding = named(kind, "all", json!({"spec": spec}));
    assert_eq!(create(kind, &mut binding), "");
    assert_eq!(row(kind, &binding), json!(["all", "replicas", "<unset>", "5m"]));
    assert_eq!(
        wrong(kind, json!({"spec": {"paramRef": {}}})),
        "spec.policyName: Required value; spec.paramRef: Required value: one of name or selector must be specified; \
         spec.paramRef.parameterNotFoundAction: Required value; spec.validationActions: Required value: at least one \
         validation action is required"
    );
}
