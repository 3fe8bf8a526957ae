//! Which objects belong to a controller: those that it owns and that its selector matches. Orphans that match are
//! adopted, owned ones that no longer match are released. Upstream: `pkg/controller/controller_ref_manager.go`.

use coracle_meta::Selector;
use coracle_reconcile::{Action, Cache, Key, Kind, PatchType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::json;
use std::sync::Arc;

/// The objects of a controller, and the patches that make it so.
pub(crate) struct Claims<'a, D> {
    /// Owned, or about to be.
    pub objects: Vec<&'a Arc<D>>,
    /// Adoptions and releases.
    pub patches: Vec<Action>,
}

/// Sorts out the objects of one kind around a controller. `filter` leaves out those that are neither adopted nor
/// released nor counted.
pub(crate) fn claim<'a, O: Kind, D: Kind>(
    owner: &'a O,
    selector: &Selector,
    cache: &'a Cache,
    filter: impl Fn(&D) -> bool,
) -> Claims<'a, D> {
    let meta = owner.metadata();
    let owner_terminates = meta.deletion_timestamp.is_some();
    let mut claims = Claims {
        objects: Vec::new(),
        patches: Vec::new(),
    };
    let uid = meta.uid.as_deref().unwrap_or_default();
    for owned in cache.controlled_by::<D>(uid).filter(|object| filter(object)) {
        if selector.matches(&owned.metadata().labels) {
            claims.objects.push(owned);
        } else if !owner_terminates {
            claims.patches.push(release(&**owned, uid));
        }
    }
    if owner_terminates {
        return claims;
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    for orphan in cache.orphans::<D>(namespace).filter(|object| filter(object)) {
        let orphan_meta = orphan.metadata();
        if orphan_meta.deletion_timestamp.is_none() && selector.matches(&orphan_meta.labels) {
            claims.patches.push(adopt(&**orphan, owner));
            claims.objects.push(orphan);
        }
    }
    claims
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn of<O: Kind>(owner: &O) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: O::API_VERSION.to_owned(),
        kind: O::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The controller of an object, if it has one.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The key of the controller of an object if it is of this kind.
pub(crate) fn controller_key<O: Kind>(meta: &ObjectMeta) -> Option<Key> {
    let owner = controller(meta)?;
    let (group, _) = coracle_meta::gvk::split_api_version(&owner.api_version);
    (owner.kind == O::KIND && group == O::GROUP)
        .then(|| Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// The keys that a change of a dependent object makes dirty: its controllers before and after, and where it has
/// become an orphan or an orphan has changed its labels, everybody who could adopt it.
pub(crate) fn keys<O: Kind, D: Kind>(
    old: Option<&D>,
    new: Option<&D>,
    cache: &Cache,
    selector: impl Fn(&O) -> Selector,
) -> Vec<Key> {
    let owners = old.into_iter().chain(new);
    let mut keys: Vec<Key> = owners
        .filter_map(|object| controller_key::<O>(object.metadata()))
        .collect();
    if let Some(meta) = new.map(D::metadata)
        && controller(meta).is_none()
    {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let adopters = cache.in_namespace::<O>(namespace);
        keys.extend(
            adopters
                .filter(|owner| selector(owner).matches(&meta.labels))
                .map(|owner| Key::of(&**owner)),
        );
    }
    keys.sort();
    keys.dedup();
    keys
}

/// A `LabelSelector`; one that is not valid selects nothing.
pub(crate) fn selector(selector: &LabelSelector) -> Selector {
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    Selector::from_parts(
        labels.map(|(key, value)| (key.as_str(), value.as_str())),
        expressions.map(|e| {
            (
                e.key.as_str(),
                e.operator.as_str(),
                e.values.clone().unwrap_or_default(),
            )
        }),
    )
    .unwrap_or_else(|_| Selector::nothing())
}

/// The uid guards against another object of that name, the revision against another owner of this one.
fn patch_owners<D: Kind>(object: &D, owners: &[OwnerReference]) -> Action {
    let meta = object.metadata();
    let body = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": owners,
    }});
    Action::patch(object, PatchType::Merge, body)
}

fn adopt<O: Kind, D: Kind>(object: &D, owner: &O) -> Action {
    let mut owners = object.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|reference| Some(&reference.uid) != owner.metadata().uid.as_ref());
    owners.push(of(owner));
    patch_owners(object, &owners)
}

fn release<D: Kind>(object: &D, owner_uid: &str) -> Action {
    let mut owners = object.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != owner_uid);
    patch_owners(object, &owners)
}
