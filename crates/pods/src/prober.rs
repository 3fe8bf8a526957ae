//! When a probe is due and what its results mean. Upstream: `pkg/kubelet/prober/worker.go`.
//!
//! Unlike upstream the first readiness and startup probe is made the moment the container runs, and during the
//! first period failures are retried quickly: these early attempts count for success only, so that a program is
//! found ready within milliseconds of listening and a slow one is not blamed for starting.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Probe;

/// What a probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Whether the container has started; the other two wait for it.
    Startup,
    /// Whether it has to be restarted.
    Liveness,
    /// Whether it gets traffic.
    Readiness,
}

impl ProbeKind {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What has become of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Whether a failure is worth an event: early attempts are not.
    pub counted: bool,
    /// Whether the verdict is another than before.
    pub changed: bool,
}

/// One probe of one running container.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeWorker {
    kind: ProbeKind,
    period: SignedDuration,
    timeout: SignedDuration,
    failure_threshold: i32,
    success_threshold: i32,
    verdict: Option<bool>,
    last: Option<bool>,
    run: i32,
    /// When the next probe is due; absent while one is made and when no more are needed.
    next: Option<Timestamp>,
    /// When the probe now being made began.
    began: Option<Timestamp>,
    /// Until when failures are early attempts, and how long to wait after the next one.
    early_until: Timestamp,
    early_delay: SignedDuration,
}

impl ProbeWorker {
    /// The probe of a container that runs since `started_at`; `not_before` is when its startup probe succeeded.
    /// `seed` is the verdict of a container adopted after a restart of the node's daemon.
    pub fn new(
        kind: ProbeKind,
        probe: &Probe,
        started_at: Timestamp,
        not_before: Timestamp,
        seed: Option<bool>,
    ) -> Self {
        let seconds = |value: Option<i32>, default: i32, least: i32| {
            SignedDuration::from_secs(i64::from(value.unwrap_or(default).max(least)))
        };
        let period = seconds(probe.period_seconds, 10, 1);
        let initial_delay = seconds(probe.initial_delay_seconds, 0, 0);
        let mut first = (started_at + initial_delay).max(not_before);
        if kind == ProbeKind::Liveness && initial_delay.is_zero() {
            // Nobody waits for a liveness verdict, and a program that just starts is not to be blamed.
            first += period;
        }
        Self {
            kind,
            period,
            timeout: seconds(probe.timeout_seconds, 1, 1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            verdict: seed.or(match kind {
                ProbeKind::Startup => None,
                ProbeKind::Liveness => Some(true),
                ProbeKind::Readiness => Some(false),
            }),
            last: None,
            run: 0,
            next: Some(first),
            began: None,
            early_until: match kind {
                ProbeKind::Liveness => first,
                _ if seed == Some(true) => first,
                _ => first + period,
            },
            early_delay: SignedDuration::from_millis(if probe.exec.is_some() { 200 } else { 20 }),
        }
    }

    /// Success, failure, or for a startup probe not known yet.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// How long a probe may take.
    pub fn timeout(&self) -> SignedDuration {
        self.timeout
    }

    /// When the next probe is due.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.next
    }

    /// Marks the probe as being made.
    pub fn begin(&mut self, now: Timestamp) {
        self.next = None;
        self.began = Some(now);
    }

    /// No more probes.
    pub fn stop(&mut self) {
        self.next = None;
        self.began = None;
    }

    /// Takes the result of the probe that was begun last.
    pub fn record(&mut self, success: bool, now: Timestamp) -> Recorded {
        let Some(began) = self.began.take() else {
            return Recorded {
                counted: false,
                changed: false,
            };
        };
        if !success && began < self.early_until {
            self.last = None;
            self.run = 0;
            self.next = Some((now + self.early_delay).min(self.early_until));
            self.early_delay *= 2;
            return Recorded {
                counted: false,
                changed: false,
            };
        }
        self.early_until = self.early_until.min(began);
        self.next = Some((began + self.period).max(now));
        self.run = if self.last == Some(success) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.run < threshold {
            return Recorded {
                counted: true,
                changed: false,
            };
        }
        let changed = self.verdict != Some(success);
        self.verdict = Some(success);
        let decided = match self.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !success,
            ProbeKind::Readiness => false,
        };
        if decided {
            self.stop();
        }
        Recorded {
            counted: true,
            changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + millis).expect("in range")
    }

    fn probe() -> Probe {
        Probe {
            period_seconds: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        }
    }

    fn attempt(worker: &mut ProbeWorker, success: bool) -> (i64, Recorded) {
        let due = worker.due_at().expect("due");
        worker.begin(due);
        assert_eq!(worker.due_at(), None, "one at a time");
        let recorded = worker.record(success, due);
        (due.as_millisecond() - at(0).as_millisecond(), recorded)
    }

    #[test]
    fn readiness_is_eager_in_the_first_period_and_strict_later() {
        let mut worker = ProbeWorker::new(ProbeKind::Readiness, &probe(), at(0), at(0), None);
        let mut times = Vec::new();
        for _ in 0..9 {
            let (time, recorded) = attempt(&mut worker, false);
            times.push((time, recorded.counted));
        }
        let early = [0, 20, 60, 140, 300, 620, 1260].map(|t| (t, false));
        assert_eq!(times[..7], early, "doubling up to the period");
        assert_eq!(times[7..], [(2000, true), (4000, true)]);
    }

    #[test]
    fn readiness_needs_its_thresholds() {
        let mut worker = ProbeWorker::new(ProbeKind::Readiness, &probe(), at(0), at(0), None);
        let (_, recorded) = attempt(&mut worker, true);
        assert_eq!((worker.verdict(), recorded.changed), (Some(true), true));
        for _ in 0..2 {
            let (_, recorded) = attempt(&mut worker, false);
            assert_eq!((worker.verdict(), recorded.counted), (Some(true), true));
        }
        let (time, recorded) = attempt(&mut worker, false);
        assert_eq!(
            (time, worker.verdict(), recorded.changed),
            (6000, Some(false), true)
        );
        assert!(worker.due_at().is_some(), "readiness goes on");
    }

    #[test]
    fn liveness_waits_a_period_and_stops_after_its_verdict() {
        let mut worker = ProbeWorker::new(ProbeKind::Liveness, &probe(), at(0), at(0), None);
        assert_eq!(worker.verdict(), Some(true));
        let times: Vec<i64> = (0..3).map(|_| attempt(&mut worker, false).0).collect();
        assert_eq!(times, [2000, 4000, 6000]);
        assert_eq!((worker.verdict(), worker.due_at()), (Some(false), None));
    }

    #[test]
    fn startup_decides_once() {
        let delayed = Probe {
            initial_delay_seconds: Some(1),
            ..probe()
        };
        let mut worker = ProbeWorker::new(ProbeKind::Startup, &delayed, at(0), at(0), None);
        assert_eq!(worker.verdict(), None);
        let (time, _) = attempt(&mut worker, true);
        assert_eq!(
            (time, worker.verdict(), worker.due_at()),
            (1000, Some(true), None)
        );
    }

    #[test]
    fn an_adopted_container_keeps_its_verdict() {
        let mut worker = ProbeWorker::new(ProbeKind::Readiness, &probe(), at(-60_000), at(0), Some(true));
        let (_, recorded) = attempt(&mut worker, false);
        assert_eq!((worker.verdict(), recorded.counted), (Some(true), true));
    }
}
