//! What controllers see: typed objects by key, by namespace and by owner. Filled by the driver from watches.
//!
//! Invariant: an object is in the cache exactly as the server sent it last; controllers never write to it.

use crate::spec::{Change, Key};
use coracle_meta::GroupVersionResource;
use coracle_meta::well_known_labels::SERVICE_NAME;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde_json::Value;
use std::any::{Any, TypeId};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// A typed kind of the API.
pub trait Kind:
    Resource
    + Metadata<Ty = ObjectMeta>
    + serde::de::DeserializeOwned
    + serde::Serialize
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Lower-case plural, such as `replicasets`.
    const PLURAL: &'static str;
}

impl<K> Kind for K
where
    K: Resource
        + Metadata<Ty = ObjectMeta>
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Clone
        + Send
        + Sync
        + 'static,
{
    const PLURAL: &'static str = K::URL_PATH_SEGMENT;
}

/// A store revision; every change of anything has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// From the wire's `resourceVersion`; absent or foreign text is 0, which everything has reached.
    pub fn parse(resource_version: &str) -> Self {
        Self(resource_version.parse().unwrap_or_default())
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Typed objects of the registered kinds.
#[derive(Default)]
pub struct Cache {
    stores: HashMap<TypeId, Box<dyn AnyStore>>,
    types: HashMap<GroupVersionResource, TypeId>,
}

impl Cache {
    /// Makes room for a kind. Reading a kind that was never registered is a bug and panics.
    pub fn register<K: Kind>(&mut self) {
        self.stores.entry(TypeId::of::<K>()).or_insert_with(|| {
            self.types.insert(Self::resource_of::<K>(), TypeId::of::<K>());
            Box::new(Store::<K>::default())
        });
    }

    /// The resource that a kind is served as.
    pub fn resource_of<K: Kind>() -> GroupVersionResource {
        GroupVersionResource::new(K::GROUP, K::VERSION, K::PLURAL)
    }

    /// The registered resources.
    pub fn resources(&self) -> Vec<GroupVersionResource> {
        let mut all: Vec<_> = self.types.keys().cloned().collect();
        all.sort();
        all
    }

    /// The object, if it exists.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.store::<K>().objects.get(&Key::new(namespace, name))
    }

    /// All objects of a kind, by namespace and name.
    pub fn list<K: Kind>(&self) -> impl Iterator<Item = &Arc<K>> {
        self.store::<K>().objects.values()
    }

    /// The objects of a kind in a namespace, by name.
    pub fn in_namespace<'a, K: Kind>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.store::<K>()
            .objects
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects of a kind whose controller is the owner with this uid, by namespace and name.
    pub fn controlled_by<'a, K: Kind>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<K>> {
        let store = self.store::<K>();
        let keys = store.by_controller.get(uid).into_iter().flatten();
        keys.filter_map(|key| store.objects.get(key))
    }

    /// The objects of a kind in a namespace that have no controller, by name.
    pub fn orphans<'a, K: Kind>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        let store = self.store::<K>();
        let keys = store.by_controller.get(NO_CONTROLLER);
        keys.into_iter()
            .flat_map(move |keys| keys.range(Key::new(namespace, "")..))
            .take_while(move |key| key.namespace == namespace)
            .filter_map(|key| store.objects.get(key))
    }

    /// The Services of a namespace of whose selectors these labels have at least one part: all that select a Pod with
    /// them are among these.
    pub fn may_select<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let store = self.store::<Service>();
        let selected_by = move |(label, value): (&String, &String)| {
            store.by_place.get(&[namespace, label, value].map(str::to_owned))
        };
        labels
            .iter()
            .filter_map(selected_by)
            .flatten()
            .filter_map(|key| store.objects.get(key))
    }

    /// The EndpointSlices of a namespace that say that they belong to this Service; with an empty name those that do
    /// not say.
    pub fn slices_of<'a>(
        &'a self,
        namespace: &str,
        service: &str,
    ) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
        let store = self.store::<EndpointSlice>();
        let keys = store
            .by_place
            .get(&[namespace, SERVICE_NAME, service].map(str::to_owned));
        keys.into_iter()
            .flatten()
            .filter_map(|key| store.objects.get(key))
    }

    /// The revision up to which the kind has been seen.
    pub fn revision<K: Kind>(&self) -> Revision {
        self.store::<K>().revision
    }

    /// Puts a typed object; for tests and the driver.
    pub fn insert<K: Kind>(&mut self, object: K) -> Change {
        self.store_mut::<K>().insert(Arc::new(object))
    }

    /// Removes a typed object; for tests and the driver.
    pub fn remove<K: Kind>(&mut self, key: &Key) -> Change {
        self.store_mut::<K>().remove(key)
    }

    /// The erased store of a resource, for the driver: absent if nobody registered it.
    pub fn erased(&self, resource: &GroupVersionResource) -> Option<&dyn AnyStore> {
        let store = self.stores.get(self.types.get(resource)?)?;
        Some(&**store)
    }

    /// Like [`Cache::erased`], to write.
    pub fn erased_mut(&mut self, resource: &GroupVersionResource) -> Option<&mut (dyn AnyStore + 'static)> {
        let store = self.stores.get_mut(self.types.get(resource)?)?;
        Some(&mut **store)
    }

    fn store<K: Kind>(&self) -> &Store<K> {
        self.stores
            .get(&TypeId::of::<K>())
            .and_then(|s| s.as_any().downcast_ref())
            .unwrap_or_else(|| panic!("kind {} is read but not watched", K::KIND))
    }

    fn store_mut<K: Kind>(&mut self) -> &mut Store<K> {
        self.register::<K>();
        self.stores
            .get_mut(&TypeId::of::<K>())
            .and_then(|s| s.as_any_mut().downcast_mut())
            .expect("registered above with this type")
    }
}

