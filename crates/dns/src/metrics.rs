//! Counts of what was asked and answered, in Prometheus' text form.

use crate::record_type as rr;
use crate::record_type::code;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Types with a count of their own; the last stands for all others.
const TYPES: [(u16, &str); 12] = [
    (rr::A, "A"),
    (rr::AAAA, "AAAA"),
    (rr::SRV, "SRV"),
    (rr::PTR, "PTR"),
    (rr::CNAME, "CNAME"),
    (rr::TXT, "TXT"),
    (rr::SOA, "SOA"),
    (rr::NS, "NS"),
    (rr::MX, "MX"),
    (rr::HTTPS, "HTTPS"),
    (rr::SVCB, "SVCB"),
    (0, "other"),
];
const CODES: [(u16, &str); 8] = [
    (code::NO_ERROR, "NOERROR"),
    (code::FORM_ERR, "FORMERR"),
    (code::SERV_FAIL, "SERVFAIL"),
    (code::NX_DOMAIN, "NXDOMAIN"),
    (code::NOT_IMP, "NOTIMP"),
    (code::REFUSED, "REFUSED"),
    (code::BAD_VERS, "BADVERS"),
    (u16::MAX, "other"),
];
const PROTOCOLS: [&str; 2] = ["udp", "tcp"];

/// What is counted besides answers; each with the middle of its name and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    CacheHits,
    CacheMisses,
    Stale,
    Prefetches,
    SearchPaths,
    UpstreamAnswers,
    UpstreamFailures,
    Overloads,
}

const COUNTS: [(Count, &str, &str); 8] = [
    (
        Count::CacheHits,
        "cache_hits",
        "Forwarded names answered from the cache.",
    ),
    (
        Count::CacheMisses,
        "cache_misses",
        "Forwarded names that a resolver had to be asked for.",
    ),
    (
        Count::Stale,
        "cache_stale",
        "Answers given after their time because no resolver answered.",
    ),
    (
        Count::Prefetches,
        "cache_prefetches",
        "Popular answers renewed before their end.",
    ),
    (
        Count::SearchPaths,
        "search_paths",
        "Names found for clients along their search path.",
    ),
    (
        Count::UpstreamAnswers,
        "upstream_answers",
        "Answers of resolvers.",
    ),
    (
        Count::UpstreamFailures,
        "upstream_failures",
        "Questions that no resolver answered.",
    ),
    (
        Count::Overloads,
        "overloads",
        "Queries failed because too many waited for resolvers.",
    ),
];

/// Threads that count without getting in each other's way.
const SHARDS: usize = 8;

/// Counters of a server. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    shards: [Shard; SHARDS],
}

/// The counters of some threads, in cache lines of their own: a counter that two processors write costs both as much
/// as the rest of an answer.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// By protocol, type, code.
    responses: [[[AtomicU64; CODES.len()]; TYPES.len()]; PROTOCOLS.len()],
    counts: [AtomicU64; COUNTS.len()],
}

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

impl Metrics {
    /// An answer.
    pub fn answered(&self, over_tcp: bool, record_type: u16, response_code: u16) {
        let record_type = TYPES
            .iter()
            .position(|(t, _)| *t == record_type)
            .unwrap_or(TYPES.len() - 1);
        let code = CODES
            .iter()
            .position(|(c, _)| *c == response_code)
            .unwrap_or(CODES.len() - 1);
        self.mine().responses[usize::from(over_tcp)][record_type][code].fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, count: Count) {
        self.mine().counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self, count: Count) -> u64 {
        self.sum(|shard| &shard.counts[count as usize])
    }

    fn mine(&self) -> &Shard {
        &self.shards[SHARD.with(|shard| *shard)]
    }

    fn sum(&self, counter: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards
            .iter()
            .map(|shard| counter(shard).load(Ordering::Relaxed))
            .sum()
    }

    /// Appends all counts to a page for Prometheus; of the answers those that there were.
    pub fn write(&self, out: &mut String) {
        let responses = "coracle_dns_responses_total";
        head(
            out,
            responses,
            "Answered queries by protocol, type and response code.",
        );
        for (p, protocol) in PROTOCOLS.iter().enumerate() {
            for (t, (_, record_type)) in TYPES.iter().enumerate() {
                for (c, (_, code)) in CODES.iter().enumerate() {
                    let count = self.sum(|shard| &shard.responses[p][t][c]);
                    if count > 0 {
                        let labels = format!("proto=\"{protocol}\",type=\"{record_type}\",rcode=\"{code}\"");
                        // Writing to a string cannot fail.
                        let _ = writeln!(out, "{responses}{{{labels}}} {count}");
                    }
                }
            }
        }
        for (count, name, help) in COUNTS {
            let name = format!("coracle_dns_{name}_total");
            head(out, &name, help);
            let _ = writeln!(out, "{name} {}", self.get(count));
        }
    }
}

fn head(out: &mut String, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_its_place() {
        for (place, (count, ..)) in COUNTS.iter().enumerate() {
            assert_eq!(*count as usize, place);
        }
    }

    #[test]
    fn a_page() {
        let metrics = Metrics::default();
        metrics.answered(false, rr::A, code::NO_ERROR);
        metrics.answered(false, rr::A, code::NO_ERROR);
        metrics.answered(true, 999, code::BAD_VERS);
        metrics.add(Count::SearchPaths);
        let mut page = String::new();
        metrics.write(&mut page);
        for line in [
            "# TYPE coracle_dns_responses_total counter\n",
            "coracle_dns_responses_total{proto=\"udp\",type=\"A\",rcode=\"NOERROR\"} 2\n",
            "coracle_dns_responses_total{proto=\"tcp\",type=\"other\",rcode=\"BADVERS\"} 1\n",
            "coracle_dns_search_paths_total 1\n",
            "coracle_dns_cache_hits_total 0\n",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }
}
