//! Names that are not the cluster's: asked of the host's own resolvers, or of those that a ConfigMap names, and
//! remembered.

mod cache;
mod config;
mod resolv_conf;
mod upstream;

pub(crate) use cache::Entry;
pub use config::{ConfigError, ForwardConfig};

use crate::metrics::{Count, Metrics};
use crate::name::Name;
use crate::query::Question;
use crate::record_type::HINFO;
use crate::records::Answered;
use cache::{Cache, Known};
use parking_lot::{Mutex, RwLock};
use resolv_conf::ResolvConf;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use upstream::{Group, Upstream};

/// Most bytes of remembered answers.
const CACHE: usize = 16 << 20;
/// Most questions that wait for resolvers at once.
const MOST_WAITING: usize = 1024;
/// How long a client waits for a resolver when there is an old answer (RFC 8767, 5).
const PATIENCE_WITH_STALE: Duration = Duration::from_millis(1800);

/// Asks resolvers. Clones share everything.
#[derive(Debug, Clone)]
pub struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The host's resolvers, if they are not fixed.
    resolv_conf: Option<ResolvConf>,
    settings: Mutex<Settings>,
    routes: RwLock<Arc<Routes>>,
    cache: Cache,
    waiting: Mutex<HashMap<Question, Waiting>>,
    metrics: Arc<Metrics>,
}

/// Told when the answer is there.
type Waiting = watch::Receiver<Option<Arc<Entry>>>;

/// What routes are made from.
#[derive(Debug, Default)]
struct Settings {
    host: Vec<SocketAddr>,
    config: ForwardConfig,
    /// Where we are asked ourselves.
    own: Vec<SocketAddr>,
}

/// Who is asked for what.
#[derive(Debug)]
struct Routes {
    /// The longest domain first.
    stub_domains: Vec<(Name, Arc<Group>)>,
    upstream: Arc<Group>,
}

