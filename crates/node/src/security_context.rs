//! What a container's process may do: user, capabilities, seccomp, privileges. Upstream:
//! `pkg/securitycontext`, `kuberuntime/security_context.go`. Pure.

use coracle_oci::{Capabilities, ContainerSpec, Seccomp, User};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile};

/// Applies the security contexts of pod and container to a spec. `image_user` is the image's `USER`. The error is the
/// message of `CreateContainerConfigError`.
pub fn apply(
    spec: &mut ContainerSpec,
    pod: &Pod,
    container: &Container,
    image_user: &str,
) -> Result<(), String> {
    let default = PodSecurityContext::default();
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref())
        .unwrap_or(&default);
    let own = container.security_context.as_ref();
    let run_as_user = own.and_then(|c| c.run_as_user).or(of_pod.run_as_user);
    let run_as_group = own.and_then(|c| c.run_as_group).or(of_pod.run_as_group);
    let non_root = own.and_then(|c| c.run_as_non_root).or(of_pod.run_as_non_root);
    if non_root == Some(true) {
        verify_non_root(pod, container, run_as_user, image_user)?;
    }
    let id = |value: i64| u32::try_from(value).map_err(|_| format!("{value} is no user or group id"));
    let mut groups: Vec<u32> = Vec::new();
    for group in of_pod
        .supplemental_groups
        .iter()
        .flatten()
        .chain(of_pod.fs_group.iter())
    {
        groups.push(id(*group)?);
    }
    spec.user = User {
        user: match run_as_user {
            Some(uid) => id(uid)?.to_string(),
            None => image_user.to_owned(),
        },
        gid: run_as_group.map(id).transpose()?,
        supplementary_groups: groups,
        strict_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
    };
    spec.privileged = own.and_then(|c| c.privileged) == Some(true);
    spec.no_new_privileges =
        own.and_then(|c| c.allow_privilege_escalation) == Some(false) && !spec.privileged;
    spec.read_only_rootfs = own.and_then(|c| c.read_only_root_filesystem) == Some(true);
    spec.mask_paths = own.and_then(|c| c.proc_mount.as_deref()) != Some("Unmasked");
    if let Some(capabilities) = own.and_then(|c| c.capabilities.as_ref()) {
        spec.capabilities = Capabilities {
            add: capabilities.add.clone().unwrap_or_default(),
            drop: capabilities.drop.clone().unwrap_or_default(),
        };
    }
    let profile = own
        .and_then(|c| c.seccomp_profile.as_ref())
        .or(of_pod.seccomp_profile.as_ref());
    spec.seccomp = seccomp(profile)?;
    Ok(())
}

/// Without a profile the runtime's default applies, as with the kubelet's `--seccomp-default`.
fn seccomp(profile: Option<&SeccompProfile>) -> Result<Seccomp, String> {
    match profile.map(|p| p.type_.as_str()) {
        None | Some("RuntimeDefault") => Ok(Seccomp::RuntimeDefault),
        Some("Unconfined") => Ok(Seccomp::Unconfined),
        Some(other) => Err(format!(
            "seccomp profile type {other:?} is not supported on this node"
        )),
    }
}

/// Upstream: `verifyRunAsNonRoot`.
fn verify_non_root(
    pod: &Pod,
    container: &Container,
    user: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let place = format!(
        "(pod: \"{}_{}({})\", container: {})",
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid),
        container.name
    );
    match user {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => return Ok(()),
        None => {}
    }
    match image_user.split(':').next().unwrap_or_default() {
        "" | "0" => Err(format!(
            "container has runAsNonRoot and image will run as root {place}"
        )),
        name if name.parse::<u32>().is_err() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn applied(of_pod: Value, own: Value, image_user: &str) -> Result<ContainerSpec, String> {
        let pod: Pod = from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": of_pod, "containers": [{"name": "c", "securityContext": own}]}}))
        .expect("a pod");
        let mut spec = ContainerSpec::default();
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        apply(&mut spec, &pod, container, image_user).map(|()| spec)
    }

    #[test]
    fn container_overrides_pod_overrides_image() {
        let spec = applied(
            json!({"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [8]}),
            json!({"runAsUser": 9, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
            "www",
        )
        .expect("applies");
        assert_eq!((spec.user.user.as_str(), spec.user.gid), ("9", Some(6)));
        assert_eq!(spec.user.supplementary_groups, [8, 7]);
        assert!(spec.no_new_privileges && spec.mask_paths);
        assert_eq!(spec.capabilities.drop, ["ALL"]);
        assert_eq!(
            applied(json!({}), json!({}), "www").expect("applies").user.user,
            "www"
        );
    }

    #[test]
    fn non_root_is_verified() {
        let place = "(pod: \"p_n(u)\", container: c)";
        let error = |of_pod, image_user| {
            applied(of_pod, json!({}), image_user)
                .map(|_| ())
                .expect_err("refused")
        };
        let strict = json!({"runAsNonRoot": true});
        assert_eq!(
            error(strict.clone(), ""),
            format!("container has runAsNonRoot and image will run as root {place}")
        );
        assert!(error(strict.clone(), "www").contains("non-numeric user (www)"));
        assert!(error(json!({"runAsNonRoot": true, "runAsUser": 0}), "7").contains("breaks non-root policy"));
        assert!(applied(strict, json!({}), "1000:1000").is_ok());
    }
}
