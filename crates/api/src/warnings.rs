//! Advice that fields of several kinds share. Upstream: `pkg/api/node/util.go`, `k8s.io/apimachinery/pkg/util/validation`.

use crate::access::Read;
use crate::at::{At, label};
use crate::core::resource_list::quantity;
use coracle_meta::object::ObjectExt;
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// What upstream says of the node label, if it is one that is no longer to be used.
pub(crate) fn deprecated_node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#,
        "beta.kubernetes.io/os" => r#"deprecated since v1.14; use "kubernetes.io/os" instead"#,
        "failure-domain.beta.kubernetes.io/region" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#
        }
        "beta.kubernetes.io/instance-type" => {
            r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => r#"use "node-role.kubernetes.io/control-plane" instead"#,
        _ => return None,
    })
}

/// The keys of a term of a node selector, or of a label selector, that are deprecated node labels.
pub(crate) fn node_selector_term(term: &At<'_>, warnings: &mut Vec<String>) {
    for expression in term.each("matchExpressions") {
        node_label(&expression.child("key"), warnings);
    }
}

/// The text is a node label that is not deprecated.
pub(crate) fn node_label(key: &At<'_>, warnings: &mut Vec<String>) {
    let text = key.as_text();
    if let Some(message) = deprecated_node_label(text) {
        warnings.push(format!("{}: {text} is {message}", key.path));
    }
}

/// Names of objects become names of hosts; those that are no labels surprise. `used_in` says whose they become.
pub(crate) fn host_name(object: &Value, used_in: &str, warnings: &mut Vec<String>) {
    let reasons = label(object.name());
    if !reasons.is_empty() {
        let reasons = reasons.join(" ");
        warnings.push(format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
             recommended: [{reasons}]"
        ));
    }
}

/// The amount in a list of quantities is a whole number of bytes.
pub(crate) fn fractional_bytes(list: &At<'_>, resource: &str, warnings: &mut Vec<String>) {
    let Some(amount) = quantity(list.sub(resource)) else {
        return;
    };
    if amount.milli_value() % 1000 != 0 {
        warnings.push(format!(
            "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
            list.path.key(resource)
        ));
    }
}

/// The IPv6 address is written in its canonical form.
pub(crate) fn ip(at: &At<'_>, warnings: &mut Vec<String>) {
    if let Ok(IpAddr::V6(ip)) = at.as_text().parse::<IpAddr>() {
        canonical("address", at, &ip.to_string(), warnings);
    }
}

/// The IPv6 network is written in its canonical form.
pub(crate) fn cidr(at: &At<'_>, warnings: &mut Vec<String>) {
    if let Ok(IpNet::V6(net)) = at.as_text().parse::<IpNet>() {
        let text = format!("{}/{}", net.addr(), net.prefix_len());
        canonical("CIDR value", at, &text, warnings);
    }
}

fn canonical(what: &str, at: &At<'_>, canonical: &str, warnings: &mut Vec<String>) {
    let text = at.as_text();
    if text != canonical {
        warnings.push(format!(
            "{}: IPv6 {what} {text:?} should be in RFC 5952 canonical format ({canonical:?})",
            at.path
        ));
    }
}

/// Whether a write is one of those that upstream warns about pod templates on: a create, or an update that
/// changes what is wanted.
pub(crate) fn is_new_generation(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| object.generation() != old.generation())
}
