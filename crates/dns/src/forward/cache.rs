//! Answers of resolvers, kept as long as they hold, and longer for when no resolver answers (RFC 2308, RFC 8767).

use crate::query::Question;
use crate::record_type::code;
use crate::records::{Answered, Records};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// However long a zone says that its records hold.
const LONGEST: u32 = 3600;
const LONGEST_NEGATIVE: u32 = 1800;
/// How long a failure is believed (RFC 9520): long enough that a storm of retries is answered from here.
const FAILURE: u32 = 2;
/// How long after its time an answer may still be given while no resolver answers.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// The lifetime that is told of such an answer, and how long after a failure no resolver is asked again for it.
const STALE_LIFETIME: u32 = 30;
/// An answer that is asked for this often is renewed before it ends.
const POPULAR: u32 = 3;
/// What an entry takes besides its records: the question in a table that is half empty, and the entry itself.
const OVERHEAD: usize = 2 * size_of::<Question>() + size_of::<Entry>();

/// An answer and how old it is.
#[derive(Debug)]
pub(crate) struct Entry {
    pub response_code: u16,
    pub authentic: bool,
    records: Records,
    born: Instant,
    lifetime: u32,
    /// When a stale answer may be tried to be renewed again, in seconds from `born`.
    retry: AtomicU32,
    asked: AtomicU32,
    renewing: AtomicBool,
}

/// What is known about a question.
#[derive(Debug)]
pub(crate) enum Known {
    /// It holds; `renew` once in a while, when that is soon over for an answer that is often asked for.
    Fresh { renew: bool },
    /// It held, and a resolver failed a moment ago.
    Stale,
    /// It held, and a resolver should be asked first.
    Expired,
    /// It is too old for anything.
    Gone,
}

impl Entry {
    pub fn new(answered: Answered, now: Instant) -> Self {
        let Answered {
            response_code,
            authentic,
            records,
            lifetime,
            ..
        } = answered;
        let lifetime = match response_code {
            code::NO_ERROR => lifetime.min(LONGEST),
            code::NX_DOMAIN => lifetime.min(LONGEST_NEGATIVE),
            _ => FAILURE,
        };
        Self {
            response_code,
            authentic,
            records,
            born: now,
            lifetime,
            retry: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            renewing: AtomicBool::new(false),
        }
    }

    /// Whether it says something about the name, be it that there is none.
    pub fn is_answer(&self) -> bool {
        matches!(self.response_code, code::NO_ERROR | code::NX_DOMAIN)
    }

    /// Whether it has no data: no such name, nothing of that type, or a failure.
    pub fn is_denial(&self) -> bool {
        self.response_code != code::NO_ERROR || !self.records.has_answers()
    }

    pub fn is_worth_keeping(&self) -> bool {
        self.lifetime > 0
    }

    /// Asked for now.
    pub fn ask(&self, now: Instant) -> Known {
        let age = now.saturating_duration_since(self.born);
        let lifetime = Duration::from_secs(self.lifetime.into());
        if age < lifetime {
            // The last tenth, or the last second of a short life.
            let is_late = age + Duration::from_secs(1).max(lifetime / 10) >= lifetime;
            // Counted no further than needed, so that processors do not write to the same place.
            let popular = self.asked.load(Ordering::Relaxed) >= POPULAR
                || self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= POPULAR;
            let renew =
                is_late && popular && self.is_answer() && !self.renewing.swap(true, Ordering::Relaxed);
            return Known::Fresh { renew };
        }
        if !self.is_answer() || age >= lifetime + STALE {
            return Known::Gone;
        }
        let retry = Duration::from_secs(self.retry.load(Ordering::Relaxed).into());
        if age < retry { Known::Stale } else { Known::Expired }
    }

    /// No resolver answered: what is known stays in use for a while.
    pub fn keep(&self, now: Instant) {
        let age = now.saturating_duration_since(self.born).as_secs();
        let retry = u32::try_from(age)
            .unwrap_or(u32::MAX)
            .saturating_add(STALE_LIFETIME);
        self.retry.store(retry, Ordering::Relaxed);
        self.renewing.store(false, Ordering::Relaxed);
    }

    /// The records, and what is left of a record's lifetime.
    pub fn records(&self, now: Instant) -> (&Records, impl Fn(u32) -> u32 + use<>) {
        let age = now.saturating_duration_since(self.born).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let lifetime = self.lifetime;
        let left = move |of: u32| match age {
            _ if age < lifetime => of.min(LONGEST).saturating_sub(age),
            _ => of.min(STALE_LIFETIME),
        };
        (&self.records, left)
    }

    fn size(&self) -> usize {
        OVERHEAD + self.records.size()
    }
}

/// A table of bounded size. Entries are in one of two generations: what is used is in the young one, and when that is
/// full it becomes the old one, whose entries are forgotten unless they were used meanwhile.
#[derive(Debug)]
pub(crate) struct Cache {
    generations: RwLock<Generations>,
    /// Bytes of a generation.
    most: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Question, Arc<Entry>>,
    young_size: usize,
    old: HashMap<Question, Arc<Entry>>,
}

impl Cache {
    /// A table that takes about this many bytes when it is full.
    pub fn new(bytes: usize) -> Self {
        Self {
            generations: RwLock::default(),
            most: bytes / 2,
        }
    }

    pub fn get(&self, question: &Question) -> Option<Arc<Entry>> {
        {
            let generations = self.generations.read();
            if let Some(entry) = generations.young.get(question) {
                return Some(entry.clone());
            }
            generations.old.get(question)?;
        }
        let mut generations = self.generations.write();
        let entry = generations.old.remove(question)?;
        generations.insert(*question, entry.clone(), self.most);
        Some(entry)
    }

    pub fn insert(&self, question: Question, entry: Arc<Entry>) {
        let mut generations = self.generations.write();
        generations.old.remove(&question);
        generations.insert(question, entry, self.most);
    }

    pub fn clear(&self) {
        *self.generations.write() = Generations::default();
    }

    /// The entries with data, and the others.
    pub fn count(&self) -> [usize; 2] {
        let generations = self.generations.read();
        let entries = generations.young.values().chain(generations.old.values());
        let all = generations.young.len() + generations.old.len();
        let denials = entries.filter(|entry| entry.is_denial()).count();
        [all - denials, denials]
    }
}

impl Generations {
    fn insert(&mut self, question: Question, entry: Arc<Entry>, most: usize) {
        self.young_size += entry.size();
        if let Some(before) = self.young.insert(question, entry) {
            self.young_size -= before.size();
        }
        if self.young_size > most {
            self.old = std::mem::take(&mut self.young);
            self.young_size = 0;
        }
    }
}

#[cfg(test)]
mod tests;
