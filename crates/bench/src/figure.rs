//! One line of JSON a figure.

use serde_json::json;

/// The middle of some samples.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a figure of one or more samples. A single value is its own median.
pub fn print(figure: &str, unit: &str, samples: &[f64]) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        let last = sorted.len().saturating_sub(1);
        let index = (quantile * last as f64).ceil() as usize;
        sorted
            .get(index.min(last))
            .copied()
            .map(|v| (v * 1000.0).round() / 1000.0)
    };
    let line = json!({
        "figure": figure, "unit": unit, "n": sorted.len(),
        "min": at(0.0), "p50": at(0.5), "p99": at(0.99), "max": at(1.0),
    });
    println!("{line}");
}
