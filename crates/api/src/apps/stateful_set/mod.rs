//! StatefulSet. Upstream: `pkg/apis/apps`, `pkg/registry/apps/statefulset`.

mod validation;

use crate::access::{Read, Write};
use crate::apps::template;
use crate::at::At;
use crate::core::{persistent_volume_claim, pod_spec};
use crate::strategy::{Facts, Kind, NameRule};
use crate::table::{self, AGE, NAME, TableSpec, age, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")],
        cells,
    },
    default,
    prepare_for_create: |set| set.put("status", json!({"replicas": 0, "availableReplicas": 0})),
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings,
    ..Kind::new(Facts {
        name: NameRule::Label,
        ..Facts::NAMESPACED
    })
};

fn default(set: &mut Value) {
    let spec = set.object("spec");
    spec.fill_text("podManagementPolicy", "OrderedReady");
    let strategy = spec.object("updateStrategy");
    if strategy.text("type").is_empty() {
        strategy.put("type", "RollingUpdate");
        strategy.object("rollingUpdate");
    }
    if strategy.text("type") == "RollingUpdate"
        && let Some(rolling) = strategy.existing("rollingUpdate")
    {
        rolling.fill("partition", 0);
    }
    let retention = spec.object("persistentVolumeClaimRetentionPolicy");
    retention.fill_text("whenDeleted", "Retain");
    retention.fill_text("whenScaled", "Retain");
    spec.fill("replicas", 1);
    spec.fill("revisionHistoryLimit", 10);
    pod_spec::default_template(spec.object("template"));
    for claim in spec.items("volumeClaimTemplates") {
        claim.fill_text("apiVersion", "v1");
        claim.fill_text("kind", "PersistentVolumeClaim");
        pod_spec::default_persistent_volume_claim_spec(claim.object("spec"));
        claim.object("status").fill_text("phase", "Pending");
    }
}

fn warnings(set: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = template::warnings(set, old);
    let spec = At::top(set, "spec");
    for claim in spec.each("volumeClaimTemplates") {
        // Upstream leaves out `.spec` on create and writes `.Spec` on update.
        let path = match old {
            None => claim.path.clone(),
            Some(_) => claim.path.child("Spec"),
        };
        persistent_volume_claim::warn_of_spec(&At::new(claim.value().sub("spec"), path), &mut warnings);
    }
    if spec.int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
             recommended"
                .to_owned(),
        );
    }
    warnings
}

fn cells(set: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (set.sub("spec"), set.sub("status"));
    let replicas = spec.int("replicas").unwrap_or_default();
    let ready = status.int("readyReplicas").unwrap_or_default();
    let [names, images] = table::containers(spec.sub("template"));
    vec![
        set.name().into(),
        format!("{ready}/{replicas}").into(),
        age(set, now),
        names,
        images,
    ]
}
