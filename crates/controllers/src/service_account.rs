//! ServiceAccount: every namespace has one named `default`. Upstream: `pkg/controller/serviceaccount`.

use coracle_reconcile::{Action, Cache, Key, Plan, Spec, Watch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME: &str = "default";

/// The controller of default ServiceAccounts. Its keys are namespaces.
pub fn spec() -> Spec {
    Spec::new("service-account-controller", plan)
        .watch(Watch::of(|namespace: &Namespace, _| vec![Key::of(namespace)]))
        .watch(Watch::of(|account: &ServiceAccount, _| {
            let key = Key::of(account);
            if key.name == NAME {
                vec![Key::new("", key.namespace)]
            } else {
                Vec::new()
            }
        }))
}

fn plan(key: &Key, cache: &Cache, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if is_active(key, cache) && cache.get::<ServiceAccount>(&key.name, NAME).is_none() {
        plan.push(Action::create(&ServiceAccount {
            metadata: ObjectMeta {
                namespace: Some(key.name.clone()),
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        }));
    }
    plan
}

/// Whether things can still be made in a namespace.
pub(crate) fn is_active(key: &Key, cache: &Cache) -> bool {
    cache.get::<Namespace>("", &key.name).is_some_and(|namespace| {
        let phase = namespace
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        namespace.metadata.deletion_timestamp.is_none() && phase.unwrap_or("Active") == "Active"
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        crate::testing::golden(&super::spec(), "service_account");
    }
}
