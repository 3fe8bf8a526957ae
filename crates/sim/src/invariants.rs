//! What must hold: some of it always, the rest once everybody has done what there was to do.

use crate::api::Api;
use crate::node::{INSIDE, Node, OUTSIDE};
use crate::users::{NAMESPACES, SERVICES};
use crate::world::World;
use coracle_controllers::service_diagnosis;
use coracle_dataplane::Protocol;
use coracle_dataplane::fake_kernel::Outcome;
use coracle_meta::object::ObjectExt;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// No two Services have the same address or the same port of the nodes.
pub fn allocations(api: &Api) -> Result<(), String> {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for service in api.list::<Service>() {
        let name = format!("{}/{}", service.namespace(), service.name());
        let mut held: BTreeSet<String> = BTreeSet::new();
        held.extend(cluster_ip(service).map(|ip| format!("address {ip}")));
        for port in ports(service) {
            held.extend(port["nodePort"].as_i64().map(|port| format!("node port {port}")));
        }
        for what in held {
            if let Some(other) = taken.insert(what.clone(), name.clone()) {
                return Err(format!("{what} is of Service {other} and of {name}"));
            }
        }
    }
    Ok(())
}

/// The most replicas that each ReplicaSet was ever told to keep, by uid.
pub type MostReplicas = BTreeMap<String, usize>;

/// A ReplicaSet never makes more Pods than it was told to keep: its controller knows what it has made, however late
/// watches are.
pub fn replicas(api: &Api, most: &mut MostReplicas) -> Result<(), String> {
    let mut active: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in api
        .list::<Pod>()
        .filter(|pod| !pod.is_terminating() && pod["status"]["phase"] != "Failed")
    {
        let owner = pod["metadata"]["ownerReferences"][0]["uid"].as_str();
        *active.entry(owner.unwrap_or_default()).or_default() += 1;
    }
    for set in api.list::<ReplicaSet>() {
        let told = set["spec"]["replicas"]
            .as_u64()
            .and_then(|told| usize::try_from(told).ok());
        let most = most.entry(set.uid().to_owned()).or_default();
        *most = told.unwrap_or(1).max(*most);
        let has = active.get(set.uid()).copied().unwrap_or_default();
        if has > *most {
            return Err(format!(
                "ReplicaSet {} has made {has} Pods, and never should have more than {most}",
                set.name()
            ));
        }
    }
    Ok(())
}

/// Everything else.
pub fn at_rest(world: &World) -> Result<(), String> {
    let failing = world.manager.failing();
    if !failing.is_empty() {
        return Err(format!("at rest, but {}", failing.join(", ")));
    }
    ip_addresses(&world.api)?;
    for service in world.api.list::<Service>() {
        diagnosis(&world.api, service)?;
        slices(&world.api, service)?;
    }
    for node in world.nodes.iter().filter(|node| node.is_up) {
        let (has, wants) = (node.frontends(), node.frontends_from_nothing(&world.api));
        if has != wants {
            return Err(format!(
                "{}: the kernel knows {has:?} and not {wants:?}",
                node.name
            ));
        }
        for service in world.api.list::<Service>() {
            packets(&world.api, node, service)?;
        }
        for namespace in NAMESPACES {
            for service in SERVICES {
                names(&world.api, node, namespace, service)?;
            }
        }
    }
    Ok(())
}

/// The addresses of Services and the objects that say so are the same.
fn ip_addresses(api: &Api) -> Result<(), String> {
    let held: BTreeMap<String, String> = api
        .list::<Service>()
        .filter_map(|service| Some((cluster_ip(service)?.to_string(), service.name().to_owned())))
        .collect();
    let objects: BTreeMap<String, String> = api
        .list::<IPAddress>()
        .map(|object| {
            let parent = object.str_at(&["spec", "parentRef", "name"]).unwrap_or_default();
            (object.name().to_owned(), parent.to_owned())
        })
        .collect();
    if held == objects {
        return Ok(());
    }
    Err(format!("Services hold {held:?}, the IPAddresses say {objects:?}"))
}

/// So few endpoints fit into one slice.
fn slices(api: &Api, service: &Value) -> Result<(), String> {
    let of = |slice: &&Value| {
        slice.namespace() == service.namespace()
            && slice.label("kubernetes.io/service-name") == Some(service.name())
    };
    let count = api.list::<EndpointSlice>().filter(of).count();
    if count == 1 {
        return Ok(());
    }
    Err(format!(
        "Service {}/{} has {count} EndpointSlices",
        service.namespace(),
        service.name()
    ))
}

/// Nobody is told of a Service that answers on all its ports, and everybody of one that never can.
fn diagnosis(api: &Api, service: &Value) -> Result<(), String> {
    let conditions = service["status"]["conditions"].as_array();
    let told = conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == service_diagnosis::CONDITION)
    });
    let all = ports(service).all(|port| !endpoints(api, service, port).is_empty());
    if all && told {
        return Err(format!(
            "Service {} answers and is complained about",
            service.name()
        ));
    }
    Ok(())
}

