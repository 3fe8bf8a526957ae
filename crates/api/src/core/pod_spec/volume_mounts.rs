//! Validation of where containers mount volumes and block devices.
//! Upstream: `ValidateVolumeMounts`, `ValidateVolumeDevices`.

use super::paths;
use super::volumes::Volumes;
use crate::access::Read;
use crate::at::At;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use std::collections::BTreeSet;

pub(super) fn validate(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut mount_paths = BTreeSet::new();
    let devices = container.list("volumeDevices");
    for mount in container.each("volumeMounts") {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        mount.require("name", errors);
        if !volumes.contains_key(name.as_text()) {
            errors.push(FieldError::not_found(&name.path, name.as_text()));
        }
        mount.require("mountPath", errors);
        if !mount_paths.insert(path.as_text()) {
            errors.push(FieldError::invalid(&path.path, path.as_text(), "must be unique"));
        }
        if devices.iter().any(|device| device.text("name") == name.as_text()) {
            errors.push(name.invalid("must not already exist in volumeDevices"));
        }
        if devices
            .iter()
            .any(|device| device.text("devicePath") == path.as_text())
        {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        validate_sub_path(container, &mount, errors);
        validate_modes(container, &mount, errors);
    }
    validate_devices(container, volumes, errors);
}

/// Upstream reports these at the list rather than at the mount.
fn validate_sub_path(container: &At<'_>, mount: &At<'_>, errors: &mut Errors) {
    let list = container.path.child("volumeMounts");
    for key in ["subPath", "subPathExpr"] {
        if mount.text(key).is_empty() {
            continue;
        }
        if key == "subPathExpr" && !mount.text("subPath").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(mount.child(key).invalid(detail));
        }
        paths::descending(&At::new(mount.value().sub(key), list.child(key)), errors);
    }
}

fn validate_modes(container: &At<'_>, mount: &At<'_>, errors: &mut Errors) {
    let list = container.path.child("volumeMounts");
    let propagation = mount.text("mountPropagation");
    if mount.has("mountPropagation") {
        let at = At::new(
            mount.value().sub("mountPropagation"),
            list.child("mountPropagation"),
        );
        at.one_of(&["Bidirectional", "HostToContainer", "None"], errors);
        if propagation == "Bidirectional" && !container.sub("securityContext").flag("privileged") {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(at.forbidden(detail));
        }
    }
    let at = At::new(
        mount.value().sub("recursiveReadOnly"),
        list.child("recursiveReadOnly"),
    );
    match (at.is_null(), at.as_text()) {
        (true, _) | (_, "Disabled") => {}
        (_, "Enabled" | "IfPossible") => {
            if !mount.flag("readOnly") {
                errors.push(at.forbidden("may only be specified when readOnly is true"));
            }
            if !matches!(propagation, "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(at.forbidden(detail));
            }
        }
        _ => errors.push(at.not_supported(&["Disabled", "Enabled", "IfPossible"])),
    }
}

fn validate_devices(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mounts = container.list("volumeMounts");
    let (mut names, mut device_paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.each("volumeDevices") {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        device.require("name", errors);
        if !names.insert(name.as_text()) && !name.as_text().is_empty() {
            errors.push(name.invalid("must be unique"));
        }
        match volumes.get(name.as_text()) {
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(name.invalid(detail));
            }
            Some(_) => {}
            None => errors.push(FieldError::not_found(&name.path, name.as_text())),
        }
        device.require("devicePath", errors);
        if device_paths.contains(path.as_text()) {
            errors.push(path.invalid("must be unique"));
        }
        if path.as_text().split('/').any(|part| part == "..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        } else {
            device_paths.insert(path.as_text());
        }
        if mounts.iter().any(|mount| mount.text("name") == name.as_text()) {
            errors.push(name.invalid("must not already exist in volumeMounts"));
        }
        if mounts
            .iter()
            .any(|mount| mount.text("mountPath") == path.as_text())
        {
            errors.push(path.invalid("must not already exist as a path in volumeMounts"));
        }
    }
}
