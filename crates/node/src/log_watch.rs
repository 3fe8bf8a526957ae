//! Wakes those who follow log files: one inotify instance for the whole node, for the kernel allows few.

use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Watches files; [`LogWatch::run`] must be polled.
pub struct LogWatch {
    inotify: AsyncFd<OwnedFd>,
    followers: Arc<Mutex<HashMap<i32, Vec<Weak<Notify>>>>>,
}

/// A place among the followers of a file, left when dropped.
pub struct Follower {
    /// Told after the file has changed; a change while nobody waits is kept.
    pub changed: Arc<Notify>,
}

impl LogWatch {
    /// Must be called inside a runtime.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // The successor is unsafe, for types whose descriptor may change. That of an `OwnedFd` never does.
        #[expect(deprecated)]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self {
            inotify,
            followers: Arc::default(),
        })
    }

    /// Follows a file from now on.
    pub fn follow(&self, path: &Path) -> io::Result<Follower> {
        let flags =
            WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        let changed = Arc::new(Notify::new());
        let mut followers = self.followers.lock();
        // Under the lock: an event of the new watch must find its follower.
        let watch = inotify::add_watch(self.inotify.get_ref(), path, flags)?;
        followers.entry(watch).or_default().push(Arc::downgrade(&changed));
        Ok(Follower { changed })
    }

    /// Passes events on until dropped.
    pub async fn run(&self) {
        loop {
            let mut guard = match self.inotify.readable().await {
                Ok(guard) => guard,
                Err(error) => {
                    tracing::error!(%error, "log files are not watched any more");
                    return;
                }
            };
            let mut buffer = [const { MaybeUninit::uninit() }; 4096];
            let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => self.pass_on(event.wd(), event.events()),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => {
                        tracing::warn!(%error, "inotify events lost");
                        break;
                    }
                }
            }
            guard.clear_ready();
        }
    }

    fn pass_on(&self, watch: i32, events: ReadFlags) {
        let mut followers = self.followers.lock();
        let Some(list) = followers.get_mut(&watch) else {
            return;
        };
        list.retain(|follower| match follower.upgrade() {
            Some(changed) => {
                changed.notify_one();
                true
            }
            None => false,
        });
        if list.is_empty() {
            followers.remove(&watch);
            if !events.contains(ReadFlags::IGNORED) {
                // The kernel may have dropped it already.
                let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    #[tokio::test]
    async fn followers_hear_of_writes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let mut file = std::fs::File::create(&path).expect("a file");
        let watch = LogWatch::new().expect("inotify");
        let first = watch.follow(&path).expect("watched");
        let second = watch.follow(&path).expect("watched");
        file.write_all(b"line\n").expect("written");
        let heard = async {
            first.changed.notified().await;
            second.changed.notified().await;
        };
        tokio::select! {
            () = watch.run() => panic!("the watch ended"),
            () = heard => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("nothing heard"),
        }
        drop((first, second));
        file.write_all(b"more\n").expect("written");
        tokio::select! {
            () = watch.run() => panic!("the watch ended"),
            () = async { while !watch.followers.lock().is_empty() { tokio::task::yield_now().await } } => {}
        }
    }
}