/// New connections go to every ready endpoint and nowhere else.
fn packets(api: &Api, node: &Node, service: &Value) -> Result<(), String> {
    let is_local = service["spec"]["internalTrafficPolicy"] == "Local";
    for port in ports(service) {
        let number = |field: &str| port[field].as_u64().and_then(|port| u16::try_from(port).ok());
        let all = endpoints(api, service, port);
        let targets = |pods: &[(SocketAddr, String)], only_here: bool| -> BTreeSet<SocketAddr> {
            let here = pods.iter().filter(|(_, on)| !only_here || *on == node.name);
            here.map(|(target, _)| *target).collect()
        };
        let check = |source: &str, to: SocketAddr, wanted: &BTreeSet<SocketAddr>| {
            let outcomes = node.connect(source, to, Protocol::Tcp);
            let mut got = BTreeSet::new();
            let mut is_refused = false;
            for outcome in &outcomes {
                match outcome {
                    Outcome::Sent { to, .. } => {
                        got.insert(*to);
                    }
                    Outcome::Refused | Outcome::Dropped => is_refused = true,
                    // There are no NetworkPolicies in the simulation.
                    Outcome::Untouched | Outcome::Lost | Outcome::Denied(_) => {
                        return Err(format!("{outcome:?}"));
                    }
                }
            }
            if got == *wanted && is_refused == wanted.is_empty() {
                return Ok(());
            }
            Err(format!("{outcomes:?} and not {wanted:?}"))
        };
        let tell = |to: SocketAddr| {
            let name = format!("{}/{}", service.namespace(), service.name());
            move |what: String| {
                format!(
                    "at rest, on {}, a packet to {to} of Service {name} meets {what}",
                    node.name
                )
            }
        };
        if let (Some(ip), Some(port)) = (cluster_ip(service), number("port")) {
            let to = SocketAddr::new(ip, port);
            check(INSIDE, to, &targets(&all, is_local)).map_err(tell(to))?;
        }
        if let Some(port) = number("nodePort") {
            let to = SocketAddr::new(node.address, port);
            check(OUTSIDE, to, &targets(&all, false)).map_err(tell(to))?;
        }
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        for ip in ingress
            .into_iter()
            .flatten()
            .filter_map(|ingress| ingress["ip"].as_str())
        {
            if let (Ok(ip), Some(port)) = (ip.parse::<IpAddr>(), number("port")) {
                let to = SocketAddr::new(ip, port);
                check(OUTSIDE, to, &targets(&all, false)).map_err(tell(to))?;
            }
        }
    }
    Ok(())
}

/// The DNS has the address of a Service, or those of its ready Pods; and none of what is gone.
fn names(api: &Api, node: &Node, namespace: &str, name: &str) -> Result<(), String> {
    let service = api.get::<Service>(namespace, name);
    let wanted: BTreeSet<IpAddr> = match service {
        None => BTreeSet::new(),
        Some(service) => match cluster_ip(service) {
            Some(ip) => [ip].into(),
            None => ready_pods(api, service).map(|(ip, _)| ip).collect(),
        },
    };
    let text = format!("{name}.{namespace}.svc.cluster.local.");
    let mut query = Message::query();
    query.add_query(Query::query(
        Name::from_ascii(&text).expect("a name"),
        RecordType::A,
    ));
    let query = query.to_vec().expect("a query is short");
    let answer = node
        .resolve(&query)
        .ok_or_else(|| format!("{}: no answer about {text}", node.name))?;
    let answer = Message::from_vec(&answer).map_err(|error| format!("{}: {text}: {error}", node.name))?;
    let got: BTreeSet<IpAddr> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            _ => None,
        })
        .collect();
    if got == wanted {
        return Ok(());
    }
    Err(format!(
        "at rest, the DNS of {} says {got:?} for {text} and not {wanted:?}",
        node.name
    ))
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

fn cluster_ip(service: &Value) -> Option<IpAddr> {
    service.str_at(&["spec", "clusterIP"])?.parse().ok()
}

/// The Pods that a Service selects and that take connections.
fn ready_pods<'a>(api: &'a Api, service: &'a Value) -> impl Iterator<Item = (IpAddr, &'a Value)> {
    let selector = service["spec"]["selector"].as_object();
    let selects = move |pod: &Value| {
        let mut terms = selector.into_iter().flatten();
        terms.all(|(key, value)| pod.label(key) == value.as_str())
    };
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    api.list::<Pod>()
        .filter(move |pod| pod.namespace() == service.namespace() && selects(pod))
        .filter(move |pod| is_ready(pod) && !pod.is_terminating())
        .filter_map(|pod| Some((pod.str_at(&["status", "podIP"])?.parse().ok()?, pod)))
}

/// Where a port of a Service leads, and on which node that is.
fn endpoints(api: &Api, service: &Value, port: &Value) -> Vec<(SocketAddr, String)> {
    let number = |pod: &Value| -> Option<u16> {
        let target = &port["targetPort"];
        let number = match target.as_str() {
            None => target.as_u64()?,
            Some(name) => {
                let ports = pod["spec"]["containers"][0]["ports"].as_array()?;
                ports.iter().find(|port| port["name"] == name)?["containerPort"].as_u64()?
            }
        };
        u16::try_from(number).ok()
    };
    let pods = ready_pods(api, service);
    pods.filter_map(|(ip, pod)| {
        let node = pod.str_at(&["spec", "nodeName"])?.to_owned();
        Some((SocketAddr::new(ip, number(pod)?), node))
    })
    .collect()
}
