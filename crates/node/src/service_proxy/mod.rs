//! The Service proxy of a node: turns Services, EndpointSlices and NetworkPolicies into packet rules, at once.
//! Upstream: kube-proxy; policies are left to network plugins there.
//!
//! A thread takes events, asks `coracle_dataplane` what has to change, and commits it to the kernel in microseconds;
//! there is no interval in which changes are collected. Where a change arrives it is in force when the next packet
//! comes. The rules outlive the process.

mod announcement;
mod connections;
mod elements;
mod health_check;
mod housekeeping;
mod informers;
mod iptables;
mod kernel_tables;
mod known_pods;
mod look;
mod metrics;
mod rules;
mod timeline;
mod worker;

pub use health_check::serve_health_checks;
pub use informers::{Clients, Written, follow};
pub use iptables::{Error as IptablesError, saved_chains};
pub use look::{Looked, look};
pub use metrics::Metrics;
pub use timeline::{LastChange, ServiceTimeline, Timeline};

use crate::data_plane::{DataPlane, DataPlaneError};
use announcement::Announcements;
use connections::Connections;
use coracle_dataplane::{Config, PolicyId, ServiceKey, Tables};
use coracle_kernel::net::conntrack::{self, Conntrack};
use coracle_kernel::net::{self, rtnetlink::Rtnetlink};
use futures::future::BoxFuture;
use health_check::HealthChecks;
use iptables::Iptables;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kernel_tables::KernelTables;
use known_pods::KnownPods;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use worker::{Message, Worker};

/// Something changed in the cluster.
#[derive(Debug, Clone)]
pub enum Event {
    /// A Service exists and looks like this.
    Service(Box<Service>),
    /// A Service is gone.
    ServiceGone(ServiceKey),
    /// An EndpointSlice exists and looks like this.
    EndpointSlice(Box<EndpointSlice>),
    /// An EndpointSlice is gone.
    EndpointSliceGone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A pod exists and looks like this; those of other nodes matter to NetworkPolicies alone.
    Pod(Box<Pod>),
    /// A pod is gone.
    PodGone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A namespace exists and looks like this.
    Namespace(Box<Namespace>),
    /// A namespace is gone.
    NamespaceGone(String),
    /// A NetworkPolicy exists and looks like this.
    NetworkPolicy(Box<NetworkPolicy>),
    /// A NetworkPolicy is gone.
    NetworkPolicyGone(PolicyId),
    /// The zone of this node.
    Zone(Option<String>),
    /// Everything that exists has been told. Nothing is changed before this comes for the first time.
    Synced,
}

