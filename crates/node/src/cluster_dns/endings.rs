//! Pods that are about to end wait here until no name leads to them any more.

use crate::data_plane::DataPlane;
use coracle_dns::SharedZone;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::fmt;
use std::net::IpAddr;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The zone, and who waits for names to go from it.
pub struct Endings {
    zone: SharedZone,
    waiting: Mutex<Vec<(IpAddr, oneshot::Sender<()>)>>,
}

impl Endings {
    /// Nobody waits.
    pub fn new(zone: SharedZone) -> Self {
        Self {
            zone,
            waiting: Mutex::default(),
        }
    }

    pub(super) fn zone(&self) -> &SharedZone {
        &self.zone
    }

    /// To be called after endpoints went from the zone.
    pub(super) fn tell(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return;
        }
        let zone = self.zone.read();
        for (_, done) in waiting.extract_if(.., |(ip, _)| !zone.sends_to(*ip)) {
            // Whoever asked may have given up.
            let _ = done.send(());
        }
    }
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endings")
            .field("waiting", &self.waiting.lock().len())
            .finish_non_exhaustive()
    }
}

impl DataPlane for Endings {
    fn drained(&self, ip: IpAddr, deadline: Instant) -> BoxFuture<'_, ()> {
        let mut waiting = self.waiting.lock();
        // Under the lock: a change of the zone that is not seen here tells those who wait afterwards.
        if !self.zone.read().sends_to(ip) {
            return Box::pin(std::future::ready(()));
        }
        let (done, drained) = oneshot::channel();
        waiting.push((ip, done));
        Box::pin(async move {
            // An error says that the DNS has ended: then nothing more will change either.
            let _ = tokio::time::timeout_at(deadline, drained).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_dns::Zone;
    use futures::FutureExt;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;

    const POD: &str = "10.244.0.7";

    fn put(zone: &SharedZone, terminating: bool) {
        let slice = json!({
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [POD], "conditions": {"ready": !terminating, "terminating": terminating}}],
        });
        let slice = serde_json::from_value(slice).expect("a slice");
        zone.write().upsert_slice(&slice);
    }

    #[tokio::test]
    async fn a_pod_waits_until_no_name_leads_to_it() {
        let zone: SharedZone = Arc::new(Zone::new("cluster.local").expect("a domain").into());
        let endings = Endings::new(zone.clone());
        let pod: IpAddr = POD.parse().expect("an address");
        let later = Instant::now() + Duration::from_secs(60);
        assert!(
            endings.drained(pod, later).now_or_never().is_some(),
            "nothing to wait for"
        );
        put(&zone, false);
        let mut drained = endings.drained(pod, later);
        endings.tell();
        assert!((&mut drained).now_or_never().is_none(), "names lead there");
        put(&zone, true);
        endings.tell();
        assert!(drained.now_or_never().is_some());
    }

    #[tokio::test]
    async fn nobody_waits_beyond_the_deadline() {
        let zone: SharedZone = Arc::new(Zone::new("cluster.local").expect("a domain").into());
        let endings = Endings::new(zone.clone());
        put(&zone, false);
        endings
            .drained(POD.parse().expect("an address"), Instant::now())
            .await;
    }
}
