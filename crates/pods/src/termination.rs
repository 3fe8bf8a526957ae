//! The end of containers and pods: preStop, drain, SIGTERM, SIGKILL, tear down, delete.
//! Upstream: `kuberuntime.killContainer`, `terminationOrdering`, `Kubelet.SyncTerminatingPod`.
//!
//! Invariant: SIGTERM is sent only after the data plane has taken the pod out (or [`Settings::drain`] is over), so
//! a request that was sent before arrives at a program that still answers.
//!
//! [`Settings::drain`]: crate::Settings

use crate::container::{Once, Role, Stop, find};
use crate::plan::{Action, Plan};
use crate::pod_worker::{PodWorker, Sandbox, SetUp};
use jiff::{SignedDuration, Timestamp};

/// What a container gets between SIGTERM and SIGKILL at least.
const MINIMUM_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// Why a pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its object has a deletion timestamp.
    Deleted,
    /// Its object is gone without waiting for the node.
    Removed,
    /// Its containers have done what they were to do.
    Completed,
    /// The node has declared it failed.
    Failed,
}

/// The end of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Termination {
    pub why: Why,
    /// Seconds for each container from `since`.
    pub grace: i64,
    pub since: Timestamp,
    pub drain: Once,
    pub torn_down: Once,
    /// After a tear down that failed.
    pub retry_at: Option<Timestamp>,
    pub deleted: Once,
}

impl PodWorker {
    /// Begins the end, or gives it a stronger reason or less time.
    pub(crate) fn terminate(&mut self, why: Why, now: Timestamp) {
        let grace = self.grace_seconds();
        let drains = matches!(why, Why::Deleted | Why::Removed);
        match &mut self.termination {
            None => {
                let serves = self
                    .containers
                    .iter()
                    .any(|c| c.role == Role::Main && c.is_active());
                let drain = if drains && serves && !self.host_network {
                    Once::Wanted
                } else {
                    Once::Done
                };
                self.termination = Some(Termination {
                    why,
                    grace,
                    since: now,
                    drain,
                    torn_down: Once::Wanted,
                    retry_at: None,
                    deleted: if why == Why::Deleted {
                        Once::Wanted
                    } else {
                        Once::Done
                    },
                });
            }
            Some(termination) => {
                if drains && termination.why != Why::Removed {
                    let first = termination.why != Why::Deleted;
                    termination.why = why;
                    termination.deleted = match why {
                        Why::Removed => Once::Done,
                        _ if first => Once::Wanted,
                        _ => termination.deleted,
                    };
                }
                if grace < termination.grace {
                    termination.grace = grace;
                    let latest = now + SignedDuration::from_secs(grace);
                    for stop in self
                        .containers
                        .iter_mut()
                        .filter_map(|c| c.running_mut()?.stop.as_mut())
                    {
                        stop.kill_at = stop.kill_at.min(latest);
                    }
                }
            }
        }
    }

    fn grace_seconds(&self) -> i64 {
        let spec = self.pod.spec.as_ref();
        self.pod
            .metadata
            .deletion_grace_period_seconds
            .or_else(|| spec?.termination_grace_period_seconds)
            .unwrap_or(30)
            .max(1)
    }

