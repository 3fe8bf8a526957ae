//! What a pod may learn about itself: fields (`metadata.labels['app']`, `status.podIP`) and resources
//! (`limits.cpu`). Upstream: `pkg/fieldpath`, `podFieldSelectorRuntimeValue`, `ExtractContainerResourceValue`.

use coracle_meta::quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the node adds to what the pod object says.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The pod's addresses, the primary first.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses, the primary first.
    pub host_ips: &'a [IpAddr],
    /// The node's allocatable resources: the limits of containers without limits.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// The value of a `fieldRef`.
pub fn field(pod: &Pod, path: &str, context: &Context<'_>) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |s: Option<&String>| s.cloned().unwrap_or_default();
    if let Some((map, key)) = subscripted(path) {
        let map = match map {
            "metadata.annotations" => meta.annotations.as_ref(),
            "metadata.labels" => meta.labels.as_ref(),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(text(map.and_then(|m| m.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.podIP" => first(context.pod_ips),
        "status.podIPs" => join(context.pod_ips),
        "status.hostIP" => first(context.host_ips),
        "status.hostIPs" => join(context.host_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(ToString::to_string).unwrap_or_default()
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn subscripted(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?
        .split_once("['")
        .filter(|(map, _)| !map.is_empty())
}

/// `key="value"` lines sorted by key; Rust's escapes equal Go's for what labels may hold.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef` used in `own`: divided by the divisor and rounded up.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    context: &Context<'_>,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref() {
        None | Some("") => own.ok_or_else(|| "a resource of no container".to_owned())?,
        Some(name) => pod
            .spec
            .iter()
            .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
            .find(|c| c.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
    };
    let resources = container.resources.as_ref();
    let (list, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (resources.and_then(|r| r.limits.as_ref()), name),
        Some(("requests", name)) => (resources.and_then(|r| r.requests.as_ref()), name),
        _ => return Err(unsupported(selector)),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported(selector));
    }
    // Upstream compares thousandths for CPU and whole units for the rest, both rounded up.
    let number = |q: &Quantity| {
        let parsed =
            quantity::Quantity::parse(&q.0).map_err(|_| format!("quantity {:?} is malformed", q.0))?;
        Ok::<i64, String>(if name == "cpu" {
            parsed.milli_value()
        } else {
            parsed.value()
        })
    };
    let mut value = list
        .and_then(|l| l.get(name))
        .map(number)
        .transpose()?
        .unwrap_or(0);
    if value == 0 && selector.resource.starts_with("limits.") && !name.starts_with("hugepages-") {
        value = context
            .allocatable
            .get(name)
            .map(number)
            .transpose()?
            .unwrap_or(0);
    }
    let one = if name == "cpu" { 1000 } else { 1 };
    let divisor = selector.divisor.as_ref().map(number).transpose()?;
    let divisor = divisor.filter(|d| *d != 0).unwrap_or(one);
    let quotient = value / divisor;
    Ok((quotient + i64::from(value % divisor > 0)).to_string())
}

fn unsupported(selector: &ResourceFieldSelector) -> String {
    format!("unsupported container resource : {}", selector.resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::{from_value, json};

    #[test]
    fn fields_and_resources() {
        let pod: Pod = from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "say \"hi\""},
                         "annotations": {"x/y": "z"}},
            "spec": {"nodeName": "node", "serviceAccountName": "default", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"memory": "100M"}}},
                {"name": "bare"}]}
        }))
        .expect("a pod");
        let pod_ips = ["10.244.0.7".parse().expect("ip"), "fd00::7".parse().expect("ip")];
        let host_ips = ["192.0.2.10".parse().expect("ip")];
        let allocatable = BTreeMap::from([("cpu".to_owned(), Quantity("2".into()))]);
        let context = Context {
            pod_ips: &pod_ips,
            host_ips: &host_ips,
            allocatable: &allocatable,
        };
        let of = |path: &str| field(&pod, path, &context);
        assert_eq!(of("metadata.labels"), Ok("a=\"say \\\"hi\\\"\"\nb=\"2\"".into()));
        assert_eq!(of("metadata.labels['b']"), Ok("2".into()));
        assert_eq!(of("metadata.annotations['x/y']"), Ok("z".into()));
        assert_eq!(of("metadata.labels['none']"), Ok(String::new()));
        assert_eq!(of("status.podIP"), Ok("10.244.0.7".into()));
        assert_eq!(of("status.podIPs"), Ok("10.244.0.7,fd00::7".into()));
        assert_eq!(of("status.hostIP"), Ok("192.0.2.10".into()));
        assert_eq!(of("spec.nodeName"), Ok("node".into()));
        assert_eq!(of("spec.x"), Err("unsupported fieldPath: spec.x".into()));

        let containers = &pod.spec.as_ref().expect("spec").containers;
        let of = |container: usize, resource_name: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource_name.into(),
                divisor: divisor.map(|d| Quantity(d.into())),
                container_name: None,
            };
            resource(&pod, Some(&containers[container]), &selector, &context)
        };
        assert_eq!(of(0, "limits.cpu", None), Ok("2".into()));
        assert_eq!(of(0, "limits.cpu", Some("1m")), Ok("1500".into()));
        assert_eq!(of(0, "limits.memory", None), Ok("67108864".into()));
        assert_eq!(of(0, "requests.memory", Some("1Mi")), Ok("96".into()));
        assert_eq!(
            of(1, "limits.cpu", None),
            Ok("2".into()),
            "the node's allocatable"
        );
        assert_eq!(of(1, "requests.cpu", None), Ok("0".into()));
        assert!(of(0, "limits.pets", None).is_err());
    }
}
