use std::fs;
use std::path::PathBuf;

use super::*;
use crate::root::{Root, remove_path};

#[test]
fn mount_points_are_read_with_their_blanks() {
    let mountinfo = b"25 20 0:22 / /a\\040b\\134c rw - tmpfs tmpfs rw\n26 20 0:22 / /d rw - tmpfs tmpfs rw\n";
    assert_eq!(mount_points(mountinfo), [PathBuf::from("/a b\\c"), "/d".into()]);
}

#[test]
fn what_is_mounted_below_and_twice_is_detached() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("a tree");
    let mount = |at: &str| {
        let at = tree.join(at);
        fs::create_dir_all(&at).unwrap();
        let tmpfs = filesystem("tmpfs", &[], Attributes::default()).unwrap();
        attach(tmpfs, Root::open_path(&at).unwrap()).unwrap();
    };
    mount("twice");
    mount("twice");
    mount("outer");
    mount("outer/inner");
    assert!(remove_path(&tree).is_err(), "a mount point cannot be removed");
    detach_below(&tree).unwrap();
    remove_path(&tree).unwrap();
    detach_below(&tree).unwrap();
}
