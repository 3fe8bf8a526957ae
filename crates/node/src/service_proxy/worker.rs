//! The proxy's thread: takes events in order, and commits what follows from them at once.

use super::Error;
use super::Event;
use super::announcement::Announcements;
use super::connections::Connections;
use super::health_check::HealthChecks;
use super::housekeeping::Job;
use super::iptables::Iptables;
use super::kernel_tables::KernelTables;
use super::known_pods::KnownPods;
use super::metrics::{Metrics, Trigger};
use super::timeline::Timeline;
use coracle_dataplane::{Commit, Counted, Grace, ServiceKey, Tables};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use tokio::sync::{oneshot, watch};

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Something changed in the cluster, seen at this moment.
    Event(Event, Timestamp),
    /// Answer when nothing is sent to this address any more.
    Drained(IpAddr, oneshot::Sender<()>),
    /// A pod was attached to the network with these addresses: answer when its policies are in force.
    Attached(Box<Pod>, Vec<IpAddr>, oneshot::Sender<()>),
    /// Answer when the rules for everything that was told are in force.
    InForce(oneshot::Sender<()>),
    /// Every packet that was on its way at that moment has passed.
    GracePassed(Grace),
    /// So many connections do these endpoints have, and so many of them are new.
    Connections(Vec<(Counted, u32, u32)>),
    /// End; with `true` the rules go too.
    Stop {
        /// Whether the rules go.
        delete: bool,
    },
}

/// State of the thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub tables: Tables,
    pub kernel: KernelTables,
    pub timeline: Arc<Timeline>,
    pub metrics: Arc<Metrics>,
    /// What made EndpointSlices change since the last transaction.
    pub triggers: Vec<Trigger>,
    pub jobs: Sender<Job>,
    pub connections: Connections,
    pub announcements: Announcements,
    /// In proxy mode iptables; in the other one, until the chains that the last process left are gone.
    pub iptables: Option<Iptables>,
    pub health_checks: watch::Sender<HealthChecks>,
    pub known_pods: KnownPods,
    pub waiting: Vec<(IpAddr, oneshot::Sender<()>)>,
    /// Who waits for the next commit.
    pub uncommitted: Vec<oneshot::Sender<()>>,
    /// Everything that exists has been seen once. Until then the rules of the last process stay as they are.
    pub synced: bool,
    pub grace_running: bool,
    /// The last commit failed twice: what the kernel holds is not known.
    pub failed: bool,
}

impl Worker {
    /// Works until told to stop, or until nobody is left to tell anything.
    pub fn run(mut self, messages: &Receiver<Message>) -> Result<(), Error> {
        while let Ok(first) = messages.recv() {
            let mut sweep = None;
            // What has arrived together is committed together. Nothing is waited for.
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Event(event, at) => self.feed(event, at),
                    Message::Drained(ip, done) => self.waiting.push((ip, done)),
                    Message::Attached(pod, ips, done) => {
                        self.tables.set_pod(&self.known_pods.attach(*pod, &ips));
                        self.uncommitted.push(done);
                    }
                    Message::InForce(done) => self.uncommitted.push(done),
                    Message::GracePassed(grace) => sweep = Some(grace),
                    Message::Connections(counts) => {
                        for (endpoint, connections, begun) in counts {
                            self.tables.set_connections(endpoint, connections, begun);
                        }
                    }
                    Message::Stop { delete: true } => return self.delete(),
                    Message::Stop { delete: false } => return Ok(()),
                }
            }
            if !self.synced {
                continue;
            }
            self.change();
            for done in self.uncommitted.drain(..) {
                if !self.failed {
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
            }
            if let Some(grace) = sweep {
                self.grace_running = false;
                let commit = self.tables.sweep(grace);
                self.commit(&commit);
                self.sweep_chains();
            }
            if !self.grace_running
                && let Some(grace) = self.tables.begin_grace()
            {
                self.grace_running = self.jobs.send(Job::Grace(grace)).is_ok();
            }
            let tables = &self.tables;
            let gone = self.waiting.extract_if(.., |(ip, _)| !tables.sends_to(*ip));
            for (_, done) in gone {
                // Whoever asked may have given up.
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn delete(mut self) -> Result<(), Error> {
        if let Some(iptables) = &mut self.iptables {
            iptables.remove().map_err(Error::Iptables)?;
        }
        self.announcements.withdraw().map_err(Error::Delete)?;
        self.kernel.delete().map_err(Error::Delete)
    }

    /// In proxy mode iptables, writes the chains of the Services.
    fn write_iptables(&mut self) {
        if self.tables.config().by_iptables
            && let Some(iptables) = &mut self.iptables
            && let Err(error) = iptables.write(&self.tables)
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot change the chains of iptables"
            );
        }
    }

