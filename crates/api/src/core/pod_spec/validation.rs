//! Validation of pod specs and of pod templates. Upstream: `ValidatePodSpec`, `ValidatePodTemplateSpec`.

use super::{containers, scheduling, security_context, volumes};
use crate::access::Read;
use crate::at::{At, label, subdomain};
use crate::core::resource_list;
use crate::object_meta;
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};
use serde_json::Value;

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_MAX: usize = 2048;
const HOSTNAME_OVERRIDE_MAX: usize = 64;

/// What the parts of a pod spec must know of the whole.
pub(super) struct Context<'a> {
    pub volumes: volumes::Volumes<'a>,
    /// Names of `spec.resourceClaims`.
    pub claims: Vec<&'a str>,
    pub grace_period: Option<i64>,
    pub restart_policy: &'a str,
    /// Whether users in the pod are those of the host.
    pub host_users: bool,
}

/// Where a pod spec stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// In a template.
    Template,
    /// In the pod of that name.
    Pod(&'a str),
}

/// What is wrong with a pod spec.
pub(crate) fn validate_pod_spec(spec: &At<'_>, place: Place<'_>, errors: &mut Errors) {
    if !spec.has("terminationGracePeriodSeconds") {
        errors.push(spec.child("terminationGracePeriodSeconds").required(""));
    }
    let pod_name = match place {
        Place::Template => "",
        Place::Pod(name) => name,
    };
    let mut claims: Vec<&str> = spec
        .value()
        .list("resourceClaims")
        .iter()
        .map(|claim| claim.text("name"))
        .collect();
    claims.sort_unstable();
    let context = Context {
        volumes: volumes::validate(spec, pod_name, errors),
        claims,
        grace_period: spec.int("terminationGracePeriodSeconds"),
        restart_policy: spec.value().text("restartPolicy"),
        host_users: spec.sub("hostUsers") != false,
    };
    validate_resource_claims(spec, errors);
    containers::validate(spec, &context, errors);
    containers::validate_init(spec, &context, errors);
    containers::validate_ephemeral(spec, &context, errors);
    if let Some(resources) = spec.present("resources") {
        resource_list::validate_pod_requirements(&resources, errors);
        validate_container_limits(spec, &resources, errors);
    }
    validate_host_network(spec, place, errors);
    spec.require_one_of("restartPolicy", &["Always", "OnFailure", "Never"], errors);
    spec.require_one_of("dnsPolicy", DNS_POLICIES, errors);
    object_meta::labels(&spec.child("nodeSelector"), errors);
    security_context::validate_pod(spec, errors);
    scheduling::validate_affinity(&spec.child("affinity"), errors);
    validate_dns_config(spec, errors);
    scheduling::validate_gates(spec, errors);
    scheduling::validate_spread(spec, errors);
    validate_host_users(spec, &context, errors);
    validate_hostname_override(spec, errors);
    spec.optional_form("serviceAccountName", subdomain, errors);
    spec.optional_form("nodeName", subdomain, errors);
    spec.range("activeDeadlineSeconds", 1, i64::from(i32::MAX), errors);
    spec.optional_form("hostname", label, errors);
    spec.optional_form("subdomain", label, errors);
    scheduling::validate_tolerations(spec, errors);
    for alias in spec.each("hostAliases") {
        alias.child("ip").ip(errors);
        for hostname in alias.each("hostnames") {
            hostname.form(subdomain, errors);
        }
    }
    spec.optional_form("priorityClassName", subdomain, errors);
    if let Some(class) = spec.present("runtimeClassName") {
        class.form(subdomain, errors);
    }
    if spec.has("preemptionPolicy") {
        let allowed = ["PreemptLowerPriority", "Never"];
        spec.require_one_of("preemptionPolicy", &allowed, errors);
    }
    for (name, value) in spec.each_entry("overhead") {
        // Upstream checks overhead as the limits of a container.
        let path = spec.path.child("overhead").child("limits").key(name);
        resource_list::validate_container_name(name, &path, errors);
        resource_list::validate_quantity(name, &At::new(value.value(), path), errors);
    }
    validate_os(spec, errors);
}

