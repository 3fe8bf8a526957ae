//! When each Service came to be reachable: the proxy's part of the story from `kubectl apply` to the first answer.

use coracle_dataplane::{Change, Class, Pick, ServiceKey, Tables};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// What the proxy did for one Service, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTimeline {
    /// The Service was first seen.
    pub service_seen: Option<Timestamp>,
    /// Its rules were first in the kernel, be it to refuse connections.
    pub programmed: Option<Timestamp>,
    /// One of its EndpointSlices was last seen to change, as far as packets depend on it.
    pub endpoints_seen: Option<Timestamp>,
    /// The rules were in the kernel that followed from that.
    pub endpoints_programmed: Option<Timestamp>,
    /// What is behind its last change.
    pub last: Option<LastChange>,
    /// Endpoints that connections are spread over now; the largest number of its frontends.
    pub endpoints: u16,
}

/// A change that packets depend on, of a Service or of its EndpointSlices, on its way into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastChange {
    /// The change was seen.
    pub seen: Timestamp,
    /// The transaction began.
    pub began: Timestamp,
    /// The kernel had it; none while it is on its way.
    pub committed: Option<Timestamp>,
    /// Elements of the kernel's maps that the transaction changed, those of other Services included. 0: what the
    /// kernel had was right already.
    pub operations: usize,
}

/// The timelines of all Services, readable at any time.
#[derive(Debug, Default)]
pub struct Timeline {
    services: Mutex<Services>,
}

#[derive(Debug, Default)]
struct Services {
    timelines: BTreeMap<ServiceKey, ServiceTimeline>,
    /// Changes were seen of these since the last transaction.
    pending: BTreeSet<ServiceKey>,
}

impl Timeline {
    /// What happened to a Service so far; none if it was never seen or is gone.
    pub fn of(&self, service: &ServiceKey) -> Option<ServiceTimeline> {
        self.services.lock().timelines.get(service).cloned()
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<ServiceKey, ServiceTimeline> {
        self.services.lock().timelines.clone()
    }

    pub(super) fn service_seen(&self, service: &ServiceKey, at: Timestamp) {
        let mut services = self.services.lock();
        services.seen(service, at).service_seen.get_or_insert(at);
    }

    pub(super) fn endpoints_seen(&self, service: &ServiceKey, at: Timestamp) {
        let mut services = self.services.lock();
        services.seen(service, at).endpoints_seen = Some(at);
    }

    /// The change is in the kernel. Returns when those were seen that are behind it.
    pub(super) fn committed(
        &self,
        change: &Change,
        tables: &Tables,
        began: Timestamp,
        at: Timestamp,
    ) -> Vec<Timestamp> {
        let services = &mut *self.services.lock();
        let mut seen = Vec::new();
        for key in std::mem::take(&mut services.pending) {
            let timeline = services.timelines.get_mut(&key);
            if let Some(last) = timeline.and_then(|timeline| timeline.last.as_mut()) {
                seen.push(last.seen);
                last.began = began;
                last.committed = Some(at);
                last.operations = change.commit.operations.len();
            }
        }
        for key in &change.services {
            if !tables.knows(key) {
                services.timelines.remove(key);
            }
            let Some(timeline) = services.timelines.get_mut(key) else {
                continue;
            };
            let frontends = tables.frontends(key);
            if !frontends.is_empty() {
                timeline.programmed.get_or_insert(at);
            }
            if timeline.endpoints_seen > timeline.endpoints_programmed {
                timeline.endpoints_programmed = Some(at);
            }
            let counts = frontends.iter().map(|(_, class)| match class {
                Class::Pick(Pick { count, .. }) => *count,
                Class::Reject | Class::RejectRestricted | Class::Drop => 0,
            });
            timeline.endpoints = counts.max().unwrap_or(0);
        }
        seen
    }
}

impl Services {
    /// Changes that arrive together are one: the first of them counts.
    fn seen(&mut self, service: &ServiceKey, at: Timestamp) -> &mut ServiceTimeline {
        let timeline = self.timelines.entry(service.clone()).or_default();
        if self.pending.insert(service.clone()) {
            timeline.last = Some(LastChange {
                seen: at,
                began: at,
                committed: None,
                operations: 0,
            });
        }
        timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_dataplane::Config;

    fn at(microseconds: i64) -> Timestamp {
        Timestamp::from_microsecond(microseconds).expect("in range")
    }

    #[test]
    fn changes_that_arrive_together_are_one_and_each_commit_ends_one() {
        let (timeline, tables) = (Timeline::default(), Tables::new(Config::default()));
        let key = ServiceKey::new("shop", "web");
        let last = || {
            timeline
                .of(&key)
                .and_then(|timeline| timeline.last)
                .expect("a change")
        };
        timeline.service_seen(&key, at(1));
        timeline.endpoints_seen(&key, at(2));
        assert_eq!((last().seen, last().committed), (at(1), None));
        timeline.committed(&Change::default(), &tables, at(3), at(4));
        assert_eq!(
            (last().seen, last().began, last().committed),
            (at(1), at(3), Some(at(4)))
        );
        // A change that leads to none of the kernel's is ended by the next look at what has to change, too.
        timeline.service_seen(&key, at(5));
        timeline.committed(&Change::default(), &tables, at(6), at(7));
        timeline.endpoints_seen(&key, at(8));
        assert_eq!((last().seen, last().committed), (at(8), None));
        assert_eq!(
            timeline.of(&key).and_then(|timeline| timeline.service_seen),
            Some(at(1))
        );
    }
}
