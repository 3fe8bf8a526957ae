//! Default objects that come back when somebody deletes or changes them: without the Service `kubernetes` no pod would
//! find this server. Upstream looks every few seconds (`pkg/controlplane/controller/{kubernetesservice,
//! systemnamespaces}`); here the store says when.

use super::reconcile::Upkeep;
use super::{Wanted, ensure};
use crate::registry::object::store_resource;
use crate::request::Body;
use coracle_api::resources::by_gvr;
use coracle_meta::object::ObjectExt;
use coracle_store::{Event, Store};
use futures::future::join_all;
use http::{Request, Response};
use std::future::Future;
use std::time::Duration;

/// How long to wait after a refusal: what stands in the way may go.
const RETRY: Duration = Duration::from_secs(10);

/// Keeps the objects for ever. `send` is as in [`run`](super::run).
pub async fn keep<F, R>(store: Store, wanted: Vec<Wanted>, send: F)
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    join_all(wanted.iter().map(|wanted| keep_one(&store, wanted, &send))).await;
}

async fn keep_one<F, R>(store: &Store, wanted: &Wanted, send: &F)
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    let (group, version, plural) = (
        &wanted.resource.group,
        &wanted.resource.version,
        &wanted.resource.resource,
    );
    let Some(resource) = by_gvr(group, version, plural) else {
        return;
    };
    let resource = store_resource(resource);
    loop {
        let mut watcher = store.watch(&resource, store.revision());
        while let Err(error) = ensure(wanted, send).await {
            tracing::warn!(resource, name = wanted.object.name(), %error, "default object not restored");
            tokio::time::sleep(RETRY).await;
        }
        loop {
            match watcher.next().await {
                Ok(batch) if batch.events.iter().any(|event| is_due(wanted, event)) => break,
                Ok(_) => {}
                // Too much has happened to know.
                Err(_) => break,
            }
        }
    }
}

/// What others may change stays changed; what they delete comes back.
fn is_due(wanted: &Wanted, event: &Event) -> bool {
    let subject = event.subject();
    subject.name() == wanted.object.name()
        && subject.namespace() == wanted.object.namespace()
        && (event.object.is_none() || wanted.upkeep == Upkeep::Exactly)
}
