//! The state of one pod on its node: what is known, what is under way. Upstream: `pkg/kubelet/pod_workers.go`.
//!
//! A worker is fed with the pod object ([`PodWorker::update`]) and with outcomes ([`PodWorker::observe`]); it says
//! what to do ([`PodWorker::plan`]) and what to report ([`PodWorker::status`]).

use crate::back_off::BackOff;
use crate::container::{ContainerRecord, containers};
use crate::observation::Adopted;
use crate::plan::PodEvent;
use crate::termination::{Termination, Why};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::net::IpAddr;
use std::sync::Arc;

/// What holds for all pods of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node's addresses, the primary first.
    pub host_ips: Vec<IpAddr>,
    /// For how long SIGTERM is held at most until the data plane has taken the pod out.
    pub drain: SignedDuration,
}

/// Something to set up before containers can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetUp {
    Wanted,
    UnderWay,
    Done,
    Failed { retry_at: Timestamp },
}

impl SetUp {
    pub(crate) fn due(&self, now: Timestamp) -> bool {
        match self {
            Self::Wanted => true,
            Self::Failed { retry_at } => *retry_at <= now,
            Self::UnderWay | Self::Done => false,
        }
    }
}

/// The namespaces, network and shim of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sandbox {
    Absent,
    Creating,
    Ready { ips: Vec<IpAddr> },
    Failed { retry_at: Timestamp },
    Gone,
}

/// One pod of the node.
#[derive(Debug, Clone)]
pub struct PodWorker {
    pub(crate) pod: Arc<Pod>,
    pub(crate) settings: Arc<Settings>,
    /// `NAME_NAMESPACE(UID)`, the form of messages.
    pub(crate) full_name: String,
    pub(crate) host_network: bool,
    pub(crate) volumes: SetUp,
    pub(crate) volumes_back_off: BackOff,
    pub(crate) sandbox: Sandbox,
    pub(crate) sandbox_back_off: BackOff,
    /// Init containers, containers, ephemeral containers.
    pub(crate) containers: Vec<ContainerRecord>,
    /// Whether the init containers of this sandbox have done their part.
    pub(crate) initialized: bool,
    pub(crate) termination: Option<Termination>,
    /// Reason and message of a failure declared by the node.
    pub(crate) failure: Option<(String, String)>,
    pub(crate) started_at: Timestamp,
    /// What was reported last: the source of transition times.
    pub(crate) reported: PodStatus,
    pub(crate) events: Vec<PodEvent>,
    pub(crate) removals: Vec<String>,
}

impl PodWorker {
    /// A pod that has come to this node; `adopted` is what the runtime still has of it.
    pub fn new(pod: Arc<Pod>, adopted: Option<Adopted>, settings: Arc<Settings>, now: Timestamp) -> Self {
        let meta = &pod.metadata;
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let full_name = format!(
            "{}_{}({})",
            text(&meta.name),
            text(&meta.namespace),
            text(&meta.uid)
        );
        let reported = pod.status.clone().unwrap_or_default();
        let mut worker = Self {
            settings,
            full_name,
            host_network: pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true)),
            volumes: SetUp::Wanted,
            volumes_back_off: BackOff::SET_UP,
            sandbox: Sandbox::Absent,
            sandbox_back_off: BackOff::SET_UP,
            containers: Vec::new(),
            initialized: false,
            termination: None,
            failure: None,
            started_at: reported.start_time.as_ref().map_or(now, |t| t.0),
            reported,
            events: Vec::new(),
            removals: Vec::new(),
            pod,
        };
        worker.add_missing_containers();
        worker.recall(adopted.is_some());
        if let Some(adopted) = adopted {
            worker.adopt(adopted, now);
        }
        let phase = worker.reported.phase.as_deref();
        if matches!(phase, Some("Succeeded" | "Failed")) {
            worker.terminate(Why::Completed, now);
        }
        worker.check_deletion(now);
        worker
    }

    /// The object that the worker works on.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The pod's addresses, once it has a network.
    pub fn ips(&self) -> &[IpAddr] {
        match &self.sandbox {
            Sandbox::Ready { .. } if self.host_network => &self.settings.host_ips,
            Sandbox::Ready { ips } => ips,
            _ => &[],
        }
    }

    /// The records of its containers: init, main, ephemeral.
    pub fn containers(&self) -> &[ContainerRecord] {
        &self.containers
    }

    /// Takes a newer version of the object.
    pub fn update(&mut self, pod: Arc<Pod>, now: Timestamp) {
        self.pod = pod;
        self.add_missing_containers();
        self.check_deletion(now);
    }

    /// The object is gone from the API.
    pub fn removed(&mut self, now: Timestamp) {
        self.terminate(Why::Removed, now);
    }

    /// A ConfigMap or Secret that the pod refers to has changed: what failed may be tried again at once.
    pub fn dependency_changed(&mut self, now: Timestamp) {
        if matches!(self.volumes, SetUp::Failed { .. }) {
            self.volumes = SetUp::Wanted;
        }
        for record in &mut self.containers {
            record.retry_at = record.retry_at.map(|at| at.min(now));
        }
    }

    /// Declares the pod failed; it is ended.
    pub(crate) fn fail(&mut self, reason: &str, message: &str) {
        self.failure = Some((reason.to_owned(), message.to_owned()));
    }

    /// The node does not take the pod or evicts it.
    pub fn reject(&mut self, reason: &str, message: &str, now: Timestamp) {
        self.fail(reason, message);
        self.terminate(Why::Failed, now);
    }

    pub(crate) fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        Some(self.started_at + SignedDuration::from_secs(seconds))
    }

    pub(crate) fn event(
        &mut self,
        warning: bool,
        reason: &'static str,
        message: String,
        container: Option<&str>,
    ) {
        self.events.push(PodEvent {
            warning,
            reason,
            message,
            container: container.map(str::to_owned),
        });
    }

    fn check_deletion(&mut self, now: Timestamp) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.terminate(Why::Deleted, now);
        }
    }

    /// Ephemeral containers may be added to a pod at any time.
    fn add_missing_containers(&mut self) {
        let pod = self.pod.clone();
        for (role, container) in pod.spec.iter().flat_map(containers) {
            if !self.containers.iter().any(|c| c.name == container.name) {
                self.containers.push(ContainerRecord::new(&container.name, role));
            }
        }
    }
}
