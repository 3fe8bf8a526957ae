//! Counts of what was asked and answered, in Prometheus' text form: under CoreDNS' names where it has the same count,
//! under our own where it has none. To its dashboards this is the server block `.` of one server.
//! Upstream: `plugin/metrics/vars`, `plugin/cache/metrics.go`.

mod histogram;

pub use histogram::{Histogram, exponential};

use crate::record_type as rr;
use crate::record_type::code;
use crate::respond::Client;
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
/// The numbers of IPv4 and IPv6, by which CoreDNS calls them.
const FAMILIES: [&str; 2] = ["1", "2"];
/// Bounds of the time that an answer takes.
const BOUNDS: usize = 16;

/// What is counted besides answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    CacheHits,
    CacheDenials,
    CacheMisses,
    Stale,
    Prefetches,
    SearchPaths,
    UpstreamAnswers,
    UpstreamFailures,
    Overloads,
}

/// What CoreDNS calls the halves of its cache: addresses and other data, and that there are none.
const CACHE_TYPES: [&str; 2] = ["success", "denial"];
const CACHE_HITS: &str = "coredns_cache_hits_total";

/// Name and help of each. Counts of one name follow each other; `type` tells them apart.
const COUNTS: [(Count, &str, &str); 9] = [
    (
        Count::CacheHits,
        CACHE_HITS,
        "Forwarded names answered from the cache.",
    ),
    (
        Count::CacheDenials,
        CACHE_HITS,
        "Forwarded names answered from the cache.",
    ),
    (
        Count::CacheMisses,
        "coredns_cache_misses_total",
        "Forwarded names that a resolver had to be asked for.",
    ),
    (
        Count::Stale,
        "coredns_cache_served_stale_total",
        "Answers given after their time because no resolver answered.",
    ),
    (
        Count::Prefetches,
        "coredns_cache_prefetch_total",
        "Popular answers renewed before their end.",
    ),
    (
        Count::SearchPaths,
        "coracle_dns_search_paths_total",
        "Names found for clients along their search path.",
    ),
    (
        Count::UpstreamAnswers,
        "coracle_dns_upstream_answers_total",
        "Answers of resolvers.",
    ),
    (
        Count::UpstreamFailures,
        "coracle_dns_upstream_failures_total",
        "Questions that no resolver answered.",
    ),
    (
        Count::Overloads,
        "coracle_dns_overloads_total",
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
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    /// By protocol, family, type, code.
    responses: [[[[AtomicU64; CODES.len()]; TYPES.len()]; FAMILIES.len()]; PROTOCOLS.len()],
    counts: [AtomicU64; COUNTS.len()],
    durations: Histogram<BOUNDS>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            responses: Default::default(),
            counts: Default::default(),
            // `plugin.TimeBuckets`.
            durations: Histogram::new(exponential(0.00025, 2.0)),
        }
    }
}

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