/// What is wrong with a pod template: labels, annotations and the spec.
pub(crate) fn validate_template(template: &At<'_>, errors: &mut Errors) {
    // Upstream leaves `metadata` out of these paths.
    let metadata = At::new(template.value().sub("metadata"), template.path.clone());
    object_meta::validate_template(&metadata, errors);
    validate_annotations(&metadata.child("annotations"), &template.child("spec"), errors);
    validate_pod_spec(&template.child("spec"), Place::Template, errors);
    if !template.sub("spec").list("ephemeralContainers").is_empty() {
        let ephemeral = template.child("spec").child("ephemeralContainers");
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// Annotations of pods that mean something to Kubernetes.
pub(crate) fn validate_annotations(annotations: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let path = &annotations.path;
    let mirror = "kubernetes.io/config.mirror";
    if annotations.has(mirror) && spec.text("nodeName").is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        let value = annotations.text(mirror);
        errors.push(FieldError::invalid(&path.key(mirror), value, detail));
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if annotations.has(cost) {
        let value = annotations.text(cost);
        // Upstream refuses a plus sign and zeros in front.
        let is_number = value
            .parse::<i32>()
            .is_ok_and(|number| number.to_string() == value);
        if !is_number {
            let detail = "must be a 32bit integer";
            errors.push(FieldError::invalid(&path.key(cost), value, detail));
        }
    }
}

fn validate_resource_claims(spec: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for claim in spec.each("resourceClaims") {
        let name = claim.value().text("name");
        if !name.is_empty() && seen.contains(&name) {
            errors.push(claim.child("name").duplicate());
        } else {
            claim.require_form("name", label, errors);
            seen.push(name);
        }
        let (direct, template) = (
            claim.present("resourceClaimName"),
            claim.present("resourceClaimTemplateName"),
        );
        match (&direct, &template) {
            (Some(_), Some(_)) => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(claim.invalid(detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(claim.invalid(detail));
            }
            _ => {}
        }
        for reference in [direct, template].into_iter().flatten() {
            reference.form(subdomain, errors);
        }
    }
}

/// No container may have more than the pod, nor all together ask for more.
fn validate_container_limits(spec: &At<'_>, resources: &At<'_>, errors: &mut Errors) {
    for (index, container) in spec.list("containers").iter().enumerate() {
        for (name, value) in container.sub("resources").entries("limits") {
            let of_pod = resources.sub("limits").field(name);
            let (Some(limit), Some(amount)) = (
                of_pod.and_then(resource_list::quantity),
                resource_list::quantity(value),
            ) else {
                continue;
            };
            if amount > limit {
                let path = resources.path.child("containers").index(index);
                let path = path.key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {limit}");
                errors.push(FieldError::invalid(&path, amount.to_string(), &detail));
            }
        }
    }
    for (name, value) in resources.each_entry("requests") {
        let Some(request) = resource_list::quantity(&value) else {
            continue;
        };
        let all = spec
            .list("containers")
            .iter()
            .filter_map(|container| container.sub("resources").sub("requests").field(name))
            .filter_map(resource_list::quantity)
            .reduce(|sum, amount| sum.add(&amount));
        if let Some(all) = all
            && all > request
        {
            let detail = format!("must be greater than or equal to aggregate container requests of {all}");
            errors.push(value.invalid(&detail));
        }
    }
}

fn validate_host_network(spec: &At<'_>, place: Place<'_>, errors: &mut Errors) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for container in spec.each("containers") {
        for port in container.each("ports") {
            let host = port.int("hostPort").unwrap_or_default();
            let inner = port.int("containerPort").unwrap_or_default();
            if (place != Place::Template || host != 0) && host != inner {
                let path = port.path.child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&path, host, detail));
            }
        }
    }
}

