//! When each Service came to be reachable: the proxy's part of the story from `kubectl apply` to the first answer.

use coracle_dataplane::{Change, Class, Pick, ServiceKey, Tables};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What the proxy did for one Service, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTimeline {
    /// The Service was first seen.
    pub service_seen: Option<Timestamp>,
    /// Its rules were first in the kernel, be it to refuse connections.
    pub programmed: Option<Timestamp>,
    /// One of its EndpointSlices was last seen to change.
    pub endpoints_seen: Option<Timestamp>,
    /// The rules were in the kernel that followed from that.
    pub endpoints_programmed: Option<Timestamp>,
    /// Endpoints that connections are spread over now; the largest number of its frontends.
    pub endpoints: u16,
}

/// The timelines of all Services, readable at any time.
#[derive(Debug, Default)]
pub struct Timeline {
    services: Mutex<BTreeMap<ServiceKey, ServiceTimeline>>,
}

impl Timeline {
    /// What happened to a Service so far; none if it was never seen or is gone.
    pub fn of(&self, service: &ServiceKey) -> Option<ServiceTimeline> {
        self.services.lock().get(service).cloned()
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<ServiceKey, ServiceTimeline> {
        self.services.lock().clone()
    }

    pub(super) fn service_seen(&self, service: &ServiceKey, at: Timestamp) {
        let mut services = self.services.lock();
        services
            .entry(service.clone())
            .or_default()
            .service_seen
            .get_or_insert(at);
    }

    pub(super) fn endpoints_seen(&self, service: &ServiceKey, at: Timestamp) {
        let mut services = self.services.lock();
        services.entry(service.clone()).or_default().endpoints_seen = Some(at);
    }

    /// The change is in the kernel.
    pub(super) fn committed(&self, change: &Change, tables: &Tables, at: Timestamp) {
        let mut services = self.services.lock();
        for key in &change.services {
            if !tables.knows(key) {
                services.remove(key);
            }
            let Some(timeline) = services.get_mut(key) else {
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
                Class::Reject | Class::Drop => 0,
            });
            timeline.endpoints = counts.max().unwrap_or(0);
        }
    }
}
