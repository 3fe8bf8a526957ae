//! The objects in memory, by resource, with the history of each.

use crate::history::{Event, Expired, History};
use crate::object::{Key, Object};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::watch;

/// The objects of a resource at one revision, in order of namespace and name.
#[derive(Debug)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<Arc<Object>>,
    /// The revision of the store that this is the state of.
    pub revision: u64,
}

type Path = (Box<str>, Box<str>);

struct Resource {
    objects: BTreeMap<Path, Arc<Object>>,
    history: History,
    changed_at: u64,
    /// Wakes watchers; holds the revision of the last change.
    changed: watch::Sender<u64>,
}

impl Resource {
    fn new(revision: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: History::new(revision),
            changed_at: 0,
            changed: watch::channel(0).0,
        }
    }
}

pub(crate) struct State {
    revision: u64,
    /// Nothing is known of changes up to here: they were made before the start.
    started_at: u64,
    failed: bool,
    resources: HashMap<Arc<str>, Resource>,
}

impl State {
    pub fn new(revision: u64) -> Self {
        Self {
            revision,
            started_at: revision,
            failed: false,
            resources: HashMap::new(),
        }
    }

    pub fn load(&mut self, resource: &Arc<str>, object: Object) {
        let resource = self.resource_mut(resource);
        resource.changed_at = resource.changed_at.max(object.revision());
        let path = (object.namespace().into(), object.name().into());
        resource.objects.insert(path, Arc::new(object));
    }

    fn resource_mut(&mut self, name: &Arc<str>) -> &mut Resource {
        let started_at = self.started_at;
        self.resources
            .entry(name.clone())
            .or_insert_with(|| Resource::new(started_at))
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn is_writable(&self) -> bool {
        !self.failed
    }

    /// No more writes will come.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    pub fn changed_at(&self, resource: &str) -> u64 {
        self.resources.get(resource).map_or(0, |r| r.changed_at)
    }

    pub fn counts(&self) -> Vec<(Arc<str>, usize)> {
        let mut counts: Vec<_> = self
            .resources
            .iter()
            .map(|(name, resource)| (name.clone(), resource.objects.len()))
            .collect();
        counts.sort();
        counts
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let objects = &self.resources.get(resource)?.objects;
        objects.get(&(namespace.into(), name.into())).cloned()
    }

    /// Puts one change into memory. Revisions rise by one from call to call.
    pub fn apply(&mut self, key: &Key, event: Arc<Event>) {
        self.revision = event.revision;
        let resource = self.resource_mut(&key.resource);
        resource.changed_at = event.revision;
        let path = (key.namespace.clone(), key.name.clone());
        match &event.object {
            Some(object) => resource.objects.insert(path, object.clone()),
            None => resource.objects.remove(&path),
        };
        resource.history.push(event);
    }

    /// Wakes the watchers of a resource.
    pub fn notify(&self, resource: &str) {
        if let Some(resource) = self.resources.get(resource) {
            resource.changed.send_replace(resource.changed_at);
        }
    }

    pub fn subscribe(&mut self, resource: &Arc<str>) -> watch::Receiver<u64> {
        self.resource_mut(resource).changed.subscribe()
    }

    /// The changes of a resource that are remembered, oldest first.
    pub fn history(&self, resource: &str) -> Vec<Arc<Event>> {
        let resource = self.resources.get(resource);
        resource
            .map(|resource| resource.history.all().cloned().collect())
            .unwrap_or_default()
    }

    /// At most `limit` events after `revision`.
    pub fn events(&self, resource: &str, revision: u64, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        match self.resources.get(resource) {
            Some(resource) => Ok(resource.history.after(revision)?.take(limit).cloned().collect()),
            None => Ok(Vec::new()),
        }
    }

    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        at: Option<u64>,
    ) -> Result<Listing, Expired> {
        let revision = at.unwrap_or(self.revision);
        if at.is_some() && revision < self.started_at {
            return Err(Expired {
                asked: revision,
                oldest: self.started_at,
            });
        }
        let Some(resource) = self.resources.get(resource) else {
            return Ok(Listing {
                objects: Vec::new(),
                revision,
            });
        };
        let mut objects: Vec<Arc<Object>> = range(&resource.objects, namespace, after).cloned().collect();
        if revision < self.revision {
            objects = earlier(objects, &resource.history, revision, namespace, after)?;
        }
        Ok(Listing { objects, revision })
    }
}

fn range<'a>(
    objects: &'a BTreeMap<Path, Arc<Object>>,
    namespace: Option<&'a str>,
    after: Option<(&str, &str)>,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let start: Bound<Path> = match (after, namespace) {
        (Some((namespace, name)), _) => Bound::Excluded((namespace.into(), name.into())),
        (None, Some(namespace)) => Bound::Included((namespace.into(), "".into())),
        (None, None) => Bound::Unbounded,
    };
    objects
        .range((start, Bound::Unbounded))
        .map(|(_, object)| object)
        .take_while(move |object| namespace.is_none_or(|namespace| object.namespace() == namespace))
}

/// Takes back what has happened since `revision`.
fn earlier(
    now: Vec<Arc<Object>>,
    history: &History,
    revision: u64,
    namespace: Option<&str>,
    after: Option<(&str, &str)>,
) -> Result<Vec<Arc<Object>>, Expired> {
    let path = |object: &Object| -> Path { (object.namespace().into(), object.name().into()) };
    let mut objects: BTreeMap<Path, Arc<Object>> = now.into_iter().map(|o| (path(&o), o)).collect();
    for event in history.after(revision)?.rev() {
        let path = path(event.subject());
        match &event.previous {
            Some(previous) => objects.insert(path, previous.clone()),
            None => objects.remove(&path),
        };
    }
    // Taken-back changes may lie outside of the range that was asked for.
    Ok(range(&objects, namespace, after).cloned().collect())
}