    /// Begins the end of one running container.
    pub(crate) fn begin_stop(
        &mut self,
        index: usize,
        message: String,
        grace: i64,
        restart: bool,
        now: Timestamp,
    ) {
        let record = &mut self.containers[index];
        let name = record.name.clone();
        let has_hook = find(&self.pod, &name)
            .is_some_and(|(_, c)| c.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some()));
        let Some(running) = record.running_mut() else {
            return;
        };
        running.stop = Some(Stop {
            kill_at: now + SignedDuration::from_secs(grace),
            pre_stop: if has_hook && grace > 0 {
                Once::Wanted
            } else {
                Once::Done
            },
            signalled: false,
            killed: false,
            restart,
        });
        self.event(false, "Killing", message, Some(&name));
    }

    /// Moves every container that is to end a step further.
    pub(crate) fn stop_containers(&mut self, now: Timestamp, plan: &mut Plan) {
        let Some((grace, since)) = self.termination.as_ref().map(|t| (t.grace, t.since)) else {
            return self.advance_stops(true, now, plan);
        };
        for index in 0..self.containers.len() {
            let record = &self.containers[index];
            if record.running().is_some_and(|r| r.stop.is_none()) {
                let message = format!("Stopping container {}", record.name);
                let left = grace - now.duration_since(since).as_secs();
                self.begin_stop(index, message, left.max(0), false, now);
            }
        }
        let drained = self.advance_drain(now, plan);
        self.advance_stops(drained, now, plan);
    }

    /// Whether the signal may be sent as far as the data plane is concerned.
    fn advance_drain(&mut self, now: Timestamp, plan: &mut Plan) -> bool {
        let limit = self.settings.drain;
        let Some(termination) = &mut self.termination else {
            return true;
        };
        let deadline = termination.since + limit.min(SignedDuration::from_secs(termination.grace));
        match termination.drain {
            Once::Done => return true,
            _ if now >= deadline => {
                termination.drain = Once::Done;
                return true;
            }
            Once::Wanted => {
                termination.drain = Once::UnderWay;
                plan.actions.push(Action::AwaitDrain { deadline });
            }
            Once::UnderWay => {}
        }
        plan.wake_at(deadline);
        false
    }

    fn advance_stops(&mut self, drained: bool, now: Timestamp, plan: &mut Plan) {
        for index in 0..self.containers.len() {
            let turn = self.is_its_turn(index);
            let pod = self.pod.clone();
            let record = &mut self.containers[index];
            let name = record.name.clone();
            let Some(running) = record.running_mut() else {
                continue;
            };
            let id = running.id.clone();
            let Some(stop) = &mut running.stop else { continue };
            let over = now >= stop.kill_at;
            if stop.pre_stop == Once::Wanted {
                stop.pre_stop = Once::UnderWay;
                plan.actions.push(Action::RunPreStop {
                    container: name.clone(),
                    id: id.clone(),
                    deadline: stop.kill_at,
                });
            }
            let may_signal = over || (stop.pre_stop == Once::Done && turn && drained);
            if may_signal && !stop.signalled {
                stop.signalled = true;
                stop.kill_at = stop.kill_at.max(now + MINIMUM_GRACE);
                let signal = find(&pod, &name).and_then(|(_, c)| c.lifecycle.as_ref()?.stop_signal.clone());
                plan.actions.push(Action::Signal {
                    container: name.clone(),
                    id: id.clone(),
                    signal,
                });
            } else if over && stop.signalled && !stop.killed {
                stop.killed = true;
                plan.actions.push(Action::Kill { container: name, id });
            }
            if !stop.killed {
                plan.wake_at(stop.kill_at);
            }
        }
    }

    /// Sidecars end after the main containers, the last one first; everything else at once.
    fn is_its_turn(&self, index: usize) -> bool {
        if self.termination.is_none() || self.containers[index].role != Role::Sidecar {
            return true;
        }
        self.containers.iter().enumerate().all(|(other, c)| {
            let before = c.role == Role::Main || (c.role == Role::Sidecar && other > index);
            !before || !c.is_active()
        })
    }

    /// After the last container: tear down, then delete the object.
    pub(crate) fn finish(&mut self, now: Timestamp, plan: &mut Plan) {
        let quiet = !self.containers.iter().any(|c| c.is_active())
            && self.volumes != SetUp::UnderWay
            && self.sandbox != Sandbox::Creating;
        let Some(termination) = &mut self.termination else {
            return;
        };
        if !quiet {
            return;
        }
        if let Some(at) = termination.retry_at
            && termination.torn_down == Once::Wanted
            && at > now
        {
            return plan.wake_at(at);
        }
        if termination.torn_down == Once::Wanted {
            termination.torn_down = Once::UnderWay;
            plan.actions.push(Action::TearDown);
        }
        if termination.torn_down == Once::Done && termination.deleted == Once::Wanted {
            termination.deleted = Once::UnderWay;
            plan.actions.push(Action::DeletePod);
        }
    }

    /// Whether everything of the pod is gone from the node and nothing is left to do for it: after a tear down, if
    /// the object is gone too.
    pub fn is_gone(&self) -> bool {
        self.termination
            .as_ref()
            .is_some_and(|t| t.torn_down == Once::Done && matches!(t.why, Why::Removed))
    }

    /// Whether nothing of the pod runs or will run.
    pub fn is_terminal(&self) -> bool {
        self.termination.is_some() && !self.containers.iter().any(|c| c.is_active())
    }
}
