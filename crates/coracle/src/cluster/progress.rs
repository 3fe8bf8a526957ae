//! What a person sees while a cluster starts: each step, and how long it took.

use std::io::Write;
use std::time::{Duration, Instant};

/// Prints steps to standard output, one line each, with the time since the step before.
pub struct Progress {
    start: Instant,
    last: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
        }
    }

    /// A step is done.
    pub fn done(&mut self, what: &str) {
        let now = Instant::now();
        line(&format!("  {:>9}  {what}", format_duration(now - self.last)));
        self.last = now;
    }

    /// All steps are done.
    pub fn ready(&self, what: &str) {
        line(&format!(
            "Ready in {}: {what}",
            format_duration(self.start.elapsed())
        ));
    }
}

/// Prints a line now, also into a pipe. A closed pipe is no reason to end a cluster.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// `1.2 ms`, `340 ms`, `2.10 s`.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        m if m < 10.0 => format!("{m:.1} ms"),
        m if m < 1000.0 => format!("{m:.0} ms"),
        m => format!("{:.2} s", m / 1000.0),
    }
}
