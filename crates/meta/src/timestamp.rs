//! Times on the wire (`metav1.Time`, `metav1.MicroTime`) and ages for people.
//! Upstream: `k8s.io/apimachinery/pkg/apis/meta/v1` and `pkg/util/duration`.

use jiff::Timestamp;

/// `metav1.Time`: whole seconds, UTC; what is below a second is cut off.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: six digits below the second, UTC.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Any RFC 3339 time, or nothing.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An age as kubectl prints it, such as `5d3h`; `seconds` that are negative print as upstream's `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    // Clocks of two machines differ a little: the first two seconds of the future are now.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    let two = |major: i64, major_unit: &str, minor: i64, minor_unit: &str| {
        if minor == 0 {
            format!("{major}{major_unit}")
        } else {
            format!("{major}{major_unit}{minor}{minor_unit}")
        }
    };
    if seconds < 60 * 2 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return two(minutes, "m", seconds % 60, "s");
    }
    if minutes < 60 * 3 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    if hours < 8 {
        return two(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    let days = hours / 24;
    if hours < 24 * 8 {
        return two(days, "d", hours % 24, "h");
    }
    if hours < 24 * 365 * 2 {
        return format!("{days}d");
    }
    let years = days / 365;
    if hours < 24 * 365 * 8 {
        return two(years, "y", days % 365, "d");
    }
    format!("{years}y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_forms() {
        let time = parse("2024-02-29T12:30:45.123456789Z").expect("valid");
        assert_eq!(format_time(time), "2024-02-29T12:30:45Z");
        assert_eq!(format_micro_time(time), "2024-02-29T12:30:45.123456Z");
        assert_eq!(parse("2024-02-29T14:30:45+02:00"), parse("2024-02-29T12:30:45Z"));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn ages() {
        let (m, h, d, y) = (60, 3600, 86_400, 365 * 86_400);
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * m, "2m"),
            (9 * m + 59, "9m59s"),
            (10 * m + 5, "10m"),
            (3 * h - 1, "179m"),
            (3 * h, "3h"),
            (3 * h + m, "3h1m"),
            (8 * h + m, "8h"),
            (47 * h, "47h"),
            (48 * h, "2d"),
            (49 * h, "2d1h"),
            (8 * d, "8d"),
            (2 * y - 1, "729d"),
            (2 * y, "2y"),
            (2 * y + d, "2y1d"),
            (8 * y + d, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
