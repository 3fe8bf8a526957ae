//! The lines of the CRI log format: `TIME stdout|stderr F|P TEXT`. Pure.

use jiff::Timestamp;

/// Which lines, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on after the end.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
    /// Only lines since then.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// `Stdout` or `Stderr`; both if absent.
    pub stream: Option<String>,
}

/// Turns lines of files into what a client sees.
#[derive(Debug)]
pub struct Filter {
    options: Options,
    left: Option<u64>,
    /// The line before had no end: no time before the next piece.
    continues: bool,
}

impl Filter {
    /// Without having seen a line.
    pub fn new(options: Options) -> Self {
        Self {
            left: options.limit_bytes,
            options,
            continues: false,
        }
    }

    /// Whether the limit of bytes is reached.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what the client sees of a line (without its newline). A malformed line is passed as it is.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some((time, stream, partial, text)) = parse(line) else {
            let whole = [line, b"\n"].concat();
            return self.push(&whole, out);
        };
        if let Some(wanted) = &self.options.stream
            && !stream.eq_ignore_ascii_case(wanted)
        {
            return;
        }
        if let Some(since) = self.options.since
            && time.parse::<Timestamp>().is_ok_and(|at| at < since)
        {
            return;
        }
        if self.options.timestamps && !self.continues {
            let prefix = format!("{time} ");
            self.push(prefix.as_bytes(), out);
        }
        self.continues = partial;
        self.push(text, out);
        if !partial {
            self.push(b"\n", out);
        }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let room = self.left.map_or(bytes.len(), |left| {
            usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
        });
        out.extend_from_slice(&bytes[..room]);
        if let Some(left) = &mut self.left {
            *left -= room as u64;
        }
    }
}

/// Time, stream, whether the line goes on, text.
fn parse(line: &[u8]) -> Option<(&str, &str, bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    let text = parts.next()?;
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some((time, stream, partial, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = [
        "2026-01-01T00:00:01.000000001Z stdout F first",
        "2026-01-01T00:00:02.000000001Z stdout P sec",
        "2026-01-01T00:00:02.000000002Z stdout F ond",
        "2026-01-01T00:00:03.000000001Z stderr F oops, two words",
    ];

    fn seen(options: Options) -> String {
        let mut filter = Filter::new(options);
        let mut out = Vec::new();
        for line in LINES {
            filter.line(line.as_bytes(), &mut out);
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_are_selected_and_joined() {
        assert_eq!(seen(Options::default()), "first\nsecond\noops, two words\n");
        let timestamps = Options {
            timestamps: true,
            ..Options::default()
        };
        assert_eq!(
            seen(timestamps),
            "2026-01-01T00:00:01.000000001Z first\n2026-01-01T00:00:02.000000001Z second\n\
             2026-01-01T00:00:03.000000001Z oops, two words\n"
        );
        let since = Options {
            since: "2026-01-01T00:00:03Z".parse().ok(),
            ..Options::default()
        };
        assert_eq!(seen(since), "oops, two words\n");
        let stderr = Options {
            stream: Some("Stderr".into()),
            ..Options::default()
        };
        assert_eq!(seen(stderr), "oops, two words\n");
        let limited = Options {
            limit_bytes: Some(8),
            ..Options::default()
        };
        assert_eq!(seen(limited), "first\nse");
    }

    #[test]
    fn what_is_no_log_line_is_shown() {
        let mut out = Vec::new();
        Filter::new(Options::default()).line(b"garbage", &mut out);
        assert_eq!(out, b"garbage\n");
    }
}
