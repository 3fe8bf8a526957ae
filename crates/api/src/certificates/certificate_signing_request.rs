//! CertificateSigningRequest. Who asks is recorded by the API server. Upstream:
//! `pkg/registry/certificates/certificates`.

use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::strategy::{Errors, Facts, Kind, NameRule, copy_field};
use crate::table::{AGE, NAME, TableSpec, age, or_none, text};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, timestamp};
use jiff::Timestamp;
use serde_json::{Value, json};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            AGE,
            text("SignerName"),
            text("Requestor"),
            text("RequestedDuration"),
            text("Condition"),
        ],
        cells,
    },
    prepare_for_create: |request| request.put("status", json!({})),
    prepare_for_update: |request, old| copy_field(request, old, "spec"),
    prepare_for_status_update: |request, old| {
        // Approval goes through its own subresource.
        for kind in ["Approved", "Denied"] {
            keep_condition(request, old, kind);
        }
    },
    prepare_for_subresource_update: |subresource, request, old| {
        if subresource != "approval" {
            return false;
        }
        copy_field(request, old, "spec");
        let certificate = old.sub("status").clone();
        copy_field(request.object("status"), &certificate, "certificate");
        true
    },
    check,
    check_update: Some(|_, _, _| {}),
    selectable_fields: |request| {
        let signer = request.sub("spec").text("signerName").to_owned();
        vec![("spec.signerName", signer)]
    },
    ..Kind::new(Facts {
        name: NameRule::PathSegment,
        generation: false,
        ..Facts::CLUSTER
    })
};

/// Makes the conditions of a type what they were.
fn keep_condition(request: &mut Value, old: &Value, kind: &str) {
    let is_kind = |condition: &&Value| condition.text("type") == kind;
    let mut conditions: Vec<Value> = request
        .sub("status")
        .list("conditions")
        .iter()
        .filter(|condition| !is_kind(condition))
        .cloned()
        .collect();
    let kept = old.sub("status").list("conditions").iter().filter(is_kind);
    conditions.extend(kept.cloned());
    request.object("status").put("conditions", conditions);
}

fn check(request: &Value, errors: &mut Errors) {
    let spec = At::top(request, "spec");
    spec.require("request", errors);
    if spec.list("usages").is_empty() {
        errors.push(spec.child("usages").required(""));
    }
    let mut seen = Vec::new();
    for usage in spec.each("usages") {
        usage.one_of(USAGES, errors);
        if seen.contains(&usage.as_text()) {
            errors.push(usage.duplicate());
        }
        seen.push(usage.as_text());
    }
    let signer = spec.child("signerName");
    if signer.as_text() == "kubernetes.io/legacy-unknown" {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        validate_signer(&signer, errors);
    }
    let expiration = spec.child("expirationSeconds");
    if expiration.as_i64().is_some_and(|seconds| seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(expiration.invalid(detail));
    }
}

/// The name of a signer: a path of one segment under a domain.
fn validate_signer(signer: &At<'_>, errors: &mut Errors) {
    let text = signer.as_text();
    if text.is_empty() {
        errors.push(signer.required(""));
        return;
    }
    match text.split_once('/') {
        Some((domain, path)) if !path.contains('/') => {
            for part in [domain, path] {
                for reason in subdomain(part) {
                    errors.push(FieldError::invalid(&signer.path, part, &reason));
                }
            }
            if !domain.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errors.push(FieldError::invalid(&signer.path, domain, detail));
            }
        }
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(signer.invalid(detail));
        }
    }
}

fn cells(request: &Value, now: Timestamp) -> Vec<Value> {
    let spec = request.sub("spec");
    let duration = spec.int("expirationSeconds").map(timestamp::human_duration);
    vec![
        request.name().into(),
        age(request, now),
        or_none(spec.text("signerName")),
        spec.text("username").into(),
        or_none(&duration.unwrap_or_default()),
        status_text(request).into(),
    ]
}

fn status_text(request: &Value) -> String {
    let status = request.sub("status");
    let has = |kind: &str| {
        let conditions = status.list("conditions");
        conditions.iter().any(|condition| condition.text("type") == kind)
    };
    let mut text = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}