impl Forwarder {
    /// Asks these resolvers.
    pub fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self::with(resolvers, None)
    }

    /// Asks the resolvers of this resolv.conf, and others when it changes.
    pub fn following(resolv_conf: PathBuf) -> Self {
        Self::with(Vec::new(), Some(ResolvConf::new(resolv_conf)))
    }

    fn with(host: Vec<SocketAddr>, resolv_conf: Option<ResolvConf>) -> Self {
        let settings = Settings {
            host,
            ..Settings::default()
        };
        Self(Arc::new(Inner {
            resolv_conf,
            routes: RwLock::new(Arc::new(settings.routes())),
            settings: Mutex::new(settings),
            cache: Cache::new(CACHE),
            waiting: Mutex::default(),
            metrics: Arc::default(),
        }))
    }

    /// Stub domains and resolvers from now on. What was remembered is forgotten if that changes anything.
    pub fn configure(&self, config: ForwardConfig) {
        if self.change(|settings| std::mem::replace(&mut settings.config, config) != settings.config) {
            self.look_for_loops();
        }
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Whether a resolver was found to forward to us.
    #[cfg(test)]
    pub(crate) fn has_excluded(&self) -> bool {
        let routes = self.0.routes.read();
        routes
            .upstreams()
            .any(|upstream| upstream.is_excluded(Instant::now()))
    }

    /// How many answers are remembered: those with data, and those that there is none.
    pub(crate) fn remembered(&self) -> [usize; 2] {
        self.0.cache.count()
    }

    /// We are asked here, so it is nowhere to ask.
    pub(crate) fn add_own(&self, address: SocketAddr) {
        self.change(|settings| {
            settings.own.push(address);
            true
        });
    }

    /// An answer that can be given at once.
    pub(crate) fn lookup(&self, question: &Question, now: Instant) -> Option<Arc<Entry>> {
        let entry = self.0.cache.get(question)?;
        match entry.ask(now) {
            Known::Fresh { renew } => {
                self.0.metrics.add(if entry.is_denial() {
                    Count::CacheDenials
                } else {
                    Count::CacheHits
                });
                if renew {
                    self.0.metrics.add(Count::Prefetches);
                    // Nobody waits for it.
                    let _ = self.enqueue(question);
                }
            }
            Known::Stale => self.0.metrics.add(Count::Stale),
            Known::Expired | Known::Gone => return None,
        }
        Some(entry)
    }

    /// An answer from a resolver, or an old one if none answers, or a failure.
    pub(crate) async fn resolve(&self, question: &Question) -> Arc<Entry> {
        self.0.metrics.add(Count::CacheMisses);
        let now = Instant::now();
        let stale = self
            .0
            .cache
            .get(question)
            .filter(|e| matches!(e.ask(now), Known::Stale | Known::Expired));
        let Some(mut answer) = self.enqueue(question) else {
            self.0.metrics.add(Count::Overloads);
            return stale.unwrap_or_else(|| Arc::new(Entry::new(Answered::failure(), now)));
        };
        let answer = async {
            match answer.wait_for(Option::is_some).await.map(|entry| entry.clone()) {
                Ok(Some(entry)) => entry,
                // The task is gone without an answer.
                _ => Arc::new(Entry::new(Answered::failure(), now)),
            }
        };
        let Some(stale) = stale else { return answer.await };
        let is_down = self.routes(now).group(&question.name).is_down(now);
        let patience = if is_down {
            Duration::ZERO
        } else {
            PATIENCE_WITH_STALE
        };
        timeout(patience, answer).await.unwrap_or_else(|_| {
            self.0.metrics.add(Count::Stale);
            stale.keep(now);
            stale
        })
    }

    /// Has a resolver asked, unless it is already; absent if too many are. The question is asked to its end even if
    /// nobody waits any more: the next client will want to know.
    fn enqueue(&self, question: &Question) -> Option<Waiting> {
        let mut waiting = self.0.waiting.lock();
        if let Some(answer) = waiting.get(question) {
            return Some(answer.clone());
        }
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        let (sender, answer) = watch::channel(None);
        waiting.insert(*question, answer.clone());
        let asked = Asked {
            forwarder: self.clone(),
            question: *question,
        };
        tokio::spawn(async move {
            let entry = asked.ask().await;
            // From here on the question can be asked anew.
            drop(asked);
            sender.send_replace(Some(entry));
        });
        Some(answer)
    }

    async fn ask(&self, question: &Question) -> Arc<Entry> {
        let group = self.routes(Instant::now()).group(&question.name).clone();
        let answered = group.ask(question).await;
        if answered.is_some() {
            self.0.metrics.add(Count::UpstreamAnswers);
        } else {
            self.0.metrics.add(Count::UpstreamFailures);
            // Perhaps a resolver has come to forward to us, and waits for our answer.
            self.look_for_loops();
        }
        let now = Instant::now();
        let entry = Arc::new(Entry::new(answered.unwrap_or_else(Answered::failure), now));
        let old = self.0.cache.get(question);
        match old.filter(|old| !entry.is_answer() && !matches!(old.ask(now), Known::Gone)) {
            Some(old) => {
                old.keep(now);
                old
            }
            None => {
                if entry.is_worth_keeping() {
                    self.0.cache.insert(*question, entry.clone());
                }
                entry
            }
        }
    }

    fn routes(&self, now: Instant) -> Arc<Routes> {
        let host = self.0.resolv_conf.as_ref().and_then(|file| file.changed(now));
        if let Some(host) = host
            && self.change(|settings| std::mem::replace(&mut settings.host, host) != settings.host)
        {
            self.look_for_loops();
        }
        self.0.routes.read().clone()
    }

    /// What was remembered came from others: it is forgotten.
    fn change(&self, change: impl FnOnce(&mut Settings) -> bool) -> bool {
        let mut settings = self.0.settings.lock();
        let changed = change(&mut settings);
        if changed {
            *self.0.routes.write() = Arc::new(settings.routes());
            self.0.cache.clear();
        }
        changed
    }

    /// Finds out which resolvers of this host forward to us: they would have us ask for ever.
    pub(crate) fn look_for_loops(&self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        for upstream in self.routes(Instant::now()).upstreams() {
            let upstream = upstream.clone();
            runtime.spawn(async move { upstream.look_for_loop().await });
        }
    }

    /// Whether a client asks what only we can have asked.
    pub(crate) fn came_back(&self, question: &Question) -> bool {
        if question.record_type != HINFO {
            return false;
        }
        let routes = self.0.routes.read();
        let Some(upstream) = routes
            .upstreams()
            .find(|upstream| upstream.probe == question.name)
        else {
            return false;
        };
        if !upstream.is_excluded(Instant::now()) {
            tracing::warn!(
                resolver = %upstream.address,
                "resolver forwards to the cluster DNS and is not used, or questions would go round for ever"
            );
            upstream.exclude();
        }
        true
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// A question that is being asked.
struct Asked {
    forwarder: Forwarder,
    question: Question,
}

impl Asked {
    async fn ask(&self) -> Arc<Entry> {
        self.forwarder.ask(&self.question).await
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.forwarder.0.waiting.lock().remove(&self.question);
    }
}

impl Settings {
    fn routes(&self) -> Routes {
        let group = |addresses: &[SocketAddr]| {
            let (own, others): (Vec<_>, Vec<_>) = addresses.iter().partition(|a| self.own.contains(a));
            for address in own {
                tracing::debug!(%address, "the cluster DNS does not ask itself");
            }
            Arc::new(Group::new(others))
        };
        let stubs = self.config.stub_domains.iter();
        Routes {
            stub_domains: stubs
                .map(|(domain, addresses)| (*domain, group(addresses)))
                .collect(),
            upstream: group(self.config.upstream.as_ref().unwrap_or(&self.host)),
        }
    }
}

impl Routes {
    fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let groups = self.stub_domains.iter().map(|(_, group)| group);
        groups.chain([&self.upstream]).flat_map(|group| &group.upstreams)
    }

    fn group(&self, name: &Name) -> &Arc<Group> {
        let stub = self
            .stub_domains
            .iter()
            .find(|(domain, _)| name.before(domain).is_some());
        stub.map_or(&self.upstream, |(_, group)| group)
    }
}

#[cfg(test)]
mod tests;
