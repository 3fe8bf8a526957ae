//! Exponential back-off: of restarts and image pulls from 10 s to 300 s, forgotten after 10 minutes of peace.
//! Upstream: `client-go/util/flowcontrol.Backoff` with the kubelet's constants.

use jiff::{SignedDuration, Timestamp};

/// The back-off of one thing: nothing to wait for until [`BackOff::next`] was called once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    initial: SignedDuration,
    max: SignedDuration,
    entry: Option<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

impl BackOff {
    /// Of restarts and image pulls.
    pub const RESTART: Self = Self::new(SignedDuration::from_secs(10), SignedDuration::from_secs(300));
    /// Of volumes and sandboxes that could not be set up.
    pub const SET_UP: Self = Self::new(SignedDuration::from_millis(500), SignedDuration::from_secs(122));

    const fn new(initial: SignedDuration, max: SignedDuration) -> Self {
        Self {
            initial,
            max,
            entry: None,
        }
    }

    /// The current delay; zero before the first failure.
    pub fn delay(&self) -> SignedDuration {
        self.entry.map_or(SignedDuration::ZERO, |e| e.delay)
    }

    /// Until when a retry after a failure at `failed_at` has to wait, if that is still ahead of `now`.
    pub fn until(&self, failed_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entry.filter(|e| !self.expired(e, failed_at))?;
        let end = failed_at + entry.delay;
        (end > now).then_some(end)
    }

    /// Notes a retry at `now` after a failure at `failed_at`: the next one waits twice as long.
    pub fn next(&mut self, failed_at: Timestamp, now: Timestamp) {
        let delay = match self.entry {
            Some(entry) if !self.expired(&entry, failed_at) => (entry.delay * 2).min(self.max),
            _ => self.initial,
        };
        self.entry = Some(Entry { delay, updated: now });
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.entry = None;
    }

    /// A failure long after the last retry counts as the first one.
    fn expired(&self, entry: &Entry, failed_at: Timestamp) -> bool {
        failed_at.duration_since(entry.updated) > self.max * 2
    }
}

/// Go's `Duration.String` for whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_seconds(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    #[test]
    fn doubles_to_the_cap_and_forgets() {
        let mut back_off = BackOff::RESTART;
        assert_eq!(back_off.until(at(0), at(0)), None);
        let mut delays = Vec::new();
        let mut now = 0;
        for _ in 0..7 {
            back_off.next(at(now), at(now));
            delays.push(go_seconds(back_off.delay()));
            now += back_off.delay().as_secs();
        }
        assert_eq!(delays, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
        assert_eq!(back_off.until(at(now), at(now)), Some(at(now + 300)));
        assert_eq!(back_off.until(at(now), at(now + 300)), None);
        let later = now + 601;
        assert_eq!(back_off.until(at(later), at(later)), None, "ten minutes of peace");
        back_off.next(at(later), at(later));
        assert_eq!(go_seconds(back_off.delay()), "10s");
    }
}