/// A store whose kind is known only at run time: how the driver feeds the cache.
pub trait AnyStore: Send + Sync {
    /// The resource it holds.
    fn resource(&self) -> GroupVersionResource;
    /// Decodes and puts an object.
    fn put(&mut self, object: Value) -> Result<Change, serde_json::Error>;
    /// Decodes an object from JSON bytes and puts it.
    fn put_bytes(&mut self, bytes: &[u8]) -> Result<Change, serde_json::Error>;
    /// Removes an object.
    fn delete(&mut self, key: &Key) -> Change;
    /// The metadata of an object.
    fn metadata(&self, key: &Key) -> Option<&ObjectMeta>;
    /// Notes that everything up to `revision` has been seen.
    fn seen(&mut self, revision: Revision);
    /// See [`Cache::revision`].
    fn revision(&self) -> Revision;
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// For downcasts.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

struct Store<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// By the controller's uid, or [`NO_CONTROLLER`].
    by_controller: HashMap<String, BTreeSet<Key>>,
    /// By namespace, a label and its value: Services by the first part of their selector, EndpointSlices by the
    /// Service they name. Each is there once.
    by_place: HashMap<[String; 3], BTreeSet<Key>>,
    revision: Revision,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            by_controller: HashMap::new(),
            by_place: HashMap::new(),
            revision: Revision(0),
        }
    }
}

const NO_CONTROLLER: &str = "";

fn controller_uid<K: Kind>(object: &K) -> &str {
    let owners = object.metadata().owner_references.iter().flatten();
    let mut controllers = owners.filter(|o| o.controller == Some(true));
    controllers.next().map_or(NO_CONTROLLER, |o| o.uid.as_str())
}

/// The place in [`Store::by_place`].
fn place<K: Kind>(object: &K) -> Option<[String; 3]> {
    let namespace = object.metadata().namespace.clone().unwrap_or_default();
    let object = object as &dyn Any;
    if let Some(service) = object.downcast_ref::<Service>() {
        let (label, value) = service.spec.as_ref()?.selector.as_ref()?.first_key_value()?;
        return Some([namespace, label.clone(), value.clone()]);
    }
    let slice = object.downcast_ref::<EndpointSlice>()?;
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
    let service = service.cloned().unwrap_or_default();
    Some([namespace, SERVICE_NAME.to_owned(), service])
}

fn erase<K: Kind>(object: Option<Arc<K>>) -> Option<Arc<dyn Any + Send + Sync>> {
    object.map(|o| o as Arc<dyn Any + Send + Sync>)
}

