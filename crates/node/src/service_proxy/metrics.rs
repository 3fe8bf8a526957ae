//! How long changes of Services take on their way to the packets, for Prometheus: under upstream's names with
//! upstream's bounds, and hop by hop with bounds for what takes microseconds. Upstream: pkg/proxy/metrics.

use coracle_dataplane::Commit;
use coracle_dns::{Histogram, exponential};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When the oldest change happened that an EndpointSlice reflects; whoever writes the slice says so.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Upstream's names of the families, in the order in which they are counted here.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const SYNC: &str = "kubeproxy_sync_proxy_rules_duration_seconds";
const LAST_SYNC: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
const PROGRAMMING: &str = "kubeproxy_network_programming_duration_seconds";
const HOPS: &str = "coracle_service_change_duration_seconds";
const PROGRAMMING_BOUNDS: usize = 80;
const HOP_BOUNDS: usize = 20;

/// Counts of a proxy. They only grow.
#[derive(Debug)]
pub struct Metrics {
    started: Timestamp,
    families: [Family; 2],
    /// From the moment that a write is durable to that at which the proxy hears of it.
    watch: Histogram<HOP_BOUNDS>,
    /// From the moment that the proxy hears of a change to that at which its transaction begins.
    queue: Histogram<HOP_BOUNDS>,
    /// The transaction in the kernel.
    commit: Histogram<HOP_BOUNDS>,
}

#[derive(Debug)]
struct Family {
    sync: Histogram<15>,
    programming: Histogram<PROGRAMMING_BOUNDS>,
    /// Milliseconds since 1970.
    last: AtomicU64,
}

/// The moment that made an EndpointSlice change, and whether the slice is one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trigger {
    ipv6: bool,
    at: Timestamp,
}

impl Default for Metrics {
    fn default() -> Self {
        let family = || Family {
            sync: Histogram::new(exponential(0.001, 2.0)),
            programming: Histogram::new(programming_bounds()),
            last: AtomicU64::new(0),
        };
        let hop = || Histogram::new(exponential(0.000_001, 2.0));
        Self {
            started: Timestamp::now(),
            families: [family(), family()],
            watch: hop(),
            queue: hop(),
            commit: hop(),
        }
    }
}

impl Metrics {
    /// What made a slice change; none if it does not say, and for what was before this proxy.
    pub(super) fn trigger(&self, slice: &EndpointSlice) -> Option<Trigger> {
        let annotations = slice.metadata.annotations.as_ref()?;
        let at: Timestamp = annotations.get(TRIGGER_TIME)?.parse().ok()?;
        (at > self.started).then_some(Trigger {
            ipv6: slice.address_type == "IPv6",
            at,
        })
    }

    /// A write of a Service or an EndpointSlice that was durable then and is heard of now.
    pub(super) fn seen(&self, written: Timestamp, now: Timestamp) {
        self.watch.observe(since(written, now));
    }

    /// A transaction that began and ended at these moments, and ended these changes.
    pub(super) fn committed(
        &self,
        commit: &Commit,
        changes: &[Timestamp],
        triggers: impl Iterator<Item = Trigger>,
        began: Timestamp,
        ended: Timestamp,
    ) {
        for seen in changes {
            self.queue.observe(since(*seen, began));
        }
        for trigger in triggers {
            self.family(trigger.ipv6)
                .programming
                .observe(since(trigger.at, ended));
        }
        if commit.is_empty() {
            return;
        }
        let took = since(began, ended);
        self.commit.observe(took);
        for ipv6 in [false, true] {
            let mut keys = commit.operations.iter().map(|operation| operation.key());
            if keys.any(|key| key.address().is_ipv6() == ipv6) {
                let family = self.family(ipv6);
                family.sync.observe(took);
                let now = u64::try_from(ended.as_millisecond()).unwrap_or(0);
                family.last.store(now, Ordering::Relaxed);
            }
        }
    }

    fn family(&self, ipv6: bool) -> &Family {
        &self.families[usize::from(ipv6)]
    }

