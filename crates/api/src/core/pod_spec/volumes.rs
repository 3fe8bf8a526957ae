//! Validation of the volumes of a pod. Upstream: `ValidateVolumes`, `validateVolumeSource`.

use super::{env, paths};
use crate::access::Read;
use crate::at::{At, label, subdomain};
use crate::core::resource_list;
use crate::strategy::Errors;
use crate::{label_selector, object_meta};
use coracle_meta::{FieldError, names};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The valid volumes by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The sources that are checked by what they must have; the others have functions of their own.
const REQUIRED: &[(&str, &[&str])] = &[
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &[]),
    ("quobyte", &["registry", "volume"]),
    ("flocker", &[]),
    ("downwardAPI", &[]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &[]),
    ("projected", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &[]),
    ("ephemeral", &[]),
    ("image", &[]),
];

/// Checks the volumes and answers with the valid ones. `pod_name` is empty in templates.
pub(super) fn validate<'a>(spec: &At<'a>, pod_name: &str, errors: &mut Errors) -> Volumes<'a> {
    let claims_made: BTreeSet<String> = spec
        .list("volumes")
        .iter()
        .filter(|volume| volume.has("ephemeral") && !pod_name.is_empty())
        .map(|volume| format!("{pod_name}-{}", volume.text("name")))
        .collect();
    let mut valid = Volumes::new();
    for volume in spec.each("volumes") {
        let before = errors.len();
        validate_source(&volume, pod_name, errors);
        let name = volume.child("name");
        volume.require_form("name", label, errors);
        if valid.contains_key(name.as_text()) {
            errors.push(name.duplicate());
        }
        if errors.len() == before {
            valid.insert(name.as_text(), volume.value());
        }
        let claim = volume.child("persistentVolumeClaim").child("claimName");
        if claims_made.contains(claim.as_text()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(claim.invalid(detail));
        }
    }
    valid
}

fn validate_source(volume: &At<'_>, pod_name: &str, errors: &mut Errors) {
    let mut count = 0;
    if let Some(empty) = volume.present("emptyDir") {
        count += 1;
        let limit = empty.child("sizeLimit");
        if resource_list::quantity(&limit).is_some_and(|limit| limit.sign() < 0) {
            errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
        }
    }
    let others = REQUIRED.iter().chain(&[("hostPath", &[] as &[&str])]);
    for (key, required) in others {
        let Some(source) = volume.present(key) else {
            continue;
        };
        count += 1;
        if count > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        for field in *required {
            source.require(field, errors);
        }
        match *key {
            "hostPath" => validate_host_path(&source, errors),
            "secret" | "configMap" => {
                validate_mode(&source, "defaultMode", errors);
                validate_items(&source, errors);
            }
            "nfs" if !source.text("path").starts_with('/') => {
                let path = source.path.child("path");
                let text = source.text("path");
                errors.push(FieldError::invalid(&path, text, "must be an absolute path"));
            }
            "downwardAPI" => {
                validate_mode(&source, "defaultMode", errors);
                for item in source.each("items") {
                    validate_downward_file(&At::new(item.value(), source.path.clone()), errors);
                }
            }
            "projected" => validate_projected(&source, errors),
            "csi" => validate_csi(&source, errors),
            "ephemeral" => validate_ephemeral(volume, &source, pod_name, errors),
            "image" => {
                if !pod_name.is_empty() {
                    source.require("reference", errors);
                }
                source.require_one_of("pullPolicy", &["Always", "IfNotPresent", "Never"], errors);
            }
            _ => {}
        }
    }
    if count == 0 {
        errors.push(volume.required("must specify a volume type"));
    }
}

fn validate_host_path(source: &At<'_>, errors: &mut Errors) {
    if source.require("path", errors) {
        paths::no_backsteps(&source.child("path"), errors);
        if let Some(kind) = source.present("type") {
            kind.one_of(HOST_PATH_TYPES, errors);
        }
    }
}

fn validate_mode(holder: &At<'_>, key: &str, errors: &mut Errors) {
    if holder.int(key).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        errors.push(holder.child(key).invalid(MODE));
    }
}

fn validate_items(source: &At<'_>, errors: &mut Errors) {
    for item in source.each("items") {
        item.require("key", errors);
        item.require("path", errors);
        paths::not_reserved(&item.child("path"), errors);
        validate_mode(&item, "mode", errors);
    }
}

fn validate_downward_file(file: &At<'_>, errors: &mut Errors) {
    file.require("path", errors);
    paths::not_reserved(&file.child("path"), errors);
    match (file.present("fieldRef"), file.present("resourceFieldRef")) {
        (Some(field), resource) => {
            env::validate_field(&field, env::VOLUME_FIELDS, errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&file.path, "resource", detail));
            }
        }
        (None, Some(resource)) => env::validate_resource_field(&resource, true, errors),
        (None, None) => {
            errors.push(file.required("one of fieldRef and resourceFieldRef is required"));
        }
    }
    validate_mode(file, "mode", errors);
}

