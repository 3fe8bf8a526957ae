//! Advice about the ports of a pod, which its containers share.

use super::all_containers;
use crate::access::Read;
use crate::at::At;
use coracle_meta::FieldPath;
use std::collections::HashMap;

pub(super) fn warn(spec: &At<'_>, warnings: &mut Vec<String>) {
    let ports: Vec<At<'_>> = all_containers(spec)
        .flat_map(|container| container.each("ports"))
        .collect();
    overlaps(&ports, warnings);
    duplicate_names(&ports, warnings);
}

fn overlaps<'a>(ports: &[At<'a>], warnings: &mut Vec<String>) {
    let mut seen: HashMap<(i64, &'a str), Vec<&At<'a>>> = HashMap::new();
    for port in ports {
        let (host_ip, host_port) = host(port);
        if !host_ip.is_empty() && host_port == 0 {
            warnings.push(format!(
                "{}: hostIP set without hostPort: {}",
                port.path,
                printed(port)
            ));
        }
        let number = port.int("containerPort").unwrap_or_default();
        let others = seen.entry((number, port.value().text("protocol"))).or_default();
        for other in others.iter() {
            let (other_ip, other_port) = host(other);
            let what = if (host_ip, host_port) == (other_ip, other_port) {
                "duplicate"
            } else if host_port == 0 || other_port == 0 {
                "overlapping"
            } else if host_port == other_port && host_ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            warnings.push(format!(
                "{}: {what} port definition with {}",
                port.path, other.path
            ));
        }
        others.push(port);
    }
}

fn host<'a>(port: &At<'a>) -> (&'a str, i64) {
    let number = port.int("hostPort").unwrap_or_default();
    (port.value().text("hostIP"), number)
}

/// The port as Go prints a struct.
fn printed(port: &At<'_>) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        port.text("name"),
        port.int("hostPort").unwrap_or_default(),
        port.int("containerPort").unwrap_or_default(),
        port.text("protocol"),
        port.text("hostIP"),
    )
}

fn duplicate_names<'a>(ports: &'a [At<'a>], warnings: &mut Vec<String>) {
    let mut first: HashMap<&str, &FieldPath> = HashMap::new();
    for port in ports {
        let name = port.value().text("name");
        if name.is_empty() {
            continue;
        }
        if let Some(other) = first.get(name) {
            warnings.push(format!(
                "{}: duplicate port name {name:?} with {other}, services and probes that select ports by name will \
                 use {other}",
                port.path
            ));
        } else {
            first.insert(name, &port.path);
        }
    }
}