impl Metrics {
    /// An answer.
    pub fn answered(&self, client: &Client, record_type: u16, response_code: u16) {
        let record_type = TYPES
            .iter()
            .position(|(t, _)| *t == record_type)
            .unwrap_or(TYPES.len() - 1);
        let code = CODES
            .iter()
            .position(|(c, _)| *c == response_code)
            .unwrap_or(CODES.len() - 1);
        let shard = self.mine();
        let family = usize::from(client.address.is_ipv6());
        shard.responses[usize::from(client.over_tcp)][family][record_type][code]
            .fetch_add(1, Ordering::Relaxed);
        shard.durations.observe(client.since.elapsed());
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

    /// Appends all counts to a page for Prometheus; of the answers those that there were. `remembered` are the answers
    /// in the cache: those with data, and the others.
    pub fn write(&self, server: &str, remembered: [usize; 2], out: &mut String) {
        let (requests, responses) = ("coredns_dns_requests_total", "coredns_dns_responses_total");
        let server = format!("server=\"{server}\",view=\"\"");
        let (of_zone, of_zones) = (format!("{server},zone=\".\""), format!("{server},zones=\".\""));
        let asked = self.asked();
        head(out, requests, "counter", "Queries by protocol, family and type.");
        for (labels, answers) in &asked {
            let all: u64 = answers.iter().map(|(_, count)| count).sum();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{requests}{{{of_zone},{labels}}} {all}");
        }
        head(
            out,
            responses,
            "counter",
            "Answers by response code, with what was asked.",
        );
        for (labels, answers) in &asked {
            for (code, count) in answers {
                let _ = writeln!(out, "{responses}{{{of_zone},{labels},rcode=\"{code}\"}} {count}");
            }
        }
        let durations = "coredns_dns_request_duration_seconds";
        head(out, durations, "histogram", "From a query to its answer.");
        let parts = self.shards.iter().map(|shard| &shard.durations);
        Histogram::write(parts, durations, &of_zone, out);
        let mut last = "";
        for (count, name, help) in COUNTS {
            if name != last {
                head(out, name, "counter", help);
            }
            last = name;
            let labels = match count {
                Count::CacheHits => format!("{{{of_zones},type=\"{}\"}}", CACHE_TYPES[0]),
                Count::CacheDenials => format!("{{{of_zones},type=\"{}\"}}", CACHE_TYPES[1]),
                _ if name.starts_with("coredns_") => format!("{{{of_zones}}}"),
                _ => String::new(),
            };
            let _ = writeln!(out, "{name}{labels} {}", self.get(count));
        }
        let entries = "coredns_cache_entries";
        head(out, entries, "gauge", "Remembered answers of resolvers.");
        for (of, remembered) in CACHE_TYPES.iter().zip(remembered) {
            let _ = writeln!(out, "{entries}{{{of_zones},type=\"{of}\"}} {remembered}");
        }
    }

    /// What was asked, as labels, with the answers to it that there were.
    fn asked(&self) -> Vec<(String, Vec<(&'static str, u64)>)> {
        let mut asked = Vec::new();
        for (p, protocol) in PROTOCOLS.iter().enumerate() {
            for (f, family) in FAMILIES.iter().enumerate() {
                for (t, (_, record_type)) in TYPES.iter().enumerate() {
                    let labels = format!("proto=\"{protocol}\",family=\"{family}\",type=\"{record_type}\"");
                    let answers = CODES.iter().enumerate().map(|(c, (_, code))| {
                        let count = self.sum(|shard| &shard.responses[p][f][t][c]);
                        (*code, count)
                    });
                    let answers: Vec<_> = answers.filter(|(_, count)| *count > 0).collect();
                    if !answers.is_empty() {
                        asked.push((labels, answers));
                    }
                }
            }
        }
        asked
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn each_count_has_its_place() {
        for (place, (count, ..)) in COUNTS.iter().enumerate() {
            assert_eq!(*count as usize, place);
        }
    }

    #[test]
    fn a_page() {
        let metrics = Metrics::default();
        let (here, there) = (
            Client::new(Ipv4Addr::LOCALHOST.into(), false),
            Client::new(Ipv6Addr::LOCALHOST.into(), true),
        );
        metrics.answered(&here, rr::A, code::NO_ERROR);
        metrics.answered(&here, rr::A, code::NX_DOMAIN);
        metrics.answered(&there, 999, code::BAD_VERS);
        metrics.add(Count::SearchPaths);
        metrics.add(Count::CacheHits);
        let mut page = String::new();
        metrics.write("dns://10.96.0.10:53", [7, 2], &mut page);
        const SERVER: &str = "server=\"dns://10.96.0.10:53\",view=\"\"";
        for line in [
            "# TYPE coredns_dns_responses_total counter\n".to_owned(),
            format!(
                "coredns_dns_requests_total{{{SERVER},zone=\".\",proto=\"udp\",family=\"1\",type=\"A\"}} 2\n"
            ),
            format!(
                "coredns_dns_responses_total{{{SERVER},zone=\".\",proto=\"udp\",family=\"1\",type=\"A\",rcode=\"NXDOMAIN\"}} 1\n"
            ),
            format!(
                "coredns_dns_responses_total{{{SERVER},zone=\".\",proto=\"tcp\",family=\"2\",type=\"other\",rcode=\"BADVERS\"}} 1\n"
            ),
            format!("coredns_dns_request_duration_seconds_bucket{{{SERVER},zone=\".\",le=\"0.00025\"}} "),
            format!("coredns_dns_request_duration_seconds_count{{{SERVER},zone=\".\"}} 3\n"),
            format!("coredns_cache_hits_total{{{SERVER},zones=\".\",type=\"success\"}} 1\n"),
            format!("coredns_cache_hits_total{{{SERVER},zones=\".\",type=\"denial\"}} 0\n"),
            format!("coredns_cache_misses_total{{{SERVER},zones=\".\"}} 0\n"),
            format!("coredns_cache_entries{{{SERVER},zones=\".\",type=\"success\"}} 7\n"),
            format!("coredns_cache_entries{{{SERVER},zones=\".\",type=\"denial\"}} 2\n"),
            "coracle_dns_search_paths_total 1\n".to_owned(),
        ] {
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
        assert_eq!(page.matches("# TYPE coredns_cache_hits_total").count(), 1);
    }
}
