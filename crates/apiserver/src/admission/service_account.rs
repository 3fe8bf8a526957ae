//! Every pod runs as a service account of its namespace and finds that account's token in a volume.
//! Upstream: `plugin/pkg/admission/serviceaccount`.
//!
//! The account `default` of a new namespace is made by its controller. Upstream waits for it up to two seconds;
//! here a pod that is quicker is let in as it will be, since the account can only come to exist.

use super::{created, forbidden, items};
use crate::plugin::{Admission, AdmissionRequest, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use rand::Rng;
use serde_json::{Value, json};

/// See the file's head.
pub struct ServiceAccount;

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Pods that a node makes from its own files have no account: nobody could make its token for them.
const MIRROR: &str = "kubernetes.io/config.mirror";

impl Admission for ServiceAccount {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let namespace = request.attributes.namespace.clone();
        let Some(pod) = created(request, "", "pods") else {
            return Ok(());
        };
        if pod.annotation(MIRROR).is_some() {
            return self.admit_mirror(request);
        }
        let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
            return Ok(());
        };
        let named = spec
            .str_at(&["serviceAccountName"])
            .filter(|name| !name.is_empty());
        let name = named.unwrap_or(DEFAULT).to_owned();
        // `serviceAccount` is the old name of the same field, and both are always there.
        spec["serviceAccountName"] = name.clone().into();
        spec["serviceAccount"] = name.clone().into();

        let account = reader.get(&GroupResource::new("", "serviceaccounts"), &namespace, &name);
        if account.is_none() && name != DEFAULT {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            return Err(forbidden(request, why));
        }
        let account = account.unwrap_or(Value::Null);
        let wanted = |object: &Value| {
            object
                .get("automountServiceAccountToken")
                .and_then(Value::as_bool)
        };
        if wanted(spec).or(wanted(&account)).unwrap_or(true) {
            mount_token(spec);
        }
        if items(spec, &["imagePullSecrets"]).next().is_none()
            && let Some(secrets) = account.get("imagePullSecrets")
        {
            spec["imagePullSecrets"] = secrets.clone();
        }
        Ok(())
    }
}

impl ServiceAccount {
    fn admit_mirror(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let pod = request.object.as_deref().unwrap_or(&Value::Null);
        if !pod
            .str_at(&["spec", "serviceAccountName"])
            .unwrap_or_default()
            .is_empty()
        {
            return Err(forbidden(
                request,
                "a mirror pod may not reference service accounts",
            ));
        }
        let volumes = || items(pod, &["spec", "volumes"]);
        if volumes().any(|volume| volume.get("secret").is_some()) {
            return Err(forbidden(request, "a mirror pod may not reference secrets"));
        }
        let has_token = |volume: &Value| {
            items(volume, &["projected", "sources"]).any(|source| source.get("serviceAccountToken").is_some())
        };
        if volumes().any(has_token) {
            let why = "a mirror pod may not use ServiceAccountToken volume projections";
            return Err(forbidden(request, why));
        }
        Ok(())
    }
}

fn is_token_volume(volume: &Value) -> bool {
    volume
        .str_at(&["name"])
        .is_some_and(|name| name.starts_with(VOLUME_PREFIX))
}

/// Mounts the token in every container that has nothing at its path, and adds the volume if one of them needs it.
fn mount_token(spec: &mut Value) {
    let existing = items(spec, &["volumes"]).find(|volume| is_token_volume(volume));
    let existing = existing
        .and_then(|volume| volume.str_at(&["name"]))
        .map(str::to_owned);
    let name = existing.clone().unwrap_or_else(random_name);
    let mut needed = false;
    for key in ["initContainers", "containers"] {
        for container in spec
            .get_mut(key)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if items(container, &["volumeMounts"]).any(|m| m.str_at(&["mountPath"]) == Some(MOUNT_PATH)) {
                continue;
            }
            needed = true;
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            push(container, "volumeMounts", mount);
        }
    }
    if needed && existing.is_none() {
        push(spec, "volumes", token_volume(&name));
    }
}

fn push(object: &mut Value, key: &str, item: Value) {
    match object.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => object[key] = json!([item]),
    }
}

/// Upstream: `names.SimpleNameGenerator`: five letters and digits that spell nothing.
fn random_name() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let suffix = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    VOLUME_PREFIX.chars().chain(suffix).collect()
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{
                    "path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    })
}
