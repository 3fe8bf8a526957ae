//! Watches as `coracle_client::informer` tells them: each consumer has its own place in the log, may be late, and may
//! have to list again.

use crate::api::{Api, Event};
use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::{Key, Revision};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// What a watch tells, and the revision up to which everything has been told then.
#[derive(Debug, Clone)]
pub enum Seen {
    /// The object is like this now.
    Applied(Key, Value, Revision),
    /// The object is gone.
    Deleted(Key, Revision),
    /// Everything that existed at a revision has been told.
    Synced(Revision),
}

/// One consumer's watch of one resource.
pub struct Watch {
    /// Of what.
    pub resource: GroupVersionResource,
    /// Nothing up to here is read from the log again.
    revision: u64,
    /// Everything up to here has been told.
    told: Revision,
    /// What the last list said and has yet to be told.
    list: VecDeque<Seen>,
    /// The version of each object that the consumer has been told of.
    known: BTreeMap<Key, String>,
    must_list: bool,
}

impl Watch {
    /// Begins with a list.
    pub fn new(resource: GroupVersionResource) -> Self {
        Self {
            resource,
            revision: 0,
            told: Revision(0),
            list: VecDeque::new(),
            known: BTreeMap::new(),
            must_list: true,
        }
    }

    /// The connection breaks, and the server has forgotten what happened meanwhile. A list that is being told goes on:
    /// it is here already.
    pub fn cut(&mut self) {
        self.must_list = true;
    }

    /// Whether there is something to tell.
    pub fn is_behind(&self, api: &Api) -> bool {
        self.must_list || !self.list.is_empty() || self.find(api).is_some()
    }

    /// The next thing to tell.
    pub fn next(&mut self, api: &Api) -> Option<Seen> {
        if self.list.is_empty() && self.must_list {
            self.relist(api);
        }
        if let Some(seen) = self.list.pop_front() {
            if let Seen::Synced(revision) = seen {
                self.told = revision;
            }
            return Some(seen);
        }
        let event = self.find(api)?;
        let revision = Revision(event.revision);
        let (key, object) = (event.id.1.clone(), event.object.clone());
        (self.revision, self.told) = (revision.0, revision);
        Some(match object {
            Some(object) => {
                self.known
                    .insert(key.clone(), object.resource_version().to_owned());
                Seen::Applied(key, object, revision)
            }
            None => {
                self.known.remove(&key);
                Seen::Deleted(key, revision)
            }
        })
    }

    fn find<'a>(&self, api: &'a Api) -> Option<&'a Event> {
        let start = usize::try_from(self.revision).expect("a log fits into memory");
        api.log[start..].iter().find(|event| event.id.0 == self.resource)
    }

    /// Only differences are told. Objects that this consumer knows and the list does not have are gone. Before the end
    /// of the list nobody knows how far the consumer has come.
    fn relist(&mut self, api: &Api) {
        self.must_list = false;
        self.revision = api.revision();
        let mut before = std::mem::take(&mut self.known);
        let all = api.objects.range((self.resource.clone(), Key::new("", ""))..);
        for ((_, key), object) in all.take_while(|((resource, _), _)| *resource == self.resource) {
            let version = object.resource_version().to_owned();
            if before.remove(key).as_ref() != Some(&version) {
                let seen = Seen::Applied(key.clone(), object.clone(), self.told);
                self.list.push_back(seen);
            }
            self.known.insert(key.clone(), version);
        }
        for key in before.into_keys() {
            let seen = Seen::Deleted(key, self.told);
            self.list.push_back(seen);
        }
        self.list.push_back(Seen::Synced(Revision(self.revision)));
    }
}
