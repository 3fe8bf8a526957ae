//! Default objects.

use super::*;
use crate::bootstrap::{self, ApiEndpoint};
use crate::registry::core::service::{IpChanges, PortRange, ServiceAllocator};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn what_is_deleted_or_bent_comes_back() {
    let network = "10.96.0.0/12".parse().unwrap();
    let (changes, _unheard) = IpChanges::channel();
    let range = PortRange::default();
    let allocator = ServiceAllocator::new(&[network], range, changes);
    let server = with_config(Config {
        admission: vec![Arc::new(allocator)],
        ..Config::default()
    });
    let endpoint = ApiEndpoint {
        advertised: "192.0.2.1:6443".parse().unwrap(),
        service_networks: vec![network],
        client_ca: String::new(),
    };
    let send = |request| {
        server
            .0
            .handle(UserInfo::new("root", &["system:masters"]), request)
    };
    for group in bootstrap::objects(&endpoint) {
        bootstrap::run(group, send).await.unwrap();
    }
    let store = server.0.registry.store.clone();
    let kept = bootstrap::keep(store, bootstrap::kept(&endpoint), send);
    let story = async {
        let service = "/api/v1/namespaces/default/services/kubernetes";
        let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let first = server.get(service).await.ok();
        for path in [service, endpoints, &format!("{slices}/kubernetes")] {
            server.delete(path).await.ok();
            until(&server, path, |_| true).await;
        }
        let second = server.get(service).await.ok();
        assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
        assert_eq!(first["spec"]["clusterIP"], second["spec"]["clusterIP"]);
        let bent = json!({ "subsets": null });
        server.patch(endpoints, "merge-patch", bent).await.ok();
        until(&server, endpoints, |object| {
            object["subsets"][0]["addresses"][0]["ip"] == "192.0.2.1"
        })
        .await;
        // A label that others added is theirs to keep.
        let label = json!({ "metadata": { "labels": { "mine": "yes" } } });
        server.patch(service, "merge-patch", label).await.ok();
        until(&server, service, |object| {
            object["metadata"]["labels"]["mine"] == "yes"
        })
        .await;
    };
    tokio::select! {
        () = kept => unreachable!("it never ends"),
        () = story => {}
    }
}

async fn until(server: &Server, path: &str, holds: impl Fn(&Value) -> bool) {
    let attempt = async {
        loop {
            let answer = server.get(path).await;
            if answer.code == 200 && holds(&answer.body) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), attempt)
        .await
        .expect(path);
}
