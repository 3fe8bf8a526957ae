use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn root(directory: &Path) -> Root {
    Root::open_path(directory).unwrap()
}

#[test]
fn links_lead_nowhere_outside() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("root");
    fs::create_dir(&inner).unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    symlink(outer.path(), inner.join("absolute")).unwrap();
    symlink("../..", inner.join("relative")).unwrap();
    let root = root(&inner);
    for path in ["absolute/secret", "relative/secret", "../secret", "/../secret"] {
        let error = root.read(Path::new(path), 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
    }
    root.create_file(Path::new("relative/secret")).unwrap();
    assert_eq!(fs::read_to_string(inner.join("secret")).unwrap(), "");
    assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "secret");
}

#[test]
fn dangling_links_are_made_real_inside() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("var")).unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    symlink("/run", directory.path().join("var/run")).unwrap();
    symlink(
        "../run/resolve/stub.conf",
        directory.path().join("etc/resolv.conf"),
    )
    .unwrap();
    symlink("loop", directory.path().join("loop")).unwrap();
    let root = root(directory.path());
    root.create_dir_all(Path::new("/var/run/secrets/token")).unwrap();
    assert!(directory.path().join("run/secrets/token").is_dir());
    root.create_file(Path::new("/etc/resolv.conf")).unwrap();
    assert!(directory.path().join("run/resolve/stub.conf").is_file());
    assert_eq!(
        root.create_dir_all(Path::new("loop/x"))
            .unwrap_err()
            .raw_os_error(),
        Some(libc::ELOOP)
    );
}

#[test]
fn reads_regular_files_of_bounded_size_only() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "12345").unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let root = root(directory.path());
    assert_eq!(root.read(Path::new("file"), 5).unwrap(), b"12345");
    assert_eq!(
        root.read(Path::new("file"), 4).unwrap_err().raw_os_error(),
        Some(libc::EFBIG)
    );
    assert_eq!(
        root.read(Path::new("fifo"), 4).unwrap_err().raw_os_error(),
        Some(libc::EINVAL)
    );
}

#[test]
fn removes_trees_of_any_depth_and_follows_no_link() {
    // In memory: each directory would cost a disk some milliseconds.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(directory.path().join("kept"), "").unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink("../kept", tree.join("file")).unwrap();
    symlink("..", tree.join("directory")).unwrap();
    // Deeper than a path can name (2048) and than a process may have open descriptors (1024, unless it asks for more).
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut current = rustix::fs::open(&tree, flags, Mode::empty()).unwrap();
    for _ in 0..5_000 {
        rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
        current = rustix::fs::openat(&current, "d", flags, Mode::empty()).unwrap();
    }
    drop(current);
    for index in 0..200 {
        fs::create_dir_all(tree.join(format!("wide/{index}/x"))).unwrap();
    }
    remove_path(&tree).unwrap();
    assert!(!tree.exists());
    assert!(directory.path().join("kept").exists());
    remove_path(&tree).unwrap();
}
