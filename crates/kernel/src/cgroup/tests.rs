use std::fs;
use std::io::Read;
use std::process::Command;

use super::*;

fn unique(name: &str) -> PathBuf {
    PathBuf::from(format!("coracle-test-{name}-{}", std::process::id()))
}

#[test]
fn finds_hierarchies_of_version_1_beside_an_empty_version_2() {
    let mountinfo = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
29 25 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
30 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
31 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    let hierarchy = Hierarchy::from_mountinfo(mountinfo).unwrap();
    let expected = [
        ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a/b"),
        ("memory", "/sys/fs/cgroup/memory/a/b"),
        ("name=systemd", "/sys/fs/cgroup/systemd/a/b"),
    ];
    let directories = hierarchy.group(Path::new("/a/b")).directories();
    let directories: Vec<_> = directories
        .iter()
        .map(|(name, path)| (name.as_str(), path.to_str().unwrap()))
        .collect();
    assert_eq!(directories, expected);
    let only_v2 = "31 25 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
    assert_eq!(
        Hierarchy::from_mountinfo(only_v2),
        Some(Hierarchy::V2("/sys/fs/cgroup".into()))
    );
    assert_eq!(Hierarchy::from_mountinfo(""), None);
}

/// A directory with the files that the kernel makes in a group of version 2.
fn fake_v2(directory: &Path, controllers: &str) {
    fs::create_dir_all(directory).unwrap();
    let files = [
        ("cgroup.controllers", controllers),
        ("cgroup.subtree_control", ""),
        ("cgroup.procs", ""),
        ("cpu.weight", ""),
        ("cpu.max", ""),
        ("memory.max", ""),
        ("memory.oom.group", ""),
        ("pids.max", ""),
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
        ("memory.current", "4096\n"),
        ("memory.stat", "anon 1024\nfile 3072\ninactive_file 2048\n"),
        ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n"),
        ("pids.current", "7\n"),
    ];
    for (name, contents) in files {
        fs::write(directory.join(name), contents).unwrap();
    }
}

#[test]
fn version_2_hands_controllers_down_and_sets_limits() {
    let root = tempfile::tempdir().unwrap();
    fake_v2(root.path(), "cpuset cpu io memory hugetlb pids\n");
    fake_v2(&root.path().join("pods"), "cpu memory pids\n");
    fake_v2(&root.path().join("pods/one"), "cpu memory pids\n");
    let group = Hierarchy::V2(root.path().to_owned()).group(Path::new("pods/one"));
    group.create().unwrap();
    let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!(read("cgroup.subtree_control"), "+cpu +cpuset +io +memory +pids");
    assert_eq!(read("pods/cgroup.subtree_control"), "+cpu +memory +pids");
    assert_eq!(read("pods/one/cgroup.subtree_control"), "");

    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_quota: Some(50_000),
        memory: Some(1 << 20),
        pids: Some(10),
        oom_group: true,
        ..Limits::default()
    };
    group.set(&limits).unwrap();
    assert_eq!(read("pods/one/cpu.weight"), "39");
    assert_eq!(read("pods/one/cpu.max"), "50000 100000");
    assert_eq!(read("pods/one/memory.max"), "1048576");
    assert_eq!(read("pods/one/memory.oom.group"), "1");
    assert_eq!(read("pods/one/pids.max"), "10");

    group.join().unwrap();
    assert_eq!(read("pods/one/cgroup.procs"), "0");
    let expected = Usage {
        cpu_ns: 1_500_000,
        memory: 4096,
        memory_inactive_file: 2048,
        memory_anonymous: 1024,
        pids: 7,
    };
    assert_eq!(group.usage().unwrap(), expected);
    assert_eq!(group.oom_kills().unwrap(), 2);
}

#[test]
fn a_group_of_this_kernel_limits_counts_kills_and_goes() {
    let hierarchy = Hierarchy::detect().unwrap();
    let top = unique("top");
    let group = hierarchy.group(&top.join("pod/one"));
    group.create().unwrap();
    let limits = Limits {
        memory: Some(64 << 20),
        pids: Some(20),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    group.set(&limits).unwrap();
    let script =
        "for d in $DIRS; do echo $$ > $d/cgroup.procs || exit 9; done; sleep 1000 & echo ready; wait";
    let directories: Vec<String> = group
        .directories()
        .iter()
        .map(|(_, path)| path.to_str().unwrap().to_owned())
        .collect();
    let mut child = Command::new("/bin/busybox")
        .args(["sh", "-c", script])
        .env("DIRS", directories.join(" "))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(group.processes().unwrap().len(), 2);
    assert_eq!(group.usage().unwrap().pids, 2);
    assert!(group.remove().is_err(), "a group with processes must stay");
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    group.kill().unwrap();
    assert!(!reaper.join().unwrap().success());
    group.remove().unwrap();
    group.remove().unwrap();
    group.remove_empty_parents(Path::new(""));
    for (_, directory) in hierarchy.group(&top).directories() {
        assert!(!directory.exists(), "{} is left", directory.display());
    }
}

#[test]
fn device_rules_of_version_1_read_as_the_kernel_wants_them() {
    let rule = DeviceRule {
        kind: DeviceKind::Character,
        major: Some(136),
        minor: None,
        read: true,
        write: true,
        mknod: false,
    };
    assert_eq!(rule.to_string(), "c 136:* rw");
    assert_eq!(
        DeviceRule {
            kind: DeviceKind::All,
            ..rule
        }
        .to_string(),
        "a"
    );
}

/// The kernel's version 2 hierarchy runs device programs even where it has no controllers.
#[test]
fn device_program_of_version_2_allows_and_denies() {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v2 = mountinfo
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4));
    let root = PathBuf::from(v2.expect("a cgroup2 file system is mounted"));
    let group = root.join(unique("devices"));
    fs::create_dir(&group).unwrap();
    let character = |major, minor, write| DeviceRule {
        kind: DeviceKind::Character,
        major: Some(major),
        minor: Some(minor),
        read: true,
        write,
        mknod: false,
    };
    devices::attach(&group, &[character(1, 3, true), character(1, 5, false)]).unwrap();
    let script = "echo $$ > $GROUP/cgroup.procs || exit 9
        : < /dev/null || exit 1
        : > /dev/null || exit 2
        : < /dev/zero || exit 3
        (: > /dev/zero) 2>&- && exit 4
        (: < /dev/full) 2>&- && exit 5
        exit 0";
    let status = Command::new("/bin/busybox")
        .args(["sh", "-c", script])
        .env("GROUP", &group)
        .status()
        .unwrap();
    fs::remove_dir(&group).unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_group_goes_with_all_that_is_below() {
    let top = Hierarchy::detect().unwrap().group(&unique("delete"));
    let below = top.child("pod").child("one");
    below.create().unwrap();
    let script = "for d in $DIRS; do echo $$ > $d/cgroup.procs || exit 9; done; echo ready; exec sleep 1000";
    let directories: Vec<String> = below
        .directories()
        .iter()
        .map(|(_, path)| path.to_str().unwrap().to_owned())
        .collect();
    let mut child = Command::new("/bin/busybox")
        .args(["sh", "-c", script])
        .env("DIRS", directories.join(" "))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    top.delete().unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(top.all_directories().iter().all(|directory| !directory.exists()));
    top.delete().unwrap();
}