/// Why the proxy does not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two proxies in one network namespace.
    #[error("the packet rules for Services belong to another process that is still running")]
    Owned,
    /// The kernel does not take the rules.
    #[error("set up the packet rules for Services")]
    Rules(#[source] net::Error),
    /// The kernel does not delete the rules.
    #[error("delete the packet rules for Services")]
    Delete(#[source] net::Error),
    /// Proxy mode iptables does not work here.
    #[error("write the packet rules for Services with iptables")]
    Iptables(#[source] IptablesError),
    /// No threads left.
    #[error("start a thread for the packet rules")]
    Thread(#[source] std::io::Error),
}

/// A running proxy. Dropping it ends its threads; the rules stay in force.
#[derive(Debug)]
pub struct ServiceProxy {
    messages: mpsc::Sender<Message>,
    timeline: Arc<Timeline>,
    metrics: Arc<Metrics>,
    health_checks: watch::Receiver<HealthChecks>,
    has_ipv6: bool,
    worker: Option<JoinHandle<Result<(), Error>>>,
}

impl ServiceProxy {
    /// Makes or adopts the packet rules in the network namespace of the calling thread, and starts to work there.
    pub fn start(config: Config) -> Result<Self, Error> {
        let refused = |error: net::Error| {
            if error.is_not_permitted() {
                Error::Owned
            } else {
                Error::Rules(error)
            }
        };
        let mut kernel = KernelTables::open(&config).map_err(refused)?;
        // Somebody took the programs away, and left what they made.
        let stay = |error: &IptablesError| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the chains of proxy mode iptables stay"
            );
        };
        let iptables = if config.by_iptables || kernel.followed_iptables() {
            match Iptables::open(config.families()) {
                Ok(iptables) => Some(iptables),
                Err(error) if config.by_iptables => return Err(Error::Iptables(error)),
                Err(error) => {
                    stay(&error);
                    None
                }
            }
        } else {
            None
        };
        // The chains first: the table says that there are any.
        let removed = Iptables::open(kernel.left_in_iptables()).and_then(|mut left| left.remove());
        if let Err(error) = removed {
            stay(&error);
        }
        kernel.delete_unused().map_err(refused)?;
        let conntrack = Conntrack::open().map_err(Error::Rules)?;
        if let Err(error) = conntrack::record_times() {
            // Nothing depends on it but the answer to when the first packet came.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "connections have no times"
            );
        }
        let addresses = Rtnetlink::open().map_err(Error::Rules)?;
        let link = Rtnetlink::open().map_err(Error::Rules)?;
        let timeline = Arc::new(Timeline::default());
        let metrics = Arc::new(Metrics::default());
        let has_ipv6 = config.families().any(|ipv6| ipv6);
        let (messages, inbox) = mpsc::channel();
        let (jobs, job_inbox) = mpsc::channel();
        let (health_checks, told) = watch::channel(HealthChecks::new());
        let worker = Worker {
            tables: Tables::new(config),
            kernel,
            timeline: Arc::clone(&timeline),
            metrics: Arc::clone(&metrics),
            triggers: Vec::new(),
            jobs,
            connections: Connections::new(messages.clone()),
            announcements: Announcements::new(link),
            iptables,
            health_checks,
            known_pods: KnownPods::default(),
            waiting: Vec::new(),
            uncommitted: Vec::new(),
            synced: false,
            grace_running: false,
            failed: false,
        };
        // It ends when the worker, which holds the other end of its inbox, ends.
        let back = messages.clone();
        std::thread::Builder::new()
            .name("service-flows".into())
            .spawn(move || housekeeping::run(conntrack, addresses, &job_inbox, &back))
            .map_err(Error::Thread)?;
        let worker = std::thread::Builder::new()
            .name("service-proxy".into())
            .spawn(move || worker.run(&inbox))
            .map_err(Error::Thread)?;
        Ok(Self {
            messages,
            timeline,
            metrics,
            health_checks: told,
            has_ipv6,
            worker: Some(worker),
        })
    }

    /// Tells the proxy what happened. Returns at once; events are worked off in order.
    pub fn send(&self, event: Event) {
        self.tell(Message::Event(event, Timestamp::now()));
    }

    /// Resolves when the rules for everything that exists are in force; until everything has been told once, those of
    /// the process before are.
    pub async fn in_force(&self) -> Result<(), DataPlaneError> {
        let (done, in_force) = oneshot::channel();
        self.tell(Message::InForce(done));
        in_force.await.map_err(|_| DataPlaneError)
    }

    /// When each Service came to be reachable.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// How long changes took.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether Services are handled in IPv6.
    fn has_ipv6(&self) -> bool {
        self.has_ipv6
    }

    /// What health checkers are told, whenever it changes.
    fn health_checks(&self) -> watch::Receiver<HealthChecks> {
        self.health_checks.clone()
    }

    /// Ends the proxy and deletes its rules: connections to Services stop working.
    pub fn delete(mut self) -> Result<(), Error> {
        self.end(true)
    }

    fn end(&mut self, delete: bool) -> Result<(), Error> {
        self.tell(Message::Stop { delete });
        match self.worker.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    fn tell(&self, message: Message) {
        if self.messages.send(message).is_err() {
            tracing::error!("the service proxy has died");
        }
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        if self.worker.is_some() && !std::thread::panicking() {
            // Without deleting there is nothing to fail.
            let _ = self.end(false);
        }
    }
}

impl DataPlane for ServiceProxy {
    fn drained(&self, ip: IpAddr, deadline: Instant) -> BoxFuture<'_, ()> {
        let (done, drained) = oneshot::channel();
        self.tell(Message::Drained(ip, done));
        Box::pin(async move {
            // An error says that the proxy has ended: then nothing more will change either.
            let _ = tokio::time::timeout_at(deadline, drained).await;
        })
    }

    fn secured(&self, pod: &Pod, ips: &[IpAddr]) -> BoxFuture<'_, Result<(), DataPlaneError>> {
        let (done, secured) = oneshot::channel();
        self.tell(Message::Attached(Box::new(pod.clone()), ips.to_vec(), done));
        Box::pin(async move { secured.await.map_err(|_| DataPlaneError) })
    }
}
