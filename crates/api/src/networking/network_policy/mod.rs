//! NetworkPolicy. Upstream: `pkg/apis/networking`, `pkg/registry/networking/networkpolicy`.

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::{pod_spec, service};
use crate::label_selector;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, label_selector as selector_text, text};
use crate::warnings::cidr;
use coracle_meta::FieldError;
use coracle_meta::object::ObjectExt;
use ipnet::IpNet;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Pod-Selector"), AGE],
        cells: |policy, now| {
            let selector = selector_text(policy.sub("spec").sub("podSelector"));
            vec![policy.name().into(), selector, age(policy, now)]
        },
    },
    default,
    check,
    warnings,
    ..Kind::new(Facts {
        status: false,
        ..Facts::NAMESPACED
    })
};

fn default(policy: &mut Value) {
    let spec = policy.object("spec");
    spec.object("podSelector");
    if spec.list("policyTypes").is_empty() {
        let types = if spec.list("egress").is_empty() {
            json!(["Ingress"])
        } else {
            json!(["Ingress", "Egress"])
        };
        spec.put("policyTypes", types);
    }
    for list in ["ingress", "egress"] {
        for rule in spec.items(list) {
            for port in rule.items("ports") {
                port.fill("protocol", "TCP");
            }
        }
    }
}

fn warnings(policy: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = At::top(policy, "spec");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for peer in spec.each(rules).flat_map(|rule| rule.each(peers)) {
            let block = peer.child("ipBlock");
            cidr(&block.child("cidr"), &mut warnings);
            for except in block.each("except") {
                cidr(&except, &mut warnings);
            }
        }
    }
    warnings
}

fn check(policy: &Value, errors: &mut Errors) {
    let spec = At::top(policy, "spec");
    label_selector::validate(&spec.child("podSelector"), errors);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.each(list) {
            for port in rule.each("ports") {
                validate_port(&port, errors);
            }
            for peer in rule.each(peers) {
                validate_peer(&peer, errors);
            }
        }
    }
    if spec.list("policyTypes").len() > 2 {
        let types = spec.child("policyTypes");
        errors.push(types.invalid("may not specify more than two policyTypes"));
        return;
    }
    for kind in spec.each("policyTypes") {
        kind.one_of(&["Egress", "Ingress"], errors);
    }
}

fn validate_port(port: &At<'_>, errors: &mut Errors) {
    if let Some(protocol) = port.present("protocol") {
        protocol.one_of(&["SCTP", "TCP", "UDP"], errors);
    }
    let (start, end) = (port.child("port"), port.child("endPort"));
    match start.value() {
        Value::Null => {
            if !end.is_null() {
                errors.push(end.invalid("may not be specified when `port` is not specified"));
            }
        }
        Value::String(_) => {
            if !end.is_null() {
                errors.push(end.invalid("may not be specified when `port` is non-numeric"));
            }
            pod_spec::validate_port(&start, errors);
        }
        number => {
            pod_spec::validate_port(&start, errors);
            if end.as_i64().is_some_and(|end| Some(end) < number.as_i64()) {
                let detail = "must be greater than or equal to `port`";
                errors.push(FieldError::invalid(&end.path, number.clone(), detail));
            }
            port.range("endPort", 1, 65535, errors);
        }
    }
}

fn validate_peer(peer: &At<'_>, errors: &mut Errors) {
    let mut count = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.present(key) {
            count += 1;
            label_selector::validate(&selector, errors);
        }
    }
    if let Some(block) = peer.present("ipBlock") {
        count += 1;
        validate_ip_block(&block, errors);
        if count > 1 {
            errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
        }
    }
    if count == 0 {
        errors.push(peer.required("must specify a peer"));
    }
}

fn validate_ip_block(block: &At<'_>, errors: &mut Errors) {
    if !block.require("cidr", errors) {
        return;
    }
    let text = block.text("cidr");
    service::validate_cidr(&block.path.child("cidr"), text, errors);
    let Ok(net) = text.parse::<IpNet>() else { return };
    for except in block.each("except") {
        service::validate_cidr(&except.path, except.as_text(), errors);
        if let Ok(inner) = except.as_text().parse::<IpNet>()
            && (!net.contains(&inner) || net.prefix_len() >= inner.prefix_len())
        {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}