fn validate_projected(source: &At<'_>, errors: &mut Errors) {
    validate_mode(source, "defaultMode", errors);
    let mut taken = BTreeSet::new();
    let mut claim = |path: &str, owner: &str, errors: &mut Errors| {
        if !path.is_empty() && !taken.insert(path.to_owned()) {
            let detail = "conflicting duplicate paths";
            errors.push(FieldError::invalid(&source.path, owner, detail));
        }
    };
    for projection in source.each("sources") {
        let mut count = 0;
        for key in ["secret", "configMap"] {
            let Some(part) = projection.present(key) else {
                continue;
            };
            count += 1;
            part.require("name", errors);
            validate_items(&part, errors);
            for item in part.list("items") {
                claim(item.text("path"), part.text("name"), errors);
            }
        }
        if let Some(downward) = projection.present("downwardAPI") {
            count += 1;
            for file in downward.list("items") {
                validate_downward_file(&At::new(file, downward.path.clone()), errors);
                claim(file.text("path"), file.text("path"), errors);
            }
        }
        if let Some(token) = projection.present("serviceAccountToken") {
            count += 1;
            validate_token(source, &token, errors);
        }
        if let Some(bundle) = projection.present("clusterTrustBundle") {
            count += 1;
            validate_trust_bundle(&bundle, errors);
            claim(bundle.text("path"), bundle.text("path"), errors);
        }
        if let Some(certificate) = projection.present("podCertificate") {
            count += 1;
            for path in validate_certificate(&certificate, errors) {
                claim(path, path, errors);
            }
        }
        if count > 1 {
            let detail = "may not specify more than 1 volume type per source";
            errors.push(projection.forbidden(detail));
        }
    }
}

fn validate_token(source: &At<'_>, token: &At<'_>, errors: &mut Errors) {
    let seconds = token.int("expirationSeconds").unwrap_or_default();
    let at = token.path.child("expirationSeconds");
    if seconds < 600 {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(&at, seconds, detail));
    }
    if seconds > 1 << 32 {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(&at, seconds, detail));
    }
    // Upstream reports the path at the volume, not at the token.
    let path = At::new(token.value().sub("path"), source.path.child("path"));
    if path.as_text().is_empty() {
        errors.push(path.required(""));
    } else {
        paths::not_reserved(&path, errors);
    }
}

fn validate_trust_bundle(bundle: &At<'_>, errors: &mut Errors) {
    match (bundle.present("name"), bundle.present("signerName")) {
        (Some(_), Some(_)) => {
            errors.push(bundle.invalid("only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            if name.as_text().is_empty() {
                errors.push(name.required("must be a valid object name"));
            }
            if let Some(selector) = bundle.present("labelSelector") {
                errors.push(selector.invalid("labelSelector must be unset if name is specified"));
            }
        }
        (None, Some(signer)) => {
            if signer.as_text().is_empty() {
                errors.push(signer.required("must be a valid signer name"));
            }
            label_selector::validate(&bundle.child("labelSelector"), errors);
        }
        (None, None) => {
            errors.push(bundle.required("either name or signerName must be specified"));
        }
    }
    bundle.require("path", errors);
    paths::not_reserved(&bundle.child("path"), errors);
}

/// Answers with the paths that the certificate's files take.
fn validate_certificate<'a>(certificate: &At<'a>, errors: &mut Errors) -> Vec<&'a str> {
    certificate.child("keyType").one_of(
        &[
            "RSA3072",
            "RSA4096",
            "ECDSAP256",
            "ECDSAP384",
            "ECDSAP521",
            "ED25519",
        ],
        errors,
    );
    let expiration = certificate.child("maxExpirationSeconds");
    if expiration.as_i64().is_some_and(|seconds| seconds < 3600) {
        errors.push(expiration.invalid("if provided, maxExpirationSeconds must be >= 3600"));
    }
    let mut taken = Vec::new();
    for key in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = certificate.child(key);
        if !path.as_text().is_empty() {
            paths::not_reserved(&path, errors);
            taken.push(path.as_text());
        }
    }
    if taken.is_empty() {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(certificate.required(detail));
    }
    taken
}

/// The name of a CSI driver in a field.
pub(crate) fn validate_csi_driver(driver: &At<'_>, errors: &mut Errors) {
    let name = driver.as_text();
    if name.is_empty() {
        errors.push(driver.required(""));
        return;
    }
    if name.len() > names::LABEL_MAX {
        errors.push(FieldError::too_long(&driver.path, names::LABEL_MAX));
    }
    driver.form(|name| subdomain(&name.to_lowercase()), errors);
}

fn validate_csi(source: &At<'_>, errors: &mut Errors) {
    validate_csi_driver(&source.child("driver"), errors);
    if let Some(secret) = source.present("nodePublishSecretRef") {
        secret.require_form("name", subdomain, errors);
    }
}

fn validate_ephemeral(volume: &At<'_>, source: &At<'_>, pod_name: &str, errors: &mut Errors) {
    let Some(template) = source.present("volumeClaimTemplate") else {
        errors.push(source.child("volumeClaimTemplate").required(""));
        return;
    };
    object_meta::validate_template(&template.child("metadata"), errors);
    crate::core::persistent_volume_claim::validate_spec(&template.child("spec"), errors);
    let name = volume.text("name");
    if pod_name.is_empty() || name.is_empty() {
        return;
    }
    let claim = format!("{pod_name}-{name}");
    for reason in subdomain(&claim) {
        let path = volume.path.child("name");
        let detail = format!("PVC name {claim:?}: {reason}");
        errors.push(FieldError::invalid(&path, name, &detail));
    }
}
