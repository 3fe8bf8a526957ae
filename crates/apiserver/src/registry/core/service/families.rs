//! `ipFamilies`, `ipFamilyPolicy` and the agreement of `clusterIP` with `clusterIPs`.
//! Upstream: `initIPFamilyFields`, `normalizeClusterIPs`, `ValidateServiceClusterIPsRelatedFields`.

use super::ip_allocator::IpFamily;
use super::spec::{NONE, ServiceSpec};
use coracle_meta::{FieldError, FieldPath};
use serde_json::Value;
use std::net::IpAddr;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Derives `clusterIPs` from `clusterIP` where a client knows the latter only.
pub fn normalize_cluster_ips(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        if !new.cluster_ip.is_empty() && new.cluster_ips.is_empty() {
            new.cluster_ips = vec![new.cluster_ip.clone()];
        }
        return;
    };
    if new.cluster_ips.is_empty() && old.cluster_ip == new.cluster_ip {
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
    if old.cluster_ip != new.cluster_ip && old.cluster_ips == new.cluster_ips {
        let cleared = !old.cluster_ip.is_empty() && new.cluster_ip.is_empty();
        new.cluster_ips = if cleared {
            Vec::new()
        } else {
            vec![new.cluster_ip.clone()]
        };
    }
}

/// Whether both are `PreferDualStack` with the same addresses and families: such a Service is left as it is, so
/// that a change of the cluster's families does not change it.
pub fn is_settled_prefer_dual_stack(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    new.ip_family_policy == PREFER
        && (old.ip_family_policy.is_empty() || old.ip_family_policy == PREFER)
        && old.kind == new.kind
        && !new.is_external_name()
        && old.cluster_ips == new.cluster_ips
        && old.ip_families == new.ip_families
}

