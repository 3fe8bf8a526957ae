use super::*;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

fn line(number: u32) -> String {
    format!("2026-01-01T00:00:{number:02}.000000000Z stdout F line {number}\n")
}

fn write(path: &Path, numbers: std::ops::RangeInclusive<u32>) {
    let text: String = numbers.map(line).collect();
    std::fs::write(path, text).expect("written");
}

async fn read(path: &Path, options: Options) -> String {
    let watch = LogWatch::new().expect("inotify");
    let (sender, mut chunks) = mpsc::channel::<Bytes>(4);
    let source = Source {
        path: path.to_owned(),
        watch: &watch,
        alive: &|| false,
        changed: &Notify::new(),
    };
    let collect = async {
        let mut text = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).expect("text")
    };
    let (result, text) = tokio::join!(stream(source, options, sender), collect);
    result.expect("read");
    text
}

#[tokio::test]
async fn rotated_files_come_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("0.log");
    write(&directory.path().join("0.log.20260101-000000"), 1..=2);
    write(&directory.path().join("0.log.20260102-000000"), 3..=3);
    write(&path, 4..=5);
    write(&directory.path().join("1.log"), 9..=9);
    assert_eq!(
        read(&path, Options::default()).await,
        "line 1\nline 2\nline 3\nline 4\nline 5\n"
    );
    for (tail, expected) in [
        (0, ""),
        (1, "line 5\n"),
        (2, "line 4\nline 5\n"),
        (4, "line 2\nline 3\nline 4\nline 5\n"),
        (99, "line 1\nline 2\nline 3\nline 4\nline 5\n"),
    ] {
        let options = Options {
            tail: Some(tail),
            ..Options::default()
        };
        assert_eq!(read(&path, options).await, expected, "tail {tail}");
    }
}

#[tokio::test]
async fn long_files_have_tails() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("0.log");
    let text: String = (0..2000).map(|n| line(n % 60)).collect();
    std::fs::write(&path, text).expect("written");
    let options = Options {
        tail: Some(1500),
        ..Options::default()
    };
    let text = read(&path, options).await;
    assert_eq!(text.lines().count(), 1500);
    assert!(text.starts_with("line 20\n"), "line 500 of the file");
    assert!(tail_for_message(&path).len() <= MESSAGE_BYTES);
}

#[tokio::test]
async fn followers_see_growth_rotation_and_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("0.log");
    write(&path, 1..=1);
    let watch = LogWatch::new().expect("inotify");
    let (sender, mut chunks) = mpsc::channel::<Bytes>(4);
    let alive = AtomicBool::new(true);
    let changed = Notify::new();
    let source = Source {
        path: path.clone(),
        watch: &watch,
        alive: &|| alive.load(Ordering::SeqCst),
        changed: &changed,
    };
    let options = Options {
        follow: true,
        ..Options::default()
    };
    let write_and_read = async {
        let mut next =
            async || String::from_utf8(chunks.recv().await.unwrap_or_default().to_vec()).expect("text");
        assert_eq!(next().await, "line 1\n");
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("opened");
        let (half, rest) = (line(2), line(3));
        file.write_all(&half.as_bytes()[..20]).expect("written");
        file.write_all(&half.as_bytes()[20..]).expect("written");
        assert_eq!(next().await, "line 2\n");
        std::fs::rename(&path, directory.path().join("0.log.20260101-000000")).expect("renamed");
        file.write_all(rest.as_bytes()).expect("written");
        assert_eq!(next().await, "line 3\n");
        write(&path, 4..=4);
        // The shim closes the old file when it has opened the new one.
        drop(file);
        assert_eq!(next().await, "line 4\n");
        alive.store(false, Ordering::SeqCst);
        changed.notify_waiters();
        assert_eq!(next().await, "", "the end");
    };
    let all = async {
        tokio::select! {
            () = watch.run() => panic!("the watch ended"),
            (result, ()) = async { tokio::join!(stream(source, options, sender), write_and_read) } => result.expect("read"),
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .expect("in time");
}
