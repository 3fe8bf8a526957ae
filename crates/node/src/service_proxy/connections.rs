//! Counts the connections of endpoints, for Services that balance by load. Upstream: `ip_vs_dest.activeconns`.
//!
//! A thread listens to the kernel's connection tracking and tells the proxy of each count that changes. It runs only
//! while an endpoint has to be counted: nobody else pays for it. A connection counts from its first packet until one
//! side begins to close it (TCP, SCTP), or until it has been silent for as long as the kernel remembers it (UDP).

use super::worker::Message;
use coracle_dataplane::{Counted, Protocol, Target};
use coracle_kernel::net::Result;
use coracle_kernel::net::conntrack::{Conntrack, Event, Events, Flow, Tuple};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections of which the kernel may tell nothing that are looked at whenever something else happens.
const LOOKS: usize = 16;
/// For so long after a connection began, others may be expected to come as fast.
const CROWD: Duration = Duration::from_millis(10);

/// The counting thread, if there is something to count. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Connections {
    proxy: Sender<Message>,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    endpoints: Sender<BTreeSet<Counted>>,
    /// The thread wakes when this is written to, and ends when it is closed.
    wake: Option<PipeWriter>,
    handle: Option<JoinHandle<()>>,
}

impl Connections {
    /// Nothing is counted yet. Counts will be told to the proxy.
    pub fn new(proxy: Sender<Message>) -> Self {
        Self { proxy, thread: None }
    }

    /// Counts these from now on, and tells of all of them, in the network namespace of the calling thread.
    pub fn count(&mut self, endpoints: BTreeSet<Counted>) {
        if endpoints.is_empty() {
            self.thread = None;
            return;
        }
        if self.thread.is_none() {
            match Thread::start(self.proxy.clone()) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    tracing::error!(error = &*error, "cannot count connections");
                    return;
                }
            }
        }
        if let Some(thread) = &mut self.thread
            && !thread.tell(endpoints)
        {
            // It said why. The next change of endpoints starts another.
            self.thread = None;
        }
    }
}

impl Thread {
    /// The kernel tells from now on, whenever the thread comes to listen: of a connection that begins after this, it
    /// tells the end.
    fn start(proxy: Sender<Message>) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let (sleep, wake) = std::io::pipe()?;
        let (endpoints, inbox) = mpsc::channel();
        let counter = Counter {
            proxy,
            inbox,
            sleep,
            events: Events::open()?,
            conntrack: Some(Conntrack::open()?),
            stale: false,
            counts: Counts::default(),
        };
        let run = move || {
            if let Err(error) = counter.run() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "connections are counted no more"
                );
            }
        };
        let handle = std::thread::Builder::new()
            .name("service-counts".into())
            .spawn(run)?;
        Ok(Self {
            endpoints,
            wake: Some(wake),
            handle: Some(handle),
        })
    }

    /// False if it has ended.
    fn tell(&mut self, endpoints: BTreeSet<Counted>) -> bool {
        let told = self.endpoints.send(endpoints).is_ok();
        told && self
            .wake
            .as_mut()
            .is_some_and(|wake| wake.write_all(&[0]).is_ok())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(handle) = self.handle.take() {
            // A panic was reported where it happened.
            let _ = handle.join();
        }
    }
}

/// What the thread works with.
#[derive(Debug)]
struct Counter {
    proxy: Sender<Message>,
    inbox: Receiver<BTreeSet<Counted>>,
    sleep: PipeReader,
    events: Events,
    /// None after a failure: what is left of its answer would be taken for the next one.
    conntrack: Option<Conntrack>,
    /// What is counted is not what there is.
    stale: bool,
    counts: Counts,
}

impl Counter {
    fn run(mut self) -> Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// Waits until something happens and tells what came of it. False if nobody wants to know any more.
    fn step(&mut self) -> Result<bool> {
        let left = self
            .counts
            .crowd_until()
            .map(|end| end.saturating_duration_since(Instant::now()));
        if self.events.wait(self.sleep.as_fd(), left)? {
            match self.sleep.read(&mut [0; 64]) {
                Ok(1..) => (),
                Ok(0) | Err(_) => return Ok(false),
            }
            if let Some(endpoints) = self.inbox.try_iter().last() {
                self.counts.set_endpoints(endpoints);
                self.stale = true;
            }
        }
        if let Err(error) = self.count() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot count connections: counting anew when the next one comes or goes"
            );
            self.conntrack = None;
            self.stale = true;
        }
        self.counts.end_crowd(Instant::now());
        let news = self.counts.take_news(Instant::now());
        Ok(news.is_empty() || self.proxy.send(Message::Connections(news)).is_ok())
    }

    /// Takes in what the kernel has told.
    fn count(&mut self) -> Result<()> {
        if !self.events.read(|event| self.counts.note(&event))? {
            tracing::warn!("connections came faster than they were counted: counting anew");
            self.stale = true;
        }
        let conntrack = match &mut self.conntrack {
            Some(conntrack) => conntrack,
            None => self.conntrack.insert(Conntrack::open()?),
        };
        if self.stale {
            self.counts.list(conntrack)?;
            self.stale = false;
        }
        self.counts.look(conntrack)
    }
}

