//! Which container starts again after it has ended. Upstream: `podutil.ContainerShouldRestart`.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Whether an init container is a sidecar: `restartPolicy: Always`, starts before and runs beside the others.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that ended with `exit_code` starts again: its own rules, its own policy, the pod's policy.
pub fn should_restart(container: &Container, pod: &PodSpec, exit_code: i32) -> bool {
    if let Some(policy) = container.restart_policy.as_deref() {
        if matching_rule_restarts(container, exit_code) {
            return true;
        }
        if let Some(decision) = by_policy(policy, exit_code) {
            return decision;
        }
    }
    by_policy(pod.restart_policy.as_deref().unwrap_or("Always"), exit_code).unwrap_or(true)
}

/// Whether a container killed by a failing probe starts again; exit-code rules do not apply to those.
pub fn restarts_after_probe_failure(container: &Container, pod: &PodSpec) -> bool {
    let policy = container
        .restart_policy
        .as_deref()
        .or(pod.restart_policy.as_deref())
        .unwrap_or("Always");
    policy != "Never"
}

fn by_policy(policy: &str, exit_code: i32) -> Option<bool> {
    match policy {
        "Always" => Some(true),
        "OnFailure" => Some(exit_code != 0),
        "Never" => Some(false),
        _ => None,
    }
}

/// `RestartAllContainers` is treated as a restart of the container that exited.
fn matching_rule_restarts(container: &Container, exit_code: i32) -> bool {
    container
        .restart_policy_rules
        .iter()
        .flatten()
        .find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
                match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            })
        })
        .is_some_and(|rule| matches!(rule.action.as_str(), "Restart" | "RestartAllContainers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json;

    fn container(json: &str) -> Container {
        serde_json::from_str(json).expect("a container")
    }

    fn pod(policy: &str) -> PodSpec {
        PodSpec {
            restart_policy: Some(policy.into()),
            ..PodSpec::default()
        }
    }

    #[test]
    fn pod_policy_decides_without_own_policy() {
        let plain = container(r#"{"name":"c"}"#);
        for (policy, zero, failed) in [
            ("Always", true, true),
            ("OnFailure", false, true),
            ("Never", false, false),
        ] {
            assert_eq!(should_restart(&plain, &pod(policy), 0), zero, "{policy} 0");
            assert_eq!(should_restart(&plain, &pod(policy), 1), failed, "{policy} 1");
        }
    }

    #[test]
    fn rules_come_before_the_own_policy() {
        let ruled = container(
            r#"{"name":"c","restartPolicy":"Never","restartPolicyRules":[
                {"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]}"#,
        );
        assert!(should_restart(&ruled, &pod("Never"), 42));
        assert!(!should_restart(&ruled, &pod("Always"), 1));
        assert!(!restarts_after_probe_failure(&ruled, &pod("Always")));
    }
}