fn validate_dns_config(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.child("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if config.list("nameservers").is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(config.child("nameservers").required(detail));
            return;
        }
    }
    let nameservers = config.child("nameservers");
    if config.list("nameservers").len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(nameservers.invalid(&detail));
    }
    for nameserver in config.each("nameservers") {
        nameserver.ip(errors);
    }
    let searches = config.child("searches");
    if config.list("searches").len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(searches.invalid(&detail));
    }
    if config.texts("searches").join(" ").len() > SEARCH_LIST_MAX {
        let detail = format!(
            "must not have more than {SEARCH_LIST_MAX} characters (including spaces) in the search list"
        );
        errors.push(searches.invalid(&detail));
    }
    for search in config.each("searches") {
        let text = search.as_text();
        if text == "." {
            continue;
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        for reason in search_domain(text) {
            errors.push(FieldError::invalid(&search.path, text, &reason));
        }
    }
    for option in config.each("options") {
        if option.text("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

/// A subdomain in which underscores may stand.
fn search_domain(text: &str) -> Vec<String> {
    if names::is_dns1123_subdomain(&text.replace('_', "-")).is_empty()
        || names::is_dns1123_subdomain(&text.replace('_', "a")).is_empty()
    {
        return Vec::new();
    }
    vec![names::regex_error(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and \
         must start and end with an alphanumeric character",
        "[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*",
        &["example.com"],
    )]
}

fn validate_host_users(spec: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    if context.host_users {
        return;
    }
    for (key, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.flag(key) {
            let path = spec.path.child(shown);
            errors.push(FieldError::forbidden(&path, "when `hostUsers` is false"));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.each(list) {
            if !container.list("volumeDevices").is_empty() {
                let devices = container.child("volumeDevices");
                errors.push(devices.forbidden("when `hostUsers` is false"));
            }
        }
    }
}

fn validate_hostname_override(spec: &At<'_>, errors: &mut Errors) {
    let Some(hostname) = spec.present("hostnameOverride") else {
        return;
    };
    if spec.flag("setHostnameAsFQDN") {
        errors.push(hostname.forbidden("may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.flag("hostNetwork") {
        errors.push(hostname.forbidden("may not be specified when hostNetwork is true"));
    }
    if hostname.as_text().len() > HOSTNAME_OVERRIDE_MAX {
        errors.push(FieldError::too_long(&hostname.path, HOSTNAME_OVERRIDE_MAX));
    }
    hostname.form(subdomain, errors);
}

/// Fields that only pods for the other operating system may have. Windows pods are stored, not run.
fn validate_os(spec: &At<'_>, errors: &mut Errors) {
    let Some(os) = spec.present("os") else { return };
    let name = os.child("name");
    match name.as_text() {
        "" => errors.push(name.required("cannot be empty")),
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            for security in security_contexts(spec) {
                if let Some(options) = security.present("windowsOptions") {
                    errors.push(options.forbidden(detail));
                }
            }
        }
        "windows" => forbid_linux_fields(spec, errors),
        _ => errors.push(name.not_supported(&["linux", "windows"])),
    }
}

fn security_contexts<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    let of_containers = ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.each(list))
        .map(|container| container.child("securityContext"));
    std::iter::once(spec.child("securityContext"))
        .chain(of_containers)
        .collect()
}

fn forbid_linux_fields(spec: &At<'_>, errors: &mut Errors) {
    const OF_POD: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
    const OF_SECURITY_CONTEXT: &[&str] = &[
        "allowPrivilegeEscalation",
        "appArmorProfile",
        "capabilities",
        "fsGroup",
        "fsGroupChangePolicy",
        "privileged",
        "procMount",
        "readOnlyRootFilesystem",
        "runAsGroup",
        "runAsUser",
        "seLinuxChangePolicy",
        "seLinuxOptions",
        "seccompProfile",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "sysctls",
    ];
    let mut forbid = |holder: &At<'_>, keys: &[&str]| {
        for key in keys {
            let is_set = holder
                .field(key)
                .is_some_and(|value| *value != Value::Bool(false));
            if is_set {
                errors.push(holder.child(key).forbidden("cannot be set for a windows pod"));
            }
        }
    };
    forbid(spec, OF_POD);
    for security in security_contexts(spec) {
        forbid(&security, OF_SECURITY_CONTEXT);
    }
}