/// Which connections there are.
#[derive(Debug, Default)]
struct Counts {
    endpoints: BTreeMap<Counted, u32>,
    flows: HashMap<Tuple, (Counted, Flow)>,
    /// Of those, the ones that came from a listing: they may have begun before anybody listened, and then the kernel
    /// does not tell of their end.
    doubtful: VecDeque<Tuple>,
    /// Whose count is another now, and how many connections began there.
    news: BTreeMap<Counted, u32>,
    /// Where connections began lately, and since when.
    crowd: BTreeSet<Counted>,
    crowd_since: Option<Instant>,
}

impl Counts {
    /// Counts these, which are all news.
    fn set_endpoints(&mut self, endpoints: BTreeSet<Counted>) {
        self.endpoints = endpoints.into_iter().map(|endpoint| (endpoint, 0)).collect();
    }

    /// Counts anew what the kernel has now. Events that are older than the listing change nothing that later ones do
    /// not set right.
    fn list(&mut self, conntrack: &mut Conntrack) -> Result<()> {
        self.flows.clear();
        self.doubtful.clear();
        self.endpoints.values_mut().for_each(|count| *count = 0);
        let kinds: BTreeSet<(bool, Protocol)> = self
            .endpoints
            .keys()
            .map(|(protocol, target)| (target.is_ipv6(), *protocol))
            .collect();
        for (ipv6, protocol) in kinds {
            for flow in conntrack.flows(ipv6, protocol.number())? {
                if self.see(&flow) {
                    self.doubtful.push_back(flow.original);
                }
            }
        }
        self.news = self.endpoints.keys().map(|endpoint| (*endpoint, 0)).collect();
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Begun(flow) => {
                if self.see(flow)
                    && let Some(begun) = endpoint(flow).and_then(|endpoint| self.news.get_mut(&endpoint))
                {
                    *begun += 1;
                }
            }
            // Something else about it.
            Event::Changed(Flow { closing: None, .. }) => (),
            Event::Changed(flow) => {
                self.see(flow);
            }
            Event::Ended(flow) => self.forget(&flow.original),
        }
    }

    /// Counts a connection, or no more if it is closing. Whether it counts.
    fn see(&mut self, flow: &Flow) -> bool {
        if flow.closing == Some(true) {
            self.forget(&flow.original);
            return false;
        }
        let Some(endpoint) = endpoint(flow) else {
            return false;
        };
        let Some(count) = self.endpoints.get_mut(&endpoint) else {
            return false;
        };
        if self.flows.insert(flow.original, (endpoint, *flow)).is_none() {
            *count += 1;
            self.news.entry(endpoint).or_default();
        }
        true
    }

    fn forget(&mut self, tuple: &Tuple) {
        if let Some((endpoint, _)) = self.flows.remove(tuple)
            && let Some(count) = self.endpoints.get_mut(&endpoint)
        {
            *count -= 1;
            self.news.entry(endpoint).or_default();
        }
    }

    /// Looks at some of those whose end the kernel may not tell, if anything else happened.
    fn look(&mut self, conntrack: &mut Conntrack) -> Result<()> {
        if self.news.is_empty() {
            return Ok(());
        }
        for _ in 0..LOOKS.min(self.doubtful.len()) {
            let Some(tuple) = self.doubtful.pop_front() else {
                break;
            };
            let Some((_, flow)) = self.flows.get(&tuple) else {
                continue;
            };
            match conntrack.look(flow)? {
                Some(now) if now.closing != Some(true) => self.doubtful.push_back(tuple),
                _ => self.forget(&tuple),
            }
        }
        Ok(())
    }

    /// When it is to be said that no more are coming.
    fn crowd_until(&self) -> Option<Instant> {
        self.crowd_since.map(|since| since + CROWD)
    }

    /// Tells the counts once more, without new connections: the next one goes to the best.
    fn end_crowd(&mut self, now: Instant) {
        if self.crowd_until().is_some_and(|end| end <= now) {
            self.crowd_since = None;
            for endpoint in std::mem::take(&mut self.crowd) {
                self.news.entry(endpoint).or_default();
            }
        }
    }

    fn take_news(&mut self, now: Instant) -> Vec<(Counted, u32, u32)> {
        let crowd = self.news.iter().filter(|(_, begun)| **begun > 0);
        self.crowd.extend(crowd.map(|(endpoint, _)| *endpoint));
        if !self.crowd.is_empty() {
            self.crowd_since.get_or_insert(now);
        }
        let news = std::mem::take(&mut self.news).into_iter();
        news.filter_map(|(endpoint, begun)| Some((endpoint, *self.endpoints.get(&endpoint)?, begun)))
            .collect()
    }
}

/// Where a connection through a Service goes.
fn endpoint(flow: &Flow) -> Option<Counted> {
    let protocol = Protocol::from_number(flow.original.protocol)?;
    let (ip, port) = flow.reply.source;
    flow.destination_rewritten
        .then(|| (protocol, Target::new(ip, port)))
}

#[cfg(test)]
mod tests;