impl<K: Kind> Store<K> {
    fn insert(&mut self, object: Arc<K>) -> Change {
        let key = Key::of(&*object);
        let old = self.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            self.forget(&**old, &key);
        }
        if let Some(place) = place(&*object) {
            self.by_place.entry(place).or_default().insert(key.clone());
        }
        let uid = controller_uid(&*object).to_owned();
        self.by_controller.entry(uid).or_default().insert(key);
        Change {
            old: erase(old),
            new: erase(Some(object)),
        }
    }

    fn remove(&mut self, key: &Key) -> Change {
        let old = self.objects.remove(key);
        if let Some(old) = &old {
            self.forget(&**old, key);
        }
        Change {
            old: erase(old),
            new: None,
        }
    }

    /// Takes an object out of the indexes.
    fn forget(&mut self, object: &K, key: &Key) {
        take(&mut self.by_controller, controller_uid(object), key);
        if let Some(place) = place(object) {
            take(&mut self.by_place, &place, key);
        }
    }
}

fn take<I, Q>(index: &mut HashMap<I, BTreeSet<Key>>, place: &Q, key: &Key)
where
    I: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(keys) = index.get_mut(place) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(place);
        }
    }
}

impl<K: Kind> AnyStore for Store<K> {
    fn resource(&self) -> GroupVersionResource {
        Cache::resource_of::<K>()
    }
    fn put(&mut self, object: Value) -> Result<Change, serde_json::Error> {
        Ok(self.insert(Arc::new(serde_json::from_value(object)?)))
    }
    fn put_bytes(&mut self, bytes: &[u8]) -> Result<Change, serde_json::Error> {
        Ok(self.insert(Arc::new(serde_json::from_slice(bytes)?)))
    }
    fn delete(&mut self, key: &Key) -> Change {
        self.remove(key)
    }
    fn metadata(&self, key: &Key) -> Option<&ObjectMeta> {
        self.objects.get(key).map(|object| object.metadata())
    }
    fn seen(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }
    fn revision(&self) -> Revision {
        self.revision
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, selector: Value) -> Service {
        let service =
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": selector}});
        serde_json::from_value(service).expect("a Service")
    }

    fn candidates(cache: &Cache, namespace: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let labels = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        let found = cache.may_select(namespace, &labels);
        found.map(|service| Key::of(&**service).name).collect()
    }

    #[test]
    fn services_are_found_by_a_part_of_their_selectors() {
        let mut cache = Cache::default();
        cache.insert(service("one", json!({"app": "web"})));
        cache.insert(service("two", json!({"app": "web", "tier": "front"})));
        cache.insert(service("other", json!({"app": "db"})));
        cache.insert(service("none", json!(null)));
        let web = [("app", "web"), ("pod-template-hash", "x")];
        assert_eq!(candidates(&cache, "shop", &web), ["one", "two"]);
        assert!(candidates(&cache, "lab", &web).is_empty());

        cache.insert(service("one", json!({"app": "db"})));
        assert_eq!(candidates(&cache, "shop", &web), ["two"]);
        assert_eq!(candidates(&cache, "shop", &[("app", "db")]), ["one", "other"]);
        cache.remove::<Service>(&Key::new("shop", "one"));
        cache.insert(service("two", json!(null)));
        assert!(candidates(&cache, "shop", &web).is_empty());
        assert_eq!(candidates(&cache, "shop", &[("app", "db")]), ["other"]);
    }

    #[test]
    fn slices_are_found_by_the_service_they_name() {
        let slice = |name: &str, labels: Value| -> EndpointSlice {
            let metadata = json!({"name": name, "namespace": "shop", "labels": labels});
            serde_json::from_value(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []}))
                .expect("an EndpointSlice")
        };
        let mut cache = Cache::default();
        cache.insert(slice("web-a", json!({SERVICE_NAME: "web"})));
        cache.insert(slice("web-b", json!({SERVICE_NAME: "web"})));
        cache.insert(slice("lost", json!({})));
        let names = |cache: &Cache, namespace: &str, service: &str| -> Vec<String> {
            let slices = cache.slices_of(namespace, service);
            slices.map(|slice| Key::of(&**slice).name).collect()
        };
        assert_eq!(names(&cache, "shop", "web"), ["web-a", "web-b"]);
        assert_eq!(names(&cache, "shop", ""), ["lost"]);
        assert!(names(&cache, "lab", "web").is_empty());
        cache.insert(slice("web-b", json!({SERVICE_NAME: "api"})));
        cache.remove::<EndpointSlice>(&Key::new("shop", "lost"));
        assert_eq!(names(&cache, "shop", "web"), ["web-a"]);
        assert_eq!(names(&cache, "shop", "api"), ["web-b"]);
        assert!(names(&cache, "shop", "").is_empty());
    }
}
