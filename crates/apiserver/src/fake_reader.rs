//! A [`Reader`] over a map, for tests.

use crate::plugin::{Reader, VisitLabels};
use coracle_meta::GroupResource;
use coracle_meta::object::ObjectExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;

type Key = (GroupResource, String, String);

#[derive(Default)]
pub(crate) struct FakeReader {
    objects: Mutex<(u64, BTreeMap<Key, Value>)>,
}

impl FakeReader {
    pub(crate) fn put(&self, group: &str, resource: &str, object: Value) {
        let key = (
            GroupResource::new(group, resource),
            object.namespace().to_owned(),
            object.name().to_owned(),
        );
        let mut objects = self.objects.lock();
        objects.0 += 1;
        objects.1.insert(key, object);
    }

    pub(crate) fn remove(&self, group: &str, resource: &str, namespace: &str, name: &str) {
        let key = (
            GroupResource::new(group, resource),
            namespace.to_owned(),
            name.to_owned(),
        );
        let mut objects = self.objects.lock();
        objects.0 += 1;
        objects.1.remove(&key);
    }
}

impl Reader for FakeReader {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.clone(), namespace.to_owned(), name.to_owned());
        self.objects.lock().1.get(&key).cloned()
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Value> {
        self.objects
            .lock()
            .1
            .iter()
            .filter(|((r, ns, _), _)| r == resource && namespace.is_none_or(|n| n == ns))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn visit_labels(&self, resource: &GroupResource, namespace: &str, visit: &mut VisitLabels<'_>) {
        for object in self.list(resource, Some(namespace)) {
            let labels = object["metadata"]["labels"].as_object();
            let labels: Vec<(Box<str>, Box<str>)> = labels
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()))
                .collect();
            if visit(object.name(), &labels).is_break() {
                return;
            }
        }
    }

    /// Coarser than a real store: the revision of the last change of anything.
    fn changed_at(&self, _resource: &GroupResource) -> u64 {
        self.objects.lock().0
    }
}
