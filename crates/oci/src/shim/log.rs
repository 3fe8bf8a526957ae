//! Container logs in the format that kubelet and log collectors read: `TIME STREAM F|P LINE`. Upstream counterpart:
//! the CRI logging format, `staging/src/k8s.io/cri-client/pkg/logs` and containerd's `cri/io/logger.go`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longer lines are written in parts of this size, all but the last marked `P`.
const MAX_LINE: usize = 16 * 1024;

/// A log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens the file for appending, making it and its directory when absent.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Opens the file anew after somebody renamed it.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }

    pub(super) fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        self.file.write_all(entries)
    }
}

/// Cuts the output of one stream into lines.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// Takes output and appends the entries it completes.
    pub(super) fn feed(&mut self, output: &[u8], time: &str, entries: &mut Vec<u8>) {
        for piece in output.split_inclusive(|byte| *byte == b'\n') {
            let (mut piece, complete) = match piece.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (piece, false),
            };
            while self.pending.len() + piece.len() > MAX_LINE {
                let (fitting, rest) = piece.split_at(MAX_LINE - self.pending.len());
                self.entry(fitting, time, b'P', entries);
                piece = rest;
            }
            if complete {
                self.entry(piece, time, b'F', entries);
            } else {
                self.pending.extend_from_slice(piece);
            }
        }
    }

    /// The stream has ended: what is left of a line is a whole one.
    pub(super) fn end(&mut self, time: &str, entries: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.entry(&[], time, b'F', entries);
        }
    }

    fn entry(&mut self, rest: &[u8], time: &str, tag: u8, entries: &mut Vec<u8>) {
        for part in [
            time.as_bytes(),
            b" ",
            self.stream.as_bytes(),
            b" ",
            &[tag],
            b" ",
            &self.pending,
            rest,
            b"\n",
        ] {
            entries.extend_from_slice(part);
        }
        self.pending = Vec::new();
    }
}

/// The present time as log entries have it.
pub(super) fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(chunks: &[&[u8]]) -> String {
        let mut lines = Lines::new("stdout");
        let mut entries = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, "T", &mut entries);
        }
        lines.end("T", &mut entries);
        String::from_utf8(entries).unwrap()
    }

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        assert_eq!(logged(&[b"one\ntwo\n"]), "T stdout F one\nT stdout F two\n");
        assert_eq!(
            logged(&[b"o", b"ne\n\nt", b"wo"]),
            "T stdout F one\nT stdout F \nT stdout F two\n"
        );
        assert_eq!(logged(&[]), "");
    }

    #[test]
    fn long_lines_come_in_parts() {
        let exact = vec![b'x'; MAX_LINE];
        let text = String::from_utf8(exact.clone()).unwrap();
        assert_eq!(logged(&[&exact, b"\n"]), format!("T stdout F {text}\n"));
        assert_eq!(
            logged(&[&exact, b"yz\n"]),
            format!("T stdout P {text}\nT stdout F yz\n")
        );
        assert_eq!(
            logged(&[&exact, &exact, b"y"]),
            format!("T stdout P {text}\nT stdout P {text}\nT stdout F y\n")
        );
    }

    #[test]
    fn timestamps_have_nanoseconds_always() {
        assert_eq!(timestamp().len(), "2026-01-01T00:00:00.000000000Z".len());
        assert!(timestamp().ends_with('Z'));
    }
}
