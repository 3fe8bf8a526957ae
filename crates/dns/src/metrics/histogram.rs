//! How long things took, in Prometheus' text form. Counting is two additions, and never waits.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of durations up to each of N bounds, in seconds, and beyond.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Bounds each of which is the one before times a factor. Upstream: `prometheus.ExponentialBuckets`.
pub fn exponential<const N: usize>(first: f64, factor: f64) -> [f64; N] {
    let mut next = first;
    std::array::from_fn(|_| {
        let bound = next;
        next *= factor;
        bound
    })
}

impl<const N: usize> Histogram<N> {
    /// Nothing counted yet. The bounds rise.
    pub fn new(bounds: [f64; N]) -> Self {
        Self {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// Counts something that took so long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        let count = self.counts.get(place).unwrap_or(&self.beyond);
        count.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Appends the lines of a histogram to a page: the sum of some parts with the same bounds. Labels as in
    /// `a="1",b="2"`, or none.
    pub fn write<'a>(
        parts: impl Iterator<Item = &'a Self> + Clone,
        name: &str,
        labels: &str,
        out: &mut String,
    ) {
        let sum = |of: &dyn Fn(&Self) -> &AtomicU64| -> u64 {
            let parts = parts.clone();
            parts.map(|part| of(part).load(Ordering::Relaxed)).sum()
        };
        let bounds = parts.clone().next().map(|part| part.bounds);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut all = 0;
        // Writing to a string cannot fail.
        for (place, bound) in bounds.iter().flatten().enumerate() {
            all += sum(&|part| &part.counts[place]);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {all}");
        }
        all += sum(&|part| &part.beyond);
        let seconds = sum(&|part| &part.nanoseconds) as f64 / 1e9;
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {all}");
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(out, "{name}_sum{braces} {seconds}");
        let _ = writeln!(out, "{name}_count{braces} {all}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulative_and_parts_add_up() {
        let parts = [(); 2].map(|()| Histogram::new(exponential::<3>(0.001, 2.0)));
        for (part, microseconds) in [(0, 500), (1, 1_000), (0, 3_000), (1, 9_000)] {
            parts[part].observe(Duration::from_micros(microseconds));
        }
        let mut page = String::new();
        Histogram::write(parts.iter(), "x_seconds", "a=\"b\"", &mut page);
        assert_eq!(
            page,
            "x_seconds_bucket{a=\"b\",le=\"0.001\"} 2\n\
             x_seconds_bucket{a=\"b\",le=\"0.002\"} 2\n\
             x_seconds_bucket{a=\"b\",le=\"0.004\"} 3\n\
             x_seconds_bucket{a=\"b\",le=\"+Inf\"} 4\n\
             x_seconds_sum{a=\"b\"} 0.0135\n\
             x_seconds_count{a=\"b\"} 4\n"
        );
    }
}
