//! Root CA publisher: every namespace has the cluster's certificate authority in a ConfigMap, for pods that talk to
//! the API server. Upstream: `pkg/controller/certificates/rootcacertpublisher`.

use crate::service_account::is_active;
use coracle_reconcile::{Action, Cache, Key, Plan, Spec, Watch};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
    internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed \
    across distributions of Kubernetes clusters.";

/// The controller that publishes `ca_pem`. Its keys are namespaces.
pub fn spec(ca_pem: String) -> Spec {
    Spec::new("root-ca-cert-publisher", move |key, cache, _| {
        plan(key, cache, &ca_pem)
    })
    .watch(Watch::of(|namespace: &Namespace, _| vec![Key::of(namespace)]))
    .watch(Watch::of(|map: &ConfigMap, _| {
        let key = Key::of(map);
        if key.name == NAME {
            vec![Key::new("", key.namespace)]
        } else {
            Vec::new()
        }
    }))
}

fn plan(key: &Key, cache: &Cache, ca_pem: &str) -> Plan {
    let mut plan = Plan::nothing();
    if !is_active(key, cache) {
        return plan;
    }
    let data = Some([(FILE.to_owned(), ca_pem.to_owned())].into());
    match cache.get::<ConfigMap>(&key.name, NAME) {
        None => plan.push(Action::create(&ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(key.name.clone()),
                name: Some(NAME.to_owned()),
                annotations: Some([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data,
            ..ConfigMap::default()
        })),
        Some(map) => {
            let annotations = map.metadata.annotations.as_ref();
            let described = annotations.is_some_and(|annotations| annotations.contains_key(DESCRIPTION));
            if map.data != data || !described {
                let mut map = ConfigMap::clone(map);
                map.data = data;
                let annotations = map.metadata.annotations.get_or_insert_default();
                annotations.insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
                plan.push(Action::update(&map));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        crate::testing::golden(&super::spec("PEM".to_owned()), "root_ca_publisher");
    }
}
