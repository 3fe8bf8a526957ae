//! CSIDriver. Upstream: `pkg/apis/storage`, `pkg/registry/storage/csidriver`.

use crate::access::{Read, Write};
use crate::at::{At, IMMUTABLE};
use crate::semantic::equal_field;
use crate::strategy::{Errors, Facts, Kind, set_generation};
use crate::table::{AGE, NAME, TableSpec, age, boolean, or_none, text};
use coracle_meta::FieldError;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            boolean("AttachRequired"),
            boolean("PodInfoOnMount"),
            boolean("StorageCapacity"),
            text("TokenRequests"),
            boolean("RequiresRepublish"),
            text("Modes"),
            AGE,
        ],
        cells,
    },
    default,
    prepare_for_update: |driver, old| {
        let same = ["tokenRequests", "requiresRepublish", "seLinuxMount"]
            .iter()
            .all(|key| equal_field(driver.sub("spec"), old.sub("spec"), key));
        if !same {
            set_generation(driver, old.generation() + 1);
        }
    },
    check,
    check_update: Some(check_update),
    warnings,
    ..Kind::new(Facts {
        unconditional_update: false,
        ..Facts::CLUSTER_DATA
    })
};

fn default(driver: &mut Value) {
    let spec = driver.object("spec");
    spec.fill("attachRequired", true);
    spec.fill("podInfoOnMount", false);
    spec.fill("storageCapacity", false);
    spec.fill("fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.put("volumeLifecycleModes", json!(["Persistent"]));
    }
    spec.fill("requiresRepublish", false);
    spec.fill("seLinuxMount", false);
}

fn check(driver: &Value, errors: &mut Errors) {
    let spec = At::top(driver, "spec");
    if let Some(policy) = spec.present("fsGroupPolicy") {
        policy.one_of(&["File", "None", "ReadWriteOnceWithFSType"], errors);
    }
    for mode in spec.each("volumeLifecycleModes") {
        let list = At::new(mode.value(), spec.path.child("volumeLifecycleModes"));
        list.one_of(&["Ephemeral", "Persistent"], errors);
    }
    let mut audiences = Vec::new();
    for request in spec.each("tokenRequests") {
        let audience = request.value().text("audience");
        if audiences.contains(&audience) {
            errors.push(request.child("audience").duplicate());
            continue;
        }
        audiences.push(audience);
        let expiration = request.child("expirationSeconds");
        let seconds = expiration.as_i64();
        if seconds.is_some_and(|seconds| seconds < 600) {
            errors.push(expiration.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.is_some_and(|seconds| seconds > 1 << 32) {
            errors.push(expiration.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
}

fn check_update(driver: &Value, old: &Value, errors: &mut Errors) {
    check(driver, errors);
    let spec = At::top(driver, "spec");
    // Upstream misspells the first path.
    for (key, shown) in [
        ("attachRequired", "attachedRequired"),
        ("volumeLifecycleModes", "volumeLifecycleModes"),
    ] {
        if !equal_field(&spec, old.sub("spec"), key) {
            let value = spec.sub(key).clone();
            errors.push(FieldError::invalid(&spec.path.child(shown), value, IMMUTABLE));
        }
    }
}

/// Tokens for a driver should reach it where they are not logged.
fn warnings(driver: &Value, old: Option<&Value>) -> Vec<String> {
    let spec = driver.sub("spec");
    let same = old.is_some_and(|old| equal_field(spec, old.sub("spec"), "tokenRequests"));
    if same || spec.list("tokenRequests").is_empty() || spec.has("serviceAccountTokenInSecrets") {
        return Vec::new();
    }
    vec![
        "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible \
         logging of tokens in volume attributes"
            .to_owned(),
    ]
}

fn cells(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = driver.sub("spec");
    let requests = if spec.has("tokenRequests") {
        let requests = spec.list("tokenRequests").iter();
        let audiences: Vec<&str> = requests.map(|request| request.text("audience")).collect();
        audiences.join(",")
    } else {
        "<unset>".to_owned()
    };
    vec![
        driver.name().into(),
        (spec.sub("attachRequired") != false).into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        requests.into(),
        spec.flag("requiresRepublish").into(),
        or_none(&spec.texts("volumeLifecycleModes").join(",")),
        age(driver, now),
    ]
}
