//! Defaults of pod specs and templates. Upstream: `pkg/apis/core/v1/defaults.go` and its generated callers.

use super::image;
use crate::access::{Read, Write};
use crate::core::resource_list as resources;
use serde_json::{Value, json};

/// Defaults of a pod template in `holder.template`.
pub(crate) fn default_template(template: &mut Value) {
    template.object("metadata");
    default_pod_spec(template.object("spec"));
}

/// Defaults of a pod spec wherever it stands; what holds for pods alone is in `core/pod`.
pub(crate) fn default_pod_spec(spec: &mut Value) {
    spec.fill_text("dnsPolicy", "ClusterFirst");
    spec.fill_text("restartPolicy", "Always");
    spec.object("securityContext");
    spec.fill("terminationGracePeriodSeconds", 30);
    spec.fill_text("schedulerName", "default-scheduler");
    sync_service_account(spec);
    for volume in spec.items("volumes") {
        default_volume(volume);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(list) {
            default_container(container);
        }
    }
    if let Some(overhead) = spec.existing("overhead") {
        resources::default_list(overhead);
    }
    if let Some(pod_resources) = spec.existing("resources") {
        resources::default_requirements(pod_resources);
    }
}

/// The old name of `serviceAccountName` follows the new one, and fills it when it stands alone.
/// Upstream: the conversions of `pkg/apis/core/v1/conversion.go`.
fn sync_service_account(spec: &mut Value) {
    let name = match (spec.text("serviceAccountName"), spec.text("serviceAccount")) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    spec.put("serviceAccountName", name.clone());
    spec.put("serviceAccount", name);
}

fn default_container(container: &mut Value) {
    if container.text("imagePullPolicy").is_empty() {
        let policy = pull_policy(container.text("image"));
        container.put("imagePullPolicy", policy);
    }
    container.fill_text("terminationMessagePath", "/dev/termination-log");
    container.fill_text("terminationMessagePolicy", "File");
    resources::default_requirements(container.object("resources"));
    for port in container.items("ports") {
        port.fill_text("protocol", "TCP");
    }
    for env in container.items("env") {
        let Some(from) = env.existing("valueFrom") else {
            continue;
        };
        if let Some(field) = from.existing("fieldRef") {
            field.fill_text("apiVersion", "v1");
        }
        if let Some(file) = from.existing("fileKeyRef") {
            file.fill("optional", false);
        }
        if let Some(resource) = from.existing("resourceFieldRef") {
            resource.fill("divisor", "0");
            resources::canonicalize_field(resource, "divisor");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.existing(probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = container.existing("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(http) = lifecycle.existing(hook).and_then(|hook| hook.existing("httpGet")) {
                default_http_get(http);
            }
        }
    }
}

fn pull_policy(image: &str) -> &'static str {
    if image::tag(image) == "latest" {
        "Always"
    } else {
        "IfNotPresent"
    }
}

fn default_probe(probe: &mut Value) {
    probe.fill_zero("timeoutSeconds", 1);
    probe.fill_zero("periodSeconds", 10);
    probe.fill_zero("successThreshold", 1);
    probe.fill_zero("failureThreshold", 3);
    if let Some(http) = probe.existing("httpGet") {
        default_http_get(http);
    }
    if let Some(grpc) = probe.existing("grpc") {
        grpc.fill("service", "");
    }
}

fn default_http_get(http: &mut Value) {
    http.fill_text("path", "/");
    http.fill_text("scheme", "HTTP");
}

/// Every volume source that carries a mode of the files it makes.
const MODE_SOURCES: &[&str] = &["secret", "configMap", "downwardAPI", "projected"];

fn default_volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|fields| {
        fields
            .iter()
            .any(|(key, value)| key != "name" && !value.is_null())
    });
    if !has_source {
        volume.put("emptyDir", json!({}));
    }
    if let Some(empty) = volume.existing("emptyDir") {
        resources::canonicalize_field(empty, "sizeLimit");
    }
    if let Some(image) = volume.existing("image")
        && image.text("pullPolicy").is_empty()
    {
        let policy = pull_policy(image.text("reference"));
        image.put("pullPolicy", policy);
    }
    for source in MODE_SOURCES {
        if let Some(source) = volume.existing(source) {
            source.fill("defaultMode", 0o644);
        }
    }
    if let Some(downward) = volume.existing("downwardAPI") {
        default_downward_items(downward);
    }
    if let Some(projected) = volume.existing("projected") {
        for source in projected.items("sources") {
            if let Some(downward) = source.existing("downwardAPI") {
                default_downward_items(downward);
            }
            if let Some(token) = source.existing("serviceAccountToken") {
                token.fill("expirationSeconds", 3600);
            }
        }
    }
    if let Some(host_path) = volume.existing("hostPath") {
        host_path.fill("type", "");
    }
    if let Some(claim) = volume
        .existing("ephemeral")
        .and_then(|ephemeral| ephemeral.existing("volumeClaimTemplate"))
    {
        default_persistent_volume_claim_spec(claim.object("spec"));
    }
    default_network_volume(volume);
}

fn default_downward_items(source: &mut Value) {
    for item in source.items("items") {
        if let Some(field) = item.existing("fieldRef") {
            field.fill_text("apiVersion", "v1");
        }
        if let Some(resource) = item.existing("resourceFieldRef") {
            resource.fill("divisor", "0");
            resources::canonicalize_field(resource, "divisor");
        }
    }
}

/// Volume sources of storage systems; persistent volumes have them too.
pub(crate) fn default_network_volume(source: &mut Value) {
    if let Some(iscsi) = source.existing("iscsi") {
        iscsi.fill_text("iscsiInterface", "default");
    }
    if let Some(rbd) = source.existing("rbd") {
        rbd.fill_text("pool", "rbd");
        rbd.fill_text("user", "admin");
        rbd.fill_text("keyring", "/etc/ceph/keyring");
    }
    if let Some(azure) = source.existing("azureDisk") {
        azure.fill("cachingMode", "ReadWrite");
        azure.fill("fsType", "ext4");
        azure.fill("readOnly", false);
        azure.fill("kind", "Shared");
    }
    if let Some(scale_io) = source.existing("scaleIO") {
        scale_io.fill_text("storageMode", "ThinProvisioned");
        scale_io.fill_text("fsType", "xfs");
    }
}

/// Defaults of the spec of a claim, also of the templates of claims.
pub(crate) fn default_persistent_volume_claim_spec(spec: &mut Value) {
    spec.fill("volumeMode", "Filesystem");
    resources::default_requirements(spec.object("resources"));
}