/// Fills in policy and families. `configured` are the cluster's families, the default one first.
pub fn init_ip_family_fields(
    new: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    configured: &[IpFamily],
) -> Result<(), Vec<FieldError>> {
    if new.is_external_name() || old.is_some_and(|old| is_settled_prefer_dual_stack(new, old)) {
        return Ok(());
    }
    if new.ip_family_policy.is_empty() {
        new.ip_family_policy = match old {
            Some(old) if !old.ip_family_policy.is_empty() => old.ip_family_policy.clone(),
            _ if new.is_headless_without_selector() => REQUIRE.to_owned(),
            _ => SINGLE.to_owned(),
        };
    }
    fail(check_cluster_ips(new))?;

    let mut errors = Vec::new();
    if let Some(old) = old {
        follow_policy(new, old, &mut errors);
    }
    if new.ip_family_policy == SINGLE {
        for (count, what) in [
            (new.cluster_ips.len(), "cluster IPs"),
            (new.ip_families.len(), "IP families"),
        ] {
            if count == 2 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                errors.push(policy_error(new, &detail));
            }
        }
    }
    infer_families(new, configured, &mut errors);
    fail(errors)?;

    let default = *configured.first().unwrap_or(&IpFamily::V4);
    if new.is_headless_without_selector() {
        if new.ip_families.is_empty() {
            new.ip_families.push(default.to_string());
        }
        if new.ip_family_policy != SINGLE {
            add_other_family(new);
        }
        return Ok(());
    }

    let mut errors = Vec::new();
    if new.ip_family_policy == REQUIRE && configured.len() < 2 {
        errors.push(policy_error(
            new,
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (i, family) in new.ip_families.iter().enumerate() {
        if !IpFamily::parse(family).is_some_and(|f| configured.contains(&f)) {
            let field = FieldPath::new("spec.ipFamilies").index(i);
            errors.push(FieldError::invalid(
                &field,
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
    fail(errors)?;
    if new.ip_families.is_empty() {
        new.ip_families.push(default.to_string());
    }
    if new.ip_family_policy != SINGLE && configured.len() == 2 {
        add_other_family(new);
    }
    Ok(())
}

fn fail(errors: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn policy_error(spec: &ServiceSpec, detail: &str) -> FieldError {
    FieldError::invalid(
        &FieldPath::new("spec.ipFamilyPolicy"),
        spec.ip_family_policy.as_str(),
        detail,
    )
}

fn ips_error(spec: &ServiceSpec, detail: &str) -> FieldError {
    FieldError::invalid(
        &FieldPath::new("spec.clusterIPs"),
        spec.cluster_ips.clone(),
        detail,
    )
}

fn add_other_family(spec: &mut ServiceSpec) {
    if let (1, Some(only)) = (spec.ip_families.len(), spec.family(0)) {
        spec.ip_families.push(only.other().to_string());
    }
}

/// A change to `SingleStack` drops the second address; any other policy keeps both.
fn follow_policy(new: &mut ServiceSpec, old: &ServiceSpec, errors: &mut Vec<FieldError>) {
    if new.ip_family_policy == SINGLE {
        if old.cluster_ips == new.cluster_ips {
            new.cluster_ips.truncate(1);
        }
        if old.ip_families == new.ip_families {
            new.ip_families.truncate(1);
        }
        return;
    }
    let reduced = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
    if reduced(&new.cluster_ips, &old.cluster_ips) {
        errors.push(policy_error(
            new,
            "must be 'SingleStack' to release the secondary cluster IP",
        ));
    }
    if reduced(&new.ip_families, &old.ip_families) {
        errors.push(policy_error(
            new,
            "must be 'SingleStack' to release the secondary IP family",
        ));
    }
}

/// Families that are not named follow from the addresses.
fn infer_families(new: &mut ServiceSpec, configured: &[IpFamily], errors: &mut Vec<FieldError>) {
    for i in new.ip_families.len()..new.cluster_ips.len() {
        let Ok(address) = new.cluster_ips[i].parse::<IpAddr>() else {
            break;
        };
        let family = IpFamily::of(address);
        if configured.contains(&family) {
            new.ip_families.push(family.to_string());
        } else {
            let field = FieldPath::new("spec.clusterIPs").index(i);
            let detail = format!("{family} is not configured on this cluster");
            errors.push(FieldError::invalid(&field, new.cluster_ips.clone(), &detail));
        }
    }
}

/// Whether the four fields agree with each other.
fn check_cluster_ips(spec: &ServiceSpec) -> Vec<FieldError> {
    let field = FieldPath::new("spec.clusterIPs");
    let mut errors = Vec::new();
    match (spec.cluster_ip.as_str(), spec.cluster_ips.first()) {
        ("", Some(_)) => errors.push(ips_error(spec, "must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(&field, "")),
        (ip, Some(first)) if ip != first => {
            errors.push(ips_error(spec, "first value must match `clusterIP`"))
        }
        _ => {}
    }
    for (i, family) in spec.ip_families.iter().enumerate() {
        let at = FieldPath::new("spec.ipFamilies").index(i);
        if IpFamily::parse(family).is_none() {
            errors.push(FieldError::not_supported(&at, family.as_str(), &["IPv4", "IPv6"]));
        }
        if spec.ip_families[..i].contains(family) {
            errors.push(FieldError::duplicate(&at, family.as_str()));
        }
    }
    if !spec.ip_family_policy.is_empty()
        && ![SINGLE, PREFER, REQUIRE].contains(&spec.ip_family_policy.as_str())
    {
        let at = FieldPath::new("spec.ipFamilyPolicy");
        let policy: Value = spec.ip_family_policy.as_str().into();
        errors.push(FieldError::not_supported(&at, policy, &[SINGLE, PREFER, REQUIRE]));
    }

    let mut malformed = false;
    let mut addresses = Vec::new();
    for (i, ip) in spec.cluster_ips.iter().enumerate() {
        if i == 0 && ip == NONE {
            if spec.cluster_ips.len() > 1 {
                malformed = true;
                errors.push(ips_error(spec, "'None' must be the first and only value"));
            }
            continue;
        }
        match ip.parse::<IpAddr>() {
            Ok(address) => addresses.push(IpFamily::of(address)),
            Err(_) => {
                malformed = true;
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(FieldError::invalid(&field.index(i), ip.as_str(), detail));
            }
        }
    }
    if spec.cluster_ips.len() > 2 {
        errors.push(ips_error(spec, "may only hold up to 2 values"));
    }
    if malformed {
        return errors;
    }
    if addresses.len() > 1 && !(addresses.contains(&IpFamily::V4) && addresses.contains(&IpFamily::V6)) {
        errors.push(ips_error(
            spec,
            "may specify no more than one IP for each IP family",
        ));
    }
    for (i, family) in addresses.iter().enumerate() {
        if let Some(expected) = spec.family(i).filter(|expected| expected != family) {
            let detail = format!("expected an {expected} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(
                &field.index(i),
                spec.cluster_ips[i].as_str(),
                &detail,
            ));
        }
    }
    errors
}
