//! Taints of nodes and tolerations of pods. Upstream: `ToleratesTaint` in `k8s.io/api/core/v1/toleration.go`.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// No new pods.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// No new pods, and those that are there must go.
pub const NO_EXECUTE: &str = "NoExecute";
/// Rather no new pods.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

/// Whether one toleration covers one taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let actual = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => wanted == actual,
        "Exists" => true,
        _ => false,
    }
}

/// Whether a taint keeps new pods away.
pub fn forbids_scheduling(taint: &Taint) -> bool {
    taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE
}

/// The first taint that passes `filter` and that no toleration covers.
pub fn untolerated_taint<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    filter: impl Fn(&Taint) -> bool,
) -> Option<&'a Taint> {
    let mut relevant = taints.iter().filter(|taint| filter(taint));
    relevant.find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn covers(toleration: serde_json::Value, taint: serde_json::Value) -> bool {
        tolerates(
            &serde_json::from_value(toleration).unwrap(),
            &serde_json::from_value(taint).unwrap(),
        )
    }

    #[test]
    fn tolerations_match_as_upstream() {
        let taint = json!({"key": "gpu", "value": "a100", "effect": "NoSchedule"});
        assert!(covers(json!({"operator": "Exists"}), taint.clone()));
        assert!(covers(json!({"key": "gpu", "operator": "Exists"}), taint.clone()));
        assert!(covers(json!({"key": "gpu", "value": "a100"}), taint.clone()));
        assert!(covers(
            json!({"key": "gpu", "value": "a100", "effect": "NoSchedule"}),
            taint.clone()
        ));
        assert!(!covers(json!({"key": "gpu"}), taint.clone()));
        assert!(!covers(
            json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
            taint.clone()
        ));
        assert!(!covers(json!({"key": "other", "operator": "Exists"}), taint));
    }
}
