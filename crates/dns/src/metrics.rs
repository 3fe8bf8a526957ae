//! Counts of what was asked and answered, in Prometheus' text form.

use crate::record_type as rr;
use crate::record_type::code;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Counters of a server. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By protocol, type, code.
    responses: [[[AtomicU64; CODES.len()]; TYPES.len()]; PROTOCOLS.len()],
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) stale: Counter,
    pub(crate) prefetches: Counter,
    pub(crate) search_paths: Counter,
    pub(crate) upstream_answers: Counter,
    pub(crate) upstream_failures: Counter,
    pub(crate) overloads: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    pub(crate) fn count(&self, over_tcp: bool, record_type: u16, response_code: u16) {
        let record_type = TYPES
            .iter()
            .position(|(t, _)| *t == record_type)
            .unwrap_or(TYPES.len() - 1);
        let code = CODES
            .iter()
            .position(|(c, _)| *c == response_code)
            .unwrap_or(CODES.len() - 1);
        self.responses[usize::from(over_tcp)][record_type][code].fetch_add(1, Ordering::Relaxed);
    }

    /// Appends all counts that are not zero to a page for Prometheus.
    pub fn write(&self, out: &mut String) {
        head(
            out,
            "coracle_dns_responses_total",
            "Answered queries by protocol, type and response code.",
        );
        for (protocol, by_type) in PROTOCOLS.iter().zip(&self.responses) {
            for ((_, record_type), by_code) in TYPES.iter().zip(by_type) {
                for ((_, code), count) in CODES.iter().zip(by_code) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        // Writing to a string cannot fail.
                        let _ = writeln!(
                            out,
                            "coracle_dns_responses_total{{proto=\"{protocol}\",type=\"{record_type}\",rcode=\"{code}\"}} {count}"
                        );
                    }
                }
            }
        }
        for (name, help, counter) in [
            (
                "cache_hits",
                "Forwarded names answered from the cache.",
                &self.cache_hits,
            ),
            (
                "cache_misses",
                "Forwarded names that a resolver had to be asked for.",
                &self.cache_misses,
            ),
            (
                "cache_stale",
                "Answers given after their time because no resolver answered.",
                &self.stale,
            ),
            (
                "cache_prefetches",
                "Popular answers renewed before their end.",
                &self.prefetches,
            ),
            (
                "search_paths",
                "Names found for clients along their search path.",
                &self.search_paths,
            ),
            (
                "upstream_answers",
                "Answers of resolvers.",
                &self.upstream_answers,
            ),
            (
                "upstream_failures",
                "Questions that no resolver answered.",
                &self.upstream_failures,
            ),
            (
                "overloads",
                "Queries failed because too many waited for resolvers.",
                &self.overloads,
            ),
        ] {
            let name = format!("coracle_dns_{name}_total");
            head(out, &name, help);
            let _ = writeln!(out, "{name} {}", counter.get());
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
    fn a_page() {
        let metrics = Metrics::default();
        metrics.count(false, rr::A, code::NO_ERROR);
        metrics.count(false, rr::A, code::NO_ERROR);
        metrics.count(true, 999, code::BAD_VERS);
        metrics.search_paths.add();
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
