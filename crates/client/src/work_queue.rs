//! Which keys a controller has to look at: each once however often it became dirty, never one twice at a time,
//! later after failures. A plain data structure; the driver brings the time. Upstream: `k8s.io/client-go/util/workqueue`.

use coracle_reconcile::Key;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// The wait after a first failure; doubled by each further one up to [`LONGEST_BACKOFF`].
pub const SHORTEST_BACKOFF: Duration = Duration::from_millis(5);
/// No key rests longer than this after a failure.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(64);

/// See the file's head.
#[derive(Debug, Default)]
pub struct WorkQueue {
    /// In the order in which they became dirty, and not being worked on.
    ready: VecDeque<Key>,
    /// Everything in `ready`, and what became dirty while it was worked on.
    dirty: HashSet<Key>,
    working: HashSet<Key>,
    /// When a key becomes dirty by itself; the two hold the same pairs.
    timers: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl WorkQueue {
    /// Makes a key dirty.
    pub fn add(&mut self, key: Key) {
        if self.dirty.contains(&key) {
            return;
        }
        if !self.working.contains(&key) {
            self.ready.push_back(key.clone());
        }
        self.dirty.insert(key);
    }

    /// Makes a key dirty at a time, or earlier if it already has an earlier timer.
    pub fn add_at(&mut self, key: Key, at: Instant) {
        if let Some(earlier) = self.due.get(&key) {
            if *earlier <= at {
                return;
            }
            self.timers.remove(&(*earlier, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
    }

    /// Makes a key dirty at a time, and not at that of an earlier timer: called again and again, it waits for quiet.
    pub fn put_off(&mut self, key: Key, until: Instant) {
        if let Some(earlier) = self.due.insert(key.clone(), until) {
            self.timers.remove(&(earlier, key.clone()));
        }
        self.timers.insert((until, key));
    }

    /// When the next timer fires.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next key to work on; it is this caller's until [`WorkQueue::done`].
    pub fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some((at, _)) = self.timers.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    /// Gives a key back. It is ready again at once if it became dirty meanwhile.
    pub fn done(&mut self, key: &Key) {
        self.working.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// Notes a success: the next failure is a first one.
    pub fn forget_failures(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// Notes a failure and sets the timer of the next attempt. Returns the number of failures in a row.
    pub fn failed(&mut self, key: &Key, now: Instant) -> u32 {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        let count = *failures;
        let wait = SHORTEST_BACKOFF.saturating_mul(1 << (count - 1).min(20));
        self.add_at(key.clone(), now + wait.min(LONGEST_BACKOFF));
        count
    }

    /// Nothing to do now or later, and nothing being done.
    pub fn is_idle(&self) -> bool {
        self.dirty.is_empty() && self.working.is_empty() && self.timers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_never_worked_on_twice_at_a_time() {
        let now = Instant::now();
        let mut queue = WorkQueue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.take(now), Some(key("a")));
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("b")));
        assert_eq!(queue.take(now), None, "a is being worked on");
        queue.done(&key("a"));
        assert_eq!(queue.take(now), Some(key("a")), "it became dirty meanwhile");
        queue.done(&key("a"));
        queue.done(&key("b"));
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn timers_fire_in_order_and_the_earlier_one_wins() {
        let start = Instant::now();
        let mut queue = WorkQueue::default();
        queue.add_at(key("late"), start + Duration::from_secs(9));
        queue.add_at(key("a"), start + Duration::from_secs(5));
        queue.add_at(key("a"), start + Duration::from_secs(7));
        queue.add_at(key("a"), start + Duration::from_secs(2));
        assert_eq!(queue.wake_at(), Some(start + Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(queue.take(Instant::now()), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(queue.take(Instant::now()), Some(key("a")));
        queue.done(&key("a"));
        assert_eq!(queue.wake_at(), Some(start + Duration::from_secs(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_put_off_waits_for_quiet() {
        let start = Instant::now();
        let quiet = Duration::from_secs(5);
        let mut queue = WorkQueue::default();
        for second in [0, 3, 6] {
            queue.put_off(key("a"), start + Duration::from_secs(second) + quiet);
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(queue.take(Instant::now()), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(queue.take(Instant::now()), Some(key("a")));
        assert_eq!(queue.wake_at(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_wait_up_to_a_bound_and_a_success_forgets_them() {
        let mut queue = WorkQueue::default();
        let mut waits = Vec::new();
        for _ in 0..16 {
            let now = Instant::now();
            queue.add(key("a"));
            assert_eq!(queue.take(now), Some(key("a")));
            queue.failed(&key("a"), now);
            queue.done(&key("a"));
            let at = queue.wake_at().expect("a failure sets a timer");
            waits.push(at - now);
            tokio::time::advance(at - now).await;
        }
        assert_eq!(waits[..4], [5, 10, 20, 40].map(Duration::from_millis));
        assert_eq!(waits[15], LONGEST_BACKOFF);
        queue.forget_failures(&key("a"));
        assert_eq!(queue.failed(&key("a"), Instant::now()), 1);
    }
}
