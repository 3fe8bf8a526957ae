//! The IPAddress object of every cluster IP. Upstream: `networking.k8s.io/v1` IPAddress (KEP-1880) and
//! `pkg/registry/core/service/ipallocator/controller`.
//!
//! Upstream allocates by creating the object. Here the allocator decides, and the objects follow: one task writes
//! them in the order of the decisions, and at start makes them agree with the stored Services.

use super::ip_allocator::IpFamily;
use super::spec::ServiceSpec;
use crate::bootstrap::call;
use crate::plugin::Reader;
use crate::request::Body;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use tokio::sync::mpsc;

const PATH: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";

/// An address was given to a Service or has come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpChange {
    /// A Service has it.
    Allocated {
        /// The address.
        ip: IpAddr,
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
    },
    /// No Service has it.
    Released(IpAddr),
}

impl IpChange {
    /// The Service has this address.
    pub fn allocated(ip: IpAddr, service: &Value) -> Self {
        Self::Allocated {
            ip,
            namespace: service.namespace().to_owned(),
            name: service.name().to_owned(),
        }
    }
}

/// Where an allocator tells of its decisions.
#[derive(Clone)]
pub struct IpChanges(mpsc::UnboundedSender<IpChange>);

impl IpChanges {
    /// The two ends: for the allocator, and for [`keep`].
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<IpChange>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub(super) fn send(&self, changes: impl IntoIterator<Item = IpChange>) {
        for change in changes {
            // Without a keeper, as in tests of the allocator, there are no objects to keep.
            let _ = self.0.send(change);
        }
    }
}

/// What must change so that the IPAddress objects agree with the Services.
pub fn repair(services: &[Value], addresses: &[Value]) -> Vec<IpChange> {
    let mut held: BTreeMap<IpAddr, &Value> = BTreeMap::new();
    for service in services {
        let ips = ServiceSpec::read(service)
            .map(|spec| spec.held_ips())
            .unwrap_or_default();
        for ip in ips {
            held.entry(ip).or_insert(service);
        }
    }
    let mut changes = Vec::new();
    for address in addresses {
        let Ok(ip) = address.name().parse::<IpAddr>() else {
            continue;
        };
        match held.get(&ip) {
            Some(service) if parent_of(address) == (service.namespace(), service.name()) => {
                held.remove(&ip);
            }
            Some(_) => changes.push(IpChange::Released(ip)),
            // Addresses that others have reserved by hand stay.
            None if address.label(MANAGED_BY) == Some(MANAGER) => changes.push(IpChange::Released(ip)),
            None => {}
        }
    }
    changes.extend(
        held.into_iter()
            .map(|(ip, service)| IpChange::allocated(ip, service)),
    );
    changes
}

fn parent_of(address: &Value) -> (&str, &str) {
    let text = |key: &str| address.str_at(&["spec", "parentRef", key]).unwrap_or_default();
    (text("namespace"), text("name"))
}

/// Makes the IPAddress objects agree with the stored Services, then follows the allocator until it is dropped.
/// `send` is the API server's own handler, called as a member of `system:masters`.
pub async fn keep<F, R>(mut changes: mpsc::UnboundedReceiver<IpChange>, reader: &dyn Reader, send: F)
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    let services = reader.list(&GroupResource::new("", "services"), None);
    let addresses = reader.list(&GroupResource::new("networking.k8s.io", "ipaddresses"), None);
    for change in repair(&services, &addresses) {
        write(&change, &send).await;
    }
    while let Some(change) = changes.recv().await {
        write(&change, &send).await;
    }
}

async fn write<F, R>(change: &IpChange, send: &F)
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    let result = match change {
        IpChange::Allocated { ip, namespace, name } => {
            let object = ip_address(*ip, namespace, name);
            call(send, Method::POST, PATH, Some(&object))
                .await
                .map(drop)
                .or_else(ignore(Status::is_already_exists))
        }
        IpChange::Released(ip) => {
            let path = format!("{PATH}/{ip}");
            call(send, Method::DELETE, &path, None)
                .await
                .map(drop)
                .or_else(ignore(Status::is_not_found))
        }
    };
    if let Err(error) = result {
        tracing::warn!(?change, %error, "ip address object not written");
    }
}

fn ignore(expected: fn(&Status) -> bool) -> impl FnOnce(Status) -> Result<(), Status> {
    move |status| if expected(&status) { Ok(()) } else { Err(status) }
}

fn ip_address(ip: IpAddr, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip,
            "labels": {"ipaddress.kubernetes.io/ip-family": IpFamily::of(ip).as_str(), MANAGED_BY: MANAGER},
        },
        "spec": {
            "parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ip: &str) -> Value {
        json!({"metadata": {"namespace": "d", "name": name}, "spec": {"clusterIP": ip, "clusterIPs": [ip]}})
    }

    #[test]
    fn objects_follow_the_services() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let services = [
            service("a", "10.0.0.1"),
            service("b", "10.0.0.2"),
            service("h", "None"),
        ];
        let mut by_hand = ip_address(ip("10.0.0.9"), "x", "y");
        by_hand["metadata"]["labels"] = json!({});
        let addresses = [
            ip_address(ip("10.0.0.1"), "d", "a"),
            ip_address(ip("10.0.0.2"), "d", "stale"),
            ip_address(ip("10.0.0.3"), "d", "gone"),
            by_hand,
        ];
        assert_eq!(
            repair(&services, &addresses),
            [
                IpChange::Released(ip("10.0.0.2")),
                IpChange::Released(ip("10.0.0.3")),
                IpChange::allocated(ip("10.0.0.2"), &services[1]),
            ]
        );
    }
}