    /// Appends all counts to a page for Prometheus; of a family only if there were any.
    pub fn write(&self, out: &mut String) {
        let families = || FAMILIES.iter().zip(&self.families);
        let used = || families().filter(|(_, family)| family.last.load(Ordering::Relaxed) != 0);
        head(
            out,
            SYNC,
            "histogram",
            "Time that a change of the packet rules took.",
        );
        for (name, family) in used() {
            Histogram::write(
                std::iter::once(&family.sync),
                SYNC,
                &format!("ip_family=\"{name}\""),
                out,
            );
        }
        head(out, LAST_SYNC, "gauge", "When the packet rules changed last.");
        for (name, family) in used() {
            let seconds = family.last.load(Ordering::Relaxed) as f64 / 1e3;
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{LAST_SYNC}{{ip_family=\"{name}\"}} {seconds}");
        }
        head(
            out,
            PROGRAMMING,
            "histogram",
            "From the change of a Pod or Service to the packet rules that follow from it.",
        );
        for (name, family) in used() {
            let labels = format!("ip_family=\"{name}\"");
            Histogram::write(std::iter::once(&family.programming), PROGRAMMING, &labels, out);
        }
        head(
            out,
            HOPS,
            "histogram",
            "Hops of a change of a Service: watch is from the durable write to this node, queue from there to the \
             transaction, commit the transaction in the kernel.",
        );
        let hops = [
            ("watch", &self.watch),
            ("queue", &self.queue),
            ("commit", &self.commit),
        ];
        for (hop, histogram) in hops {
            Histogram::write(std::iter::once(histogram), HOPS, &format!("hop=\"{hop}\""), out);
        }
    }
}

/// A quarter and half a second, seconds up to a minute, steps of five up to two, of thirty up to five.
fn programming_bounds() -> [f64; PROGRAMMING_BOUNDS] {
    let bounds = [0.25, 0.5].into_iter();
    let seconds = (1..=59)
        .chain((60..=115).step_by(5))
        .chain((120..=300).step_by(30));
    let mut bounds = bounds.chain(seconds.map(f64::from));
    std::array::from_fn(|_| bounds.next().unwrap_or(f64::INFINITY))
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    // A clock that was set back in between tells nothing.
    to.duration_since(from).try_into().unwrap_or_default()
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_dataplane::{Key, Operation, Value};
    use serde_json::json;
    use std::net::Ipv4Addr;

    #[test]
    fn bounds_are_upstreams() {
        let bounds = programming_bounds();
        assert_eq!(bounds[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(bounds[60..63], [59.0, 60.0, 65.0]);
        assert_eq!(bounds[72..75], [115.0, 120.0, 150.0]);
        assert_eq!(bounds[79], 300.0);
    }

    #[test]
    fn a_commit_is_counted_where_it_belongs() {
        let metrics = Metrics::default();
        let at = |milliseconds: i64| metrics.started + jiff::SignedDuration::from_millis(milliseconds);
        let slice = |trigger: Timestamp| -> EndpointSlice {
            let slice = json!({"metadata": {"annotations": {TRIGGER_TIME: trigger.to_string()}},
                "addressType": "IPv4", "endpoints": []});
            serde_json::from_value(slice).expect("a slice")
        };
        assert_eq!(metrics.trigger(&slice(at(-1))), None, "before this proxy");
        let trigger = metrics.trigger(&slice(at(1))).expect("a trigger");
        let operation = Operation::Add(Key::Hairpin(Ipv4Addr::LOCALHOST.into()), Value::Present);
        let commit = Commit {
            operations: vec![operation],
        };
        metrics.committed(&commit, &[at(400)], std::iter::once(trigger), at(400), at(402));
        metrics.committed(
            &Commit::default(),
            &[at(500)],
            std::iter::empty(),
            at(500),
            at(500),
        );
        metrics.seen(at(399), at(400));
        let mut page = String::new();
        metrics.write(&mut page);
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.001\"} 0\n",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.002\"} 1\n",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.25\"} 0\n",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.5\"} 1\n",
            "coracle_service_change_duration_seconds_count{hop=\"watch\"} 1\n",
            "coracle_service_change_duration_seconds_sum{hop=\"watch\"} 0.001\n",
            "coracle_service_change_duration_seconds_count{hop=\"queue\"} 2\n",
            "coracle_service_change_duration_seconds_count{hop=\"commit\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("IPv6"), "no change of that family");
    }
}
