//! Validation of the security contexts of pods and containers.
//! Upstream: `ValidateSecurityContext`, `validatePodSpecSecurityContext`.

use super::paths;
use crate::access::Read;
use crate::at::At;
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};

const SYSCTL_MAX: usize = 253;
const SYSCTL_REGEX: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const APP_ARMOR_PROFILE_MAX: usize = 4095;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// The security context of a container.
pub(super) fn validate(security: &At<'_>, host_users: bool, errors: &mut Errors) {
    validate_ids(security, &["runAsUser", "runAsGroup"], errors);
    if let Some(mount) = security.present("procMount") {
        mount.one_of(&["Default", "Unmasked"], errors);
        if host_users && mount.as_text() == "Unmasked" {
            errors.push(mount.invalid("`hostUsers` must be false to use `Unmasked`"));
        }
    }
    validate_seccomp(&security.child("seccompProfile"), errors);
    if security.sub("allowPrivilegeEscalation") == false {
        if security.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(security.invalid(detail));
        }
        if security
            .sub("capabilities")
            .texts("add")
            .contains(&"CAP_SYS_ADMIN")
        {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(security.invalid(detail));
        }
    }
    validate_app_armor(&security.child("appArmorProfile"), errors);
}

/// The security context of a pod; `spec` tells which namespaces it shares with the host.
pub(super) fn validate_pod(spec: &At<'_>, errors: &mut Errors) {
    let Some(security) = spec.present("securityContext") else {
        return;
    };
    validate_ids(&security, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for group in security.each("supplementalGroups") {
        let number = group.as_i64().unwrap_or_default();
        for reason in names::in_range(number, 0, i64::from(i32::MAX)) {
            errors.push(group.invalid(&reason));
        }
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let path = security.path.child("shareProcessNamespace");
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path, true, detail));
    }
    validate_sysctls(&security, spec, errors);
    let mut one_of = |key: &str, allowed: &[&str]| {
        if let Some(field) = security.present(key) {
            field.one_of(allowed, errors);
        }
    };
    one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    one_of("supplementalGroupsPolicy", &["Merge", "Strict"]);
    one_of("seLinuxChangePolicy", &["MountOption", "Recursive"]);
    validate_seccomp(&security.child("seccompProfile"), errors);
    validate_app_armor(&security.child("appArmorProfile"), errors);
}

fn validate_ids(security: &At<'_>, keys: &[&str], errors: &mut Errors) {
    for key in keys {
        security.range(key, 0, i64::from(i32::MAX), errors);
    }
}

fn validate_seccomp(profile: &At<'_>, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let kind = profile.child("type");
    if kind.as_text().is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else {
        kind.one_of(PROFILE_TYPES, errors);
    }
    match (kind.as_text(), profile.present("localhostProfile")) {
        ("Localhost", Some(path)) => paths::descending(&path, errors),
        ("Localhost", None) => {
            let path = profile.child("localhostProfile");
            errors.push(path.required("must be set when seccomp type is Localhost"));
        }
        (_, Some(path)) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&path.path, profile.value().clone(), detail));
        }
        (_, None) => {}
    }
}

fn validate_app_armor(profile: &At<'_>, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let local = profile.child("localhostProfile");
    let kind = profile.child("type");
    match kind.as_text() {
        "Localhost" => {
            let text = local.as_text();
            if text.trim().is_empty() && text.trim() == text {
                errors.push(local.required("must be set when AppArmor type is Localhost"));
            } else if text.trim() != text {
                errors.push(local.invalid("must not be padded with whitespace"));
            }
            if text.len() > APP_ARMOR_PROFILE_MAX {
                errors.push(FieldError::too_long(&local.path, APP_ARMOR_PROFILE_MAX));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if !local.is_null() {
                errors.push(local.invalid("can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        _ => errors.push(kind.not_supported(PROFILE_TYPES)),
    }
}

fn validate_sysctls(security: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for sysctl in security.each("sysctls") {
        let name = sysctl.child("name");
        let text = name.as_text();
        if text.is_empty() {
            errors.push(name.required(""));
        } else if !is_sysctl_name(text) {
            let detail = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_REGEX}");
            errors.push(name.invalid(&detail));
        } else if seen.contains(&text) {
            errors.push(name.duplicate());
        }
        seen.push(text);
        let dotted = text.replace('/', ".");
        if spec.flag("hostNetwork") && dotted.starts_with("net.") {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        } else if spec.flag("hostIPC") && is_ipc_sysctl(&dotted) {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_ipc_sysctl(name: &str) -> bool {
    name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

fn is_sysctl_name(name: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_segment = |segment: &str| {
        let bytes = segment.as_bytes();
        is_edge(bytes.first())
            && is_edge(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(is_segment)
}
