//! Reads the files of one instance: the rotated ones in order, then the current one, then what is still written.

use super::format::{Filter, Options};
use crate::log_watch::LogWatch;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// How much is sent at once.
const CHUNK: usize = 32 * 1024;
/// Of a container's last output in its termination message: lines and bytes, as upstream.
const MESSAGE_LINES: u64 = 80;
const MESSAGE_BYTES: usize = 2048;

/// One instance's log.
pub struct Source<'a> {
    /// The current file; rotated ones are beside it with a suffix.
    pub path: PathBuf,
    /// For following.
    pub watch: &'a LogWatch,
    /// Whether the instance may still write. Asked before the last read.
    pub alive: &'a (dyn Fn() -> bool + Sync),
    /// Told when the answer of `alive` may have changed.
    pub changed: &'a tokio::sync::Notify,
}

/// Sends the log until its end, or, following, until the instance has ended or the receiver is gone.
pub async fn stream(source: Source<'_>, options: Options, out: mpsc::Sender<Bytes>) -> io::Result<()> {
    let follow = options.follow;
    let mut follower = if follow {
        source.watch.follow(&source.path).ok()
    } else {
        None
    };
    let mut state = Reading {
        file: None,
        filter: Filter::new(options.clone()),
        pending: Vec::new(),
    };
    let path = source.path.clone();
    let tail = options.tail;
    // Files are read in blocking threads; the state travels there and back.
    let mut state = blocking(move || {
        state.open(&path, tail)?;
        Ok(state)
    })
    .await?;
    loop {
        // In this order: a change after the question is heard.
        let changed = source.changed.notified();
        let alive = follow && (source.alive)();
        loop {
            let (chunk, back) = blocking(move || {
                let chunk = state.chunk()?;
                Ok((chunk, state))
            })
            .await?;
            state = back;
            if chunk.is_empty() {
                break;
            }
            if out.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        if !alive || state.filter.is_full() {
            return Ok(());
        }
        let grown = async {
            match &follower {
                Some(follower) => follower.changed.notified().await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            changed.await;
            loop {
                let changed = source.changed.notified();
                if !(source.alive)() {
                    return;
                }
                changed.await;
            }
        };
        // Cancel-safe: a notification that was not waited for is kept, or is followed by another read anyway.
        tokio::select! {
            () = grown => {}
            () = ended => {}
            () = out.closed() => return Ok(()),
        }
        let path = source.path.clone();
        let (rotated, back) = blocking(move || {
            let rotated = state.reopen_if_rotated(&path)?;
            Ok((rotated, state))
        })
        .await?;
        state = back;
        if rotated {
            follower = source.watch.follow(&source.path).ok();
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Where reading is.
struct Reading {
    file: Option<Open>,
    filter: Filter,
    /// Finished text of rotated files.
    pending: Vec<u8>,
}

struct Open {
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line that is not complete yet.
    partial: Vec<u8>,
}

impl Reading {
    fn open(&mut self, path: &Path, tail: Option<u64>) -> io::Result<()> {
        let mut files = rotated(path);
        files.push(path.to_owned());
        let start = match tail {
            Some(lines) => tail_start(&files, lines)?,
            None => (0, 0),
        };
        for (index, file) in files.iter().enumerate().skip(start.0) {
            let mut open = match Open::new(file) {
                Ok(open) => open,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if index == start.0 {
                open.reader.seek(SeekFrom::Start(start.1))?;
            }
            if index + 1 < files.len() {
                let mut text = Vec::new();
                open.read(&mut self.filter, &mut text, usize::MAX)?;
                self.pending.append(&mut text);
            } else {
                self.file = Some(open);
            }
        }
        Ok(())
    }

    /// The next text; empty at the end for now.
    fn chunk(&mut self) -> io::Result<Bytes> {
        let mut text = std::mem::take(&mut self.pending);
        if text.is_empty()
            && let Some(open) = &mut self.file
        {
            open.read(&mut self.filter, &mut text, CHUNK)?;
        }
        Ok(Bytes::from(text))
    }

    /// After the file was renamed a new one has its name. What came last into the old one is read first.
    fn reopen_if_rotated(&mut self, path: &Path) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let Ok(current) = std::fs::metadata(path) else {
            return Ok(false);
        };
        if let Some(open) = &mut self.file {
            if open.inode == current.ino() {
                return Ok(false);
            }
            let mut rest = Vec::new();
            open.read(&mut self.filter, &mut rest, usize::MAX)?;
            self.pending.append(&mut rest);
        }
        self.file = Some(Open::new(path)?);
        Ok(true)
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = File::open(path)?;
        Ok(Self {
            inode: file.metadata()?.ino(),
            reader: BufReader::with_capacity(CHUNK, file),
            partial: Vec::new(),
        })
    }

    /// Reads whole lines until about `limit` bytes of text are there.
    fn read(&mut self, filter: &mut Filter, text: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        while text.len() < limit && !filter.is_full() {
            if self.reader.read_until(b'\n', &mut self.partial)? == 0 {
                return Ok(());
            }
            if self.partial.last() != Some(&b'\n') {
                return Ok(());
            }
            self.partial.pop();
            filter.line(&self.partial, text);
            self.partial.clear();
        }
        Ok(())
    }
}

/// `0.log.20260101-000000` and the like, oldest first. Compressed ones cannot be read in place and are left out.
pub(super) fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let prefix = format!("{name}.");
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|n| n.starts_with(&prefix) && !n.ends_with(".gz") && !n.ends_with(".tmp"))
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// In which file, and where in it, the last `lines` lines begin.
fn tail_start(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let last = files.len().saturating_sub(1);
    let mut wanted = lines;
    for index in (0..files.len()).rev() {
        let mut file = match File::open(&files[index]) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if wanted == 0 {
            return Ok((index.max(last), if index == last { length } else { 0 }));
        }
        let (found, start) = tail_in(&mut file, length, wanted)?;
        if found >= wanted {
            return Ok((index, start));
        }
        wanted -= found;
    }
    Ok((0, 0))
}

/// How many of the wanted lines are in the file (at most that many), and where they begin.
fn tail_in(file: &mut File, length: u64, wanted: u64) -> io::Result<(u64, u64)> {
    const BLOCK: u64 = 16 * 1024;
    let mut end = length;
    let mut newlines = 0;
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        buffer.clear();
        file.take(end - start).read_to_end(&mut buffer)?;
        for (offset, byte) in buffer.iter().enumerate().rev() {
            let position = start + offset as u64;
            // The newline at the very end closes the last line and begins none.
            if *byte == b'\n' && position + 1 < length {
                newlines += 1;
                if newlines == wanted {
                    return Ok((wanted, position + 1));
                }
            }
        }
        end = start;
    }
    let lines = newlines + u64::from(length > 0);
    Ok((lines.min(wanted), 0))
}

/// The end of a log as a termination message; empty if it cannot be read. Blocks.
pub fn tail_for_message(path: &Path) -> String {
    let files = [path.to_owned()];
    let Ok((_, start)) = tail_start(&files, MESSAGE_LINES) else {
        return String::new();
    };
    let Ok(mut open) = Open::new(path) else {
        return String::new();
    };
    let mut text = Vec::new();
    let read = open.reader.seek(SeekFrom::Start(start));
    let read = read.and_then(|_| open.read(&mut Filter::new(Options::default()), &mut text, usize::MAX));
    if read.is_err() {
        return String::new();
    }
    let skip = text.len().saturating_sub(MESSAGE_BYTES);
    String::from_utf8_lossy(&text[skip..]).into_owned()
}

#[cfg(test)]
mod tests;
