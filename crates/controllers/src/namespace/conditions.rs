//! What a namespace that is being deleted says about it. Upstream:
//! `pkg/controller/namespace/deletion/status_condition_utils.go`.

use coracle_meta::GroupResource;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is left in a namespace, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remaining {
    resources: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Remaining {
    /// Counts an object.
    pub fn add(&mut self, resource: &GroupResource, finalizers: &[String]) {
        let GroupResource { group, resource } = resource;
        *self.resources.entry(format!("{resource}.{group}")).or_default() += 1;
        for finalizer in finalizers {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// A merge patch of the namespace's status.
    pub fn to_status(&self, now: Timestamp) -> Value {
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, status: bool, reason: &str, message: String| {
            json!({
                "type": kind,
                "status": if status { "True" } else { "False" },
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            })
        };
        let content = if self.resources.is_empty() {
            let message = "All content successfully removed".to_owned();
            condition("NamespaceContentRemaining", false, "ContentRemoved", message)
        } else {
            let list = counted(&self.resources, |name, count| {
                format!("{name} has {count} resource instances")
            });
            let message = format!("Some resources are remaining: {list}");
            condition("NamespaceContentRemaining", true, "SomeResourcesRemain", message)
        };
        let finalizers = if self.finalizers.is_empty() {
            let message = "All content-preserving finalizers finished".to_owned();
            condition(
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                message,
            )
        } else {
            let list = counted(&self.finalizers, |name, count| {
                format!("{name} in {count} resource instances")
            });
            let message = format!("Some content in the namespace has finalizers remaining: {list}");
            condition(
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                message,
            )
        };
        let fine = [
            (
                "NamespaceDeletionDiscoveryFailure",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ];
        let mut conditions: Vec<Value> = fine
            .into_iter()
            .map(|(kind, reason, message)| condition(kind, false, reason, message.to_owned()))
            .collect();
        conditions.extend([content, finalizers]);
        json!({"status": {"conditions": conditions}})
    }
}

fn counted(counts: &BTreeMap<String, usize>, text: impl Fn(&str, usize) -> String) -> String {
    let texts: Vec<String> = counts.iter().map(|(name, count)| text(name, *count)).collect();
    texts.join(", ")
}