    /// Takes away what a process in the other proxy mode left, once the tables have everything.
    fn leave_iptables(&mut self) {
        if !self.tables.config().by_iptables
            && let Some(mut iptables) = self.iptables.take()
            && let Err(error) = iptables.remove()
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the chains of proxy mode iptables stay"
            );
        }
    }

    /// Deletes chains that belong to one frontend and are used no more.
    fn sweep_chains(&mut self) {
        if let Err(error) = self.kernel.sweep_chains(self.tables.state()) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot delete unused chains"
            );
        }
    }

    fn feed(&mut self, event: Event, at: Timestamp) {
        match event {
            Event::Service(service) => {
                // Other writes, such as of conditions, are no change on its way to the packets.
                let is_new = self.tables.set_service(&service);
                if let (true, Some(namespace), Some(name)) =
                    (is_new, &service.metadata.namespace, &service.metadata.name)
                {
                    self.timeline.service_seen(&ServiceKey::new(namespace, name), at);
                }
            }
            Event::ServiceGone(key) => self.tables.remove_service(&key),
            Event::EndpointSlice(slice) => {
                let is_new = self.tables.set_slice(&slice);
                if let Some(key) = Tables::service_of(&slice) {
                    if is_new {
                        self.timeline.endpoints_seen(&key, at);
                    }
                    self.triggers.extend(self.metrics.trigger(&slice));
                }
            }
            Event::EndpointSliceGone { namespace, name } => self.tables.remove_slice(&namespace, &name),
            Event::Pod(pod) => self.tables.set_pod(&self.known_pods.applied(pod)),
            Event::PodGone { namespace, name } => {
                self.tables.remove_pod(&namespace, &name);
                if let Some(successor) = self.known_pods.gone(&namespace, &name) {
                    self.tables.set_pod(successor);
                }
            }
            Event::Namespace(namespace) => self.tables.set_namespace(&namespace),
            Event::NamespaceGone(name) => self.tables.remove_namespace(&name),
            Event::NetworkPolicy(policy) => self.tables.set_policy(&policy),
            Event::NetworkPolicyGone(id) => self.tables.remove_policy(&id),
            Event::Zone(zone) => self.tables.set_zone(zone),
            Event::Synced => self.sync(),
        }
    }

    /// From the first time on that everything is known, the kernel follows. What the last process left is read, so
    /// that only differences are written; no packet meets a moment without rules.
    fn sync(&mut self) {
        if self.synced {
            return;
        }
        self.synced = true;
        // Before the tables of the other proxy mode are replaced.
        self.write_iptables();
        self.adopt();
        // The commit that follows replaces the rules of another version, too, even if nothing else is different.
    }

    fn adopt(&mut self) {
        match self.kernel.dump() {
            Ok(state) => {
                self.failed = false;
                self.tables.adopt(state);
            }
            Err(error) => {
                self.failed = true;
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the packet rules"
                );
            }
        }
    }

    fn change(&mut self) {
        if self.failed {
            self.adopt();
        }
        let change = self.tables.change();
        let began = Timestamp::now();
        // Before a connection can begin that is to be counted.
        if let Some(endpoints) = self.tables.counted() {
            self.connections.count(endpoints);
        }
        if !change.services.is_empty() {
            self.write_iptables();
        }
        self.commit(&change.commit);
        if self.failed {
            return;
        }
        let ended = Timestamp::now();
        self.leave_iptables();
        if let Some(addresses) = self.tables.announced()
            && let Err(error) = self.announcements.announce(addresses)
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot announce the addresses of load balancers"
            );
        }
        if !change.commit.is_empty() {
            let operations = change.commit.operations.len();
            tracing::debug!(
                operations,
                services = change.services.len(),
                "packet rules changed"
            );
        }
        // A load balancer that is told of an endpoint sends packets, for which the rules must be there.
        let health_checks = self.tables.health_checks();
        self.health_checks.send_if_modified(|told| {
            let is_new = told != health_checks;
            if is_new {
                told.clone_from(health_checks);
            }
            is_new
        });
        let seen = self.timeline.committed(&change, &self.tables, began, ended);
        let triggers = self.triggers.drain(..);
        self.metrics
            .committed(&change.commit, &seen, triggers, began, ended);
        if !change.flows.is_empty() && self.jobs.send(Job::Flows(change.flows)).is_err() {
            tracing::error!("the thread that ends udp flows has died");
        }
    }

    /// Commits. If the kernel refuses, what it holds is read again and the difference is tried once more.
    fn commit(&mut self, commit: &Commit) {
        let Err(error) = self.kernel.commit(commit) else {
            return;
        };
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "cannot change the packet rules"
        );
        self.adopt();
        if self.failed {
            return;
        }
        let again = self.tables.change();
        if let Err(error) = self.kernel.commit(&again.commit) {
            self.failed = true;
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot change the packet rules"
            );
        }
    }
}
