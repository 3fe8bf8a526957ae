//! Validation of persistent volumes. Upstream: `ValidatePersistentVolumeSpec`.

use crate::access::{Read, Write};
use crate::at::{At, IMMUTABLE, NOT_POSITIVE, subdomain};
use crate::core::persistent_volume_claim::validate_access_modes;
use crate::core::{pod_spec, resource_list};
use crate::semantic;
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath};
use serde_json::{Map, Value};

/// Where a volume's data may be, and what each source must say.
const SOURCES: &[(&str, &[&str])] = &[
    ("hostPath", &["path"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &[]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("storageos", &[]),
    ("csi", &["volumeHandle"]),
];

pub(super) fn check(volume: &Value, errors: &mut Errors) {
    let spec = At::top(volume, "spec");
    if spec.list("accessModes").is_empty() {
        errors.push(spec.child("accessModes").required(""));
    }
    validate_access_modes(&spec, errors);
    validate_capacity(&spec, errors);
    if let Some(policy) = spec.present("persistentVolumeReclaimPolicy") {
        policy.one_of(&["Delete", "Recycle", "Retain"], errors);
    }
    if let Some(affinity) = spec.present("nodeAffinity") {
        match affinity.present("required") {
            Some(selector) => pod_spec::validate_node_selector(&selector, errors),
            None => {
                let required = affinity.child("required");
                errors.push(required.required("must specify required node constraints"));
            }
        }
    }
    validate_source(&spec, errors);
    spec.optional_form("storageClassName", subdomain, errors);
    if let Some(mode) = spec.present("volumeMode") {
        mode.one_of(&["Block", "Filesystem"], errors);
    }
    if let Some(class) = spec.present("volumeAttributesClassName") {
        if class.as_text().is_empty() {
            errors.push(class.required("an empty string is disallowed"));
        } else {
            class.form(subdomain, errors);
        }
        if !spec.has("csi") {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(spec.child("csi").required(detail));
        }
    }
}

fn validate_capacity(spec: &At<'_>, errors: &mut Errors) {
    let capacity = spec.child("capacity");
    if capacity.as_object().is_none_or(Map::is_empty) {
        errors.push(capacity.required(""));
    } else if !capacity.has("storage") || spec.size("capacity") > 1 {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, value) in spec.each_entry("capacity") {
        if let Some(amount) = resource_list::validate_quantity("storage", &value, errors)
            && amount.is_zero()
        {
            errors.push(value.invalid(NOT_POSITIVE));
        }
    }
}

fn validate_source(spec: &At<'_>, errors: &mut Errors) {
    let mut count = 0;
    for (key, required) in SOURCES {
        let Some(source) = spec.present(key) else { continue };
        count += 1;
        if count > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        for field in *required {
            source.require(field, errors);
        }
        if *key == "csi" {
            pod_spec::validate_csi_driver(&source.child("driver"), errors);
        }
        let path = source.child("path");
        let climbs = path.as_text().split('/').any(|part| part == "..");
        if matches!(*key, "hostPath" | "local") && climbs {
            errors.push(path.invalid("must not contain '..'"));
        }
        if *key == "local" && !spec.has("nodeAffinity") {
            let affinity = spec.child("nodeAffinity");
            errors.push(affinity.required("Local volume requires node affinity"));
        }
    }
    if count == 0 {
        errors.push(spec.required("must specify a volume type"));
    }
    let host_path = spec.sub("hostPath").text("path");
    let is_root = !host_path.is_empty() && host_path.chars().all(|c| c == '/');
    if is_root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let policy = spec.child("persistentVolumeReclaimPolicy");
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
}

/// The sources of a volume, apart from a secret that may come later.
fn sources(spec: &Value, without_expand_secret: bool) -> Value {
    let mut sources = Map::new();
    for (key, _) in SOURCES {
        if let Some(source) = spec.field(key) {
            let mut source = source.clone();
            if without_expand_secret && *key == "csi" {
                source.drop_field("controllerExpandSecretRef");
            }
            sources.insert((*key).to_owned(), source);
        }
    }
    Value::Object(sources)
}

pub(super) fn check_update(volume: &Value, old: &Value, errors: &mut Errors) {
    check(volume, errors);
    let (spec, old) = (volume.sub("spec"), old.sub("spec"));
    let may_gain_secret = old.has("csi") && !old.sub("csi").has("controllerExpandSecretRef");
    let (before, now) = (sources(old, false), sources(spec, may_gain_secret));
    if !semantic::equal(&before, &now) {
        let path = FieldPath::new("spec").child("persistentvolumesource");
        let detail = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            semantic::difference(&before, &now)
        );
        errors.push(FieldError::forbidden(&path, &detail));
    }
    for key in ["volumeMode", "nodeAffinity"] {
        let may_come = key == "nodeAffinity" && !old.has(key);
        if !may_come && !semantic::equal_field(spec, old, key) {
            errors.push(FieldError::invalid(
                &FieldPath::new(key),
                spec.sub(key).clone(),
                IMMUTABLE,
            ));
        }
    }
    let class = "volumeAttributesClassName";
    if old.has(class) && !spec.has(class) {
        let path = FieldPath::new("spec").child(class);
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden(&path, detail));
    }
}
