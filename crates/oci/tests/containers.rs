//! Containers behave alike under our launcher and under runc, which is the oracle: each test runs over both.

mod support;

use std::fs;
use std::path::Path;

use coracle_oci::{
    Capabilities, Device, Error, Mount, MountSource, Network, OciRuntime, PodSpec, Propagation, Resources,
    Rlimit, Seccomp, User,
};
use support::{Node, runtimes, test_each};

fn bind(source: &Path, destination: &str) -> Mount {
    Mount {
        source: MountSource::Bind(source.to_owned()),
        destination: destination.to_owned(),
        read_only: false,
        propagation: Propagation::Private,
    }
}

/// Runs a script and wants success; returns its output.
async fn output(node: &mut Node, id: &str, script: &str) -> String {
    let spec = node.script(id, script);
    let (exit, output) = node.finish("p", spec).await;
    assert_eq!(exit.code, 0, "{script}: {output}");
    output
}

#[test]
fn exit_codes_and_output() {
    test_each(async |mut node| {
        node.pod("p").await;
        let script = node.script("a", "echo out; echo err >&2; exit 7");
        let (exit, output) = node.finish("p", script).await;
        assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (7, None, "Error"));
        assert!(exit.started_at.unwrap() <= exit.finished_at);
        assert!(output.contains("out\n") && output.contains("err\n"), "{output:?}");
        let script = node.script("b", "true");
        let (exit, output) = node.finish("p", script).await;
        assert_eq!(
            (exit.code, exit.reason.as_str(), output.as_str()),
            (0, "Completed", "")
        );
        let script = node.script(
            "c",
            "kill -9 $$; sleep 1000 & kill -TERM $!; kill -ABRT $!; wait $!; exit 5",
        );
        // The first process of a PID namespace is immune to its own signals.
        assert_eq!(node.finish("p", script).await.0.code, 5);
        node
    });
}

#[test]
fn logs_are_in_the_cri_format() {
    test_each(async |mut node| {
        node.pod("p").await;
        let long = "dd if=/dev/zero bs=20000 count=1 2>/dev/null | tr '\\0' x; echo; printf 'no newline'";
        let script = node.script("a", &format!("echo one; echo two >&2; {long}"));
        node.finish("p", script).await;
        let log = node.log("p", "a");
        let mut streams: Vec<(&str, &str, usize)> = Vec::new();
        for line in log.lines() {
            let fields: Vec<&str> = line.splitn(4, ' ').collect();
            assert_eq!(fields[0].len(), "2026-01-01T00:00:00.000000000Z".len(), "{line}");
            assert!(fields[0].ends_with('Z'));
            streams.push((fields[1], fields[2], fields[3].len()));
        }
        streams.retain(|stream| stream.0 == "stdout");
        let expected = [
            ("stdout", "F", 3),
            ("stdout", "P", 16384),
            ("stdout", "F", 3616),
            ("stdout", "F", 10),
        ];
        assert_eq!(streams, expected);
        assert!(log.contains(" stderr F two\n"));

        let log_file = node.directory.join("logs/p/b/0.log");
        let mut spec = node.script("b", "read line; echo before; read line; echo after");
        spec.stdin = true;
        node.start("p", spec).await;
        let mut attachment = node.runtime.attach("b").await.unwrap();
        support::send(&mut attachment.stdin, b"\n").await;
        support::read_line(&mut attachment.stdout, "before").await;
        fs::rename(&log_file, log_file.with_extension("old")).unwrap();
        node.runtime.reopen_log("b").await.unwrap();
        support::send(&mut attachment.stdin, b"\n").await;
        node.exit("b").await;
        assert!(
            fs::read_to_string(log_file.with_extension("old"))
                .unwrap()
                .ends_with("stdout F before\n")
        );
        assert!(
            fs::read_to_string(log_file)
                .unwrap()
                .ends_with("stdout F after\n")
        );
        node
    });
}

#[test]
fn signals() {
    test_each(async |mut node| {
        node.pod("p").await;
        node.start(
            "p",
            node.script(
                "a",
                "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
            ),
        )
        .await;
        support::wait_for_log(&node, "p", "a", "ready").await;
        node.runtime.kill("a", 15).await.unwrap();
        assert_eq!(node.exit("a").await.code, 3);
        assert!(node.output("p", "a").contains("got it"));
        node.start("p", node.script("b", "sleep 1000")).await;
        node.runtime.kill("b", 9).await.unwrap();
        let exit = node.exit("b").await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
        // Killing what has ended is what was wanted; what never was is an error.
        node.runtime.kill("b", 9).await.unwrap();
        assert!(matches!(
            node.runtime.kill("none", 9).await,
            Err(Error::ContainerNotFound(_))
        ));
        node
    });
}

#[test]
fn start_errors_are_those_kubelet_users_know() {
    test_each(async |mut node| {
        node.pod("p").await;
        fs::write(node.layers[0].join("etc/plain"), "").unwrap();
        let cases: [(&[&str], &str); 5] = [
            (
                &["nosuch"],
                "exec: \"nosuch\": executable file not found in $PATH",
            ),
            (
                &["/no/such"],
                "exec: \"/no/such\": stat /no/such: no such file or directory",
            ),
            (&["/etc/plain"], "exec: \"/etc/plain\": permission denied"),
            (&["/etc"], "exec: \"/etc\": is a directory"),
            (&["/bin/notaprogram"], "exec /bin/notaprogram: exec format error"),
        ];
        let program = node.layers[0].join("bin/notaprogram");
        fs::write(&program, "not a program").unwrap();
        support::chmod(&program, 0o755);
        // runc 1.1 starts the last two and words it differently.
        let cases = cases.into_iter().take(if node.is_builtin() { 5 } else { 3 });
        for (number, (argv, message)) in cases.enumerate() {
            let id = format!("c{number}");
            node.runtime
                .create_container("p", node.container_spec(&id, argv))
                .await
                .unwrap();
            let error = node.runtime.start(&id).await.unwrap_err().to_string();
            let exit = node.exit(&id).await;
            assert_eq!(exit.message, error);
            assert!(
                error.starts_with("unable to start container process: "),
                "{error}"
            );
            assert!(error.contains(message), "{error}");
            if node.is_builtin() {
                assert_eq!((exit.code, exit.reason.as_str()), (128, "StartError"));
                assert_eq!(exit.started_at, None);
            }
        }
        let spec = coracle_oci::ContainerSpec {
            user: User {
                user: "nobody-here".into(),
                ..User::default()
            },
            ..node.script("user", "true")
        };
        node.runtime.create_container("p", spec).await.unwrap();
        let error = node.runtime.start("user").await.unwrap_err().to_string();
        assert!(
            error.contains("unable to find user nobody-here: no matching entries in passwd file"),
            "{error}"
        );
        node
    });
}

#[test]
fn identity_environment_and_directory() {
    test_each(async |mut node| {
        let mut pod = node.pod_spec("p");
        pod.network = Network::Namespace("/proc/self/ns/net".into());
        node.runtime.start_pod(pod).await.unwrap();
        let mut spec = node.script("a", "id; env; pwd; hostname; cat /proc/self/oom_score_adj");
        spec.user = User {
            user: "web".into(),
            supplementary_groups: vec![3000],
            ..User::default()
        };
        spec.env = vec!["A=1".into(), "B=two words".into()];
        spec.cwd = "/made/for/me".into();
        spec.oom_score_adj = 500;
        let (exit, output) = node.finish("p", spec).await;
        assert_eq!(exit.code, 0, "{output}");
        for line in [
            "uid=1000(web) gid=1001(web) groups=1001(web),2000(extra),3000",
            "A=1",
            "B=two words",
            "HOME=/srv",
            "HOSTNAME=p-host",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "/made/for/me",
            "p-host",
            "500",
        ] {
            assert!(
                output.lines().any(|found| found == line),
                "{line} is not in {output}"
            );
        }
        // Standard streams can be opened anew by their user.
        let mut spec = node.script("b", "echo again > /dev/stdout && echo error > /dev/stderr");
        spec.user.user = "1000:1001".into();
        let (exit, output) = node.finish("p", spec).await;
        assert_eq!(
            (exit.code, output.contains("again"), output.contains("error")),
            (0, true, true),
            "{output}"
        );
        node
    });
}

#[test]
fn the_file_system_is_the_images_and_the_nodes_is_hidden() {
    test_each(async |mut node| {
        node.pod("p").await;
        let found = output(
            &mut node,
            "a",
            "echo x > /new; ls /; ls /dev; ls /proc/1/fd; cat /proc/self/mounts",
        )
        .await;
        for name in [
            "bin", "new", "null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "mqueue", "fd",
        ] {
            assert!(found.lines().any(|line| line == name), "{name} is not in {found}");
        }
        assert!(!node.layers[0].join("new").exists(), "the image was written to");
        let hidden = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
                [ ! -e $f ] || [ -z \"$(head -c 1 $f)\" ] || exit 1; done
            [ ! -e /proc/acpi ] || [ -z \"$(ls /proc/acpi)\" ] || exit 2
            [ ! -e /sys/firmware ] || [ -z \"$(ls /sys/firmware)\" ] || exit 3
            echo 1 2>/dev/null > /proc/sys/kernel/panic && exit 4
            echo b 2>/dev/null > /proc/sysrq-trigger && exit 5
            mkdir /sys/fs/cgroup/memory/x 2>/dev/null && exit 6
            (echo 1 > /sys/kernel/profiling) 2>/dev/null && exit 7
            exit 0";
        output(&mut node, "b", hidden).await;
        let processes = output(&mut node, "c", "ps -o pid,args; true").await;
        assert!(
            processes
                .lines()
                .any(|line| line.trim_start().starts_with("1 sh")),
            "{processes}"
        );
        assert!(processes.lines().count() < 5, "{processes}");
        let descriptors = output(&mut node, "d", "ls /proc/self/fd | wc -l").await;
        // Its standard streams and the directory itself.
        assert_eq!(descriptors.trim(), "4");
        let mut spec = node.script("e", "touch /x && exit 1; touch /tmp/x && touch /dev/shm/x");
        spec.read_only_rootfs = true;
        spec.mounts = vec![Mount {
            source: MountSource::Tmpfs { size: Some(1 << 20) },
            destination: "/tmp".into(),
            read_only: false,
            propagation: Propagation::Private,
        }];
        assert_eq!(node.finish("p", spec).await.0.code, 0);
        node
    });
}

#[test]
fn mounts() {
    test_each(async |mut node| {
        node.pod("p").await;
        let volume = node.directory.join("volume");
        fs::create_dir_all(volume.join("below")).unwrap();
        fs::write(volume.join("file"), "contents").unwrap();
        std::os::unix::fs::symlink("/etc", node.layers[0].join("link")).unwrap();
        let mut spec = node.script(
            "a",
            "cat /data/file /etc/hosts; touch /data/new; touch /ro/x 2>/dev/null && exit 1
             cat /run/secrets/token/file; ls /etc/deep/er; cat /link/hosts
             cat /deep/outer/inner/file; echo message > /dev/termination-log",
        );
        spec.mounts = vec![
            // The deeper one comes first here, and must not be hidden by the other.
            bind(&volume, "/deep/outer/inner"),
            bind(&volume.join("below"), "/deep/outer"),
            bind(&volume, "/data"),
            Mount {
                read_only: true,
                ..bind(&volume, "/ro")
            },
            bind(&volume.join("file"), "/etc/hosts"),
            // The image has /var/run -> /run, and no /run.
            bind(&volume, "/var/run/secrets/token"),
            bind(&volume.join("below"), "/link/deep/er"),
        ];
        spec.termination_message_path = "/dev/termination-log".into();
        let (exit, output) = node.finish("p", spec).await;
        assert_eq!(exit.code, 0, "{output}");
        assert_eq!(output.matches("contents").count(), 5, "{output}");
        assert!(volume.join("new").exists());
        assert_eq!(node.runtime.termination_message("a").await.unwrap(), b"message\n");
        assert!(
            !Path::new("/etc/deep").exists(),
            "a link of the image led out of it"
        );

        let mut spec = node.script("b", "true");
        spec.mounts = vec![bind(Path::new("/no/such/source"), "/x")];
        node.runtime.create_container("p", spec).await.unwrap();
        let error = node.runtime.start("b").await.unwrap_err().to_string();
        assert!(
            error.contains("/no/such/source") && error.contains("no such file or directory"),
            "{error}"
        );
        let mut spec = node.script("c", "true");
        spec.mounts = vec![bind(&volume, "/proc/sys")];
        node.runtime.create_container("p", spec).await.unwrap();
        let error = node.runtime.start("c").await.unwrap_err().to_string();
        assert!(error.contains("inside /proc"), "{error}");
        node
    });
}

#[test]
fn mounts_travel_as_asked() {
    test_each(async |mut node| {
        node.pod("p").await;
        let shared = node.directory.join("shared");
        fs::create_dir_all(shared.join("from-host")).unwrap();
        fs::create_dir_all(shared.join("from-container")).unwrap();
        let _mount = support::SharedMount::new(&shared);
        let mut spec = node.script(
            "a",
            "mount -t tmpfs tmpfs /both/from-container && touch /both/from-container/x; echo ready
             until [ -e /both/from-host/y ]; do sleep 0.01; done; [ -e /down/from-host/y ] || exit 2
             [ -e /private/from-host/y ] && exit 3; umount /both/from-container",
        );
        spec.privileged = true;
        spec.mounts = vec![
            Mount {
                propagation: Propagation::Bidirectional,
                ..bind(&shared, "/both")
            },
            Mount {
                propagation: Propagation::HostToContainer,
                ..bind(&shared, "/down")
            },
            bind(&shared, "/private"),
        ];
        node.start("p", spec).await;
        support::wait_for_log(&node, "p", "a", "ready").await;
        assert!(shared.join("from-container/x").exists());
        let _inner = support::TmpfsWith::new(&shared.join("from-host"), "y");
        assert_eq!(node.exit("a").await.code, 0);
        node
    });
}

#[test]
fn capabilities_and_privilege() {
    test_each(async |mut node| {
        node.pod("p").await;
        const SETS: &str =
            "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'";
        let sets = output(&mut node, "a", SETS).await;
        let default = "CapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb\n\
            CapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:2\n";
        assert_eq!(sets, default);
        let mut spec = node.script("b", SETS);
        spec.capabilities = Capabilities {
            add: vec!["NET_ADMIN".into()],
            drop: vec!["ALL".into()],
        };
        spec.no_new_privileges = true;
        spec.seccomp = Seccomp::Unconfined;
        let (_, sets) = node.finish("p", spec).await;
        assert!(
            sets.contains("CapEff:0000000000001000\nCapBnd:0000000000001000\n"),
            "{sets}"
        );
        assert!(sets.contains("NoNewPrivs:1\nSeccomp:0\n"), "{sets}");
        let mut spec = node.script("c", SETS);
        spec.user.user = "1000".into();
        let (_, sets) = node.finish("p", spec).await;
        assert!(
            sets.contains("CapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:00000000a80425fb\n"),
            "{sets}"
        );
        let mut spec = node.script(
            "d",
            &format!(
                "{SETS}; mount -t tmpfs tmpfs /tmp && ls /dev && echo 1 > /proc/sys/net/ipv4/ip_forward"
            ),
        );
        spec.privileged = true;
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:\t"))
            .unwrap();
        let (exit, found) = node.finish("p", spec).await;
        assert_eq!(exit.code, 0, "{found}");
        assert!(
            found.contains(&format!("CapEff:{own}\n")) && found.contains("Seccomp:0\n"),
            "{found}"
        );
        assert!(
            found
                .lines()
                .any(|line| line == "kmsg" || line == "vda" || line == "mem"),
            "{found}"
        );

        let mut spec = node.script("e", "su web -c 'id -u'; id -u");
        spec.user.user = "1000".into();
        support::chmod(&node.layers[0].join("bin/busybox"), 0o4755);
        // Set-user-ID works, unless new privileges are forbidden.
        let mut strict = node.script(
            "f",
            "su root -c true 2>&1; cat /proc/self/status | grep Uid | tr '\\t' ' '",
        );
        strict.user.user = "1000".into();
        strict.no_new_privileges = true;
        let (_, found) = node.finish("p", strict).await;
        assert!(found.contains("Uid: 1000 1000 1000 1000"), "{found}");
        let mut open = node.script("g", "grep Uid /proc/self/status | tr '\\t' ' '");
        open.user.user = "1000".into();
        let (_, found) = node.finish("p", open).await;
        assert!(found.contains("Uid: 1000 "), "{found}");
        let (exit, _) = node.finish("p", spec).await;
        assert_eq!(exit.code, 0);
        node
    });
}

#[test]
fn the_filter_refuses_and_programs_fall_back() {
    test_each(async |mut node| {
        node.pod("p").await;
        let script = "mount -t tmpfs tmpfs /tmp 2>&1; unshare -m true 2>&1; chroot / true && echo chroot; true & wait; echo forked";
        let found = output(&mut node, "a", script).await;
        assert!(
            found.contains("Operation not permitted") || found.contains("permission denied"),
            "{found}"
        );
        assert!(
            found.contains("chroot\n") && found.contains("forked\n"),
            "{found}"
        );
        let mut spec = node.script(
            "b",
            "mount -t tmpfs tmpfs /tmp && unshare -m true && echo mounted",
        );
        spec.capabilities.add = vec!["CAP_SYS_ADMIN".into()];
        let (exit, found) = node.finish("p", spec).await;
        assert_eq!((exit.code, found.contains("mounted")), (0, true), "{found}");
        node
    });
}

#[test]
fn devices() {
    test_each(async |mut node| {
        node.pod("p").await;
        let script = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg >/dev/null 2>&1 && exit 1
            mknod /tmp/null c 1 3 && echo > /tmp/null && echo fine";
        let found = output(&mut node, "a", script).await;
        assert!(found.contains("fine"), "{found}");
        let mut spec = node.script(
            "b",
            "stat -c '%t:%T %a' /dev/log; dd if=/dev/log of=/dev/null bs=1 count=1 && echo read",
        );
        spec.devices = vec![Device {
            host_path: "/dev/zero".into(),
            container_path: "/dev/log".into(),
            permissions: "r".into(),
        }];
        let (exit, found) = node.finish("p", spec).await;
        assert_eq!(exit.code, 0, "{found}");
        assert!(found.contains("1:5 666") && found.contains("read"), "{found}");
        node
    });
}

#[test]
fn limits() {
    test_each(async |mut node| {
        node.pod("p").await;
        let mut spec = node.script("a", "x=$(yes | head -c 100000000); echo survived");
        spec.resources = Resources {
            memory_limit: Some(32 << 20),
            ..Resources::default()
        };
        let (exit, output) = node.finish("p", spec).await;
        assert!(exit.oom_killed && exit.reason == "OOMKilled", "{exit:?} {output}");
        assert!(!output.contains("survived"));

        let mut spec = node.script(
            "b",
            "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i + 1)); done; echo all",
        );
        // runc's own init is held to the limit too, and has as many threads as it pleases.
        spec.resources = Resources {
            pids_limit: Some(50),
            ..Resources::default()
        };
        let (_, output) = node.finish("p", spec).await;
        assert!(output.contains("can't fork"), "{output}");

        let mut spec = node.script(
            "c",
            "ulimit -n; ulimit -Hn; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; sleep 1000",
        );
        spec.rlimits = vec![Rlimit {
            kind: "RLIMIT_NOFILE".into(),
            soft: 100,
            hard: 200,
        }];
        spec.resources = Resources::from_requests(Some(100), Some(500), Some(64 << 20));
        node.start("p", spec).await;
        support::wait_for_log(&node, "p", "c", "67108864").await;
        assert!(node.output("p", "c").starts_with("100\n200\n"));
        let stats = node.runtime.stats("c").await.unwrap();
        assert!(
            stats.memory_usage > 0 && stats.memory_working_set <= stats.memory_usage && stats.pids >= 1,
            "{stats:?}"
        );
        assert!(stats.cpu_usage_ns > 0);
        assert!(node.runtime.pod_stats("p").await.unwrap().cpu_usage_ns >= stats.cpu_usage_ns);
        node
    });
}

/// Without `CAP_SYS_RESOURCE` a limit cannot be raised: it is clamped. runc refuses.
#[test]
fn limits_that_cannot_be_raised_are_clamped() {
    support::run(async {
        let mut node = Node::new(OciRuntime::Builtin).await;
        node.pod("p").await;
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .maximum
            .unwrap();
        let mut spec = node.script("a", "ulimit -Hn; cat /proc/self/oom_score_adj");
        spec.rlimits = vec![Rlimit {
            kind: "RLIMIT_NOFILE".into(),
            soft: 1 << 30,
            hard: 1 << 30,
        }];
        spec.oom_score_adj = -999;
        let (exit, output) = node.finish("p", spec).await;
        assert_eq!(exit.code, 0, "{output}");
        let limit: u64 = output.lines().next().unwrap().parse().unwrap();
        assert!(limit == most || limit == 1 << 30, "{output}");
        node.done().await;
    });
}

#[test]
fn pods_share_what_pods_share() {
    test_each(async |mut node| {
        let mut pod = node.pod_spec("p");
        pod.network = Network::Namespace("/proc/self/ns/net".into());
        pod.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        node.runtime.start_pod(pod).await.unwrap();
        node.start("p", node.script("a", "echo shared > /dev/shm/file; hostname; cat /proc/sys/kernel/shm_rmid_forced; for n in ipc uts pid; do readlink /proc/self/ns/$n; done; sleep 1000")).await;
        support::wait_for_log(&node, "p", "a", "pid:").await;
        let script = "cat /dev/shm/file; hostname; cat /proc/sys/kernel/shm_rmid_forced; for n in ipc uts pid; do readlink /proc/self/ns/$n; done";
        let second = output(&mut node, "b", script).await;
        let first = node.output("p", "a");
        assert!(second.starts_with("shared\np-host\n1\n"), "{second}");
        let line = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert_eq!(line(&first, "ipc:"), line(&second, "ipc:"));
        assert_eq!(line(&first, "uts:"), line(&second, "uts:"));
        assert_ne!(line(&first, "pid:"), line(&second, "pid:"));
        assert_ne!(
            line(&first, "ipc:"),
            fs::read_link("/proc/self/ns/ipc").unwrap().to_str().unwrap()
        );

        let bad = PodSpec {
            sysctls: [("kernel.panic".to_owned(), "1".to_owned())].into(),
            ..node.pod_spec("q")
        };
        let error = node.runtime.start_pod(bad).await.unwrap_err().to_string();
        assert!(error.contains("not namespaced"), "{error}");
        assert!(node.runtime.pod("q").is_none());
        node
    });
}

#[test]
fn process_namespaces_can_be_shared() {
    test_each(async |mut node| {
        let pod = PodSpec {
            share_process_namespace: true,
            ..node.pod_spec("p")
        };
        node.runtime.start_pod(pod).await.unwrap();
        node.start("p", node.script("a", "sleep 1234 & sleep 4321")).await;
        let mut seen = String::new();
        for round in 0.. {
            seen = output(&mut node, &format!("b{round}"), "ps -o pid,args; true").await;
            if seen.contains("sleep 4321") {
                break;
            }
        }
        assert!(!seen.contains("1 sh"), "{seen}");
        // What the first process leaves behind ends with the container.
        node.runtime.kill("a", 15).await.unwrap();
        node.exit("a").await;
        node.start("p", node.script("look", "sleep 1000")).await;
        let (_, left, _) = node.exec("look", &["ps", "-o", "args"]).await;
        assert!(
            !left.contains("sleep 1234") && left.contains("sleep 1000"),
            "{left}"
        );

        let pod = PodSpec {
            host_pid: true,
            ..node.pod_spec("q")
        };
        node.runtime.start_pod(pod).await.unwrap();
        let script = node.script("c", "ps -o pid; sleep 5000 &");
        let (_, found) = node.finish("q", script).await;
        let own = std::process::id().to_string();
        assert!(found.lines().any(|line| line.trim() == own), "{found}");
        node
    });
}

#[test]
fn removal_leaves_nothing_and_refuses_what_runs() {
    test_each(async |mut node| {
        node.pod("p").await;
        node.start(
            "p",
            node.script("a", "mkdir -p /x/y/z; echo > /x/y/z/f; sleep 1000"),
        )
        .await;
        assert!(matches!(
            node.runtime.remove("a").await,
            Err(Error::InvalidState(_))
        ));
        assert!(matches!(
            node.runtime.start("a").await,
            Err(Error::InvalidState(_))
        ));
        let again = node.runtime.create_container("p", node.script("a", "true")).await;
        assert!(matches!(again, Err(Error::AlreadyExists(_))));
        node.runtime.kill("a", 9).await.unwrap();
        node.exit("a").await;
        node.runtime.remove("a").await.unwrap();
        node.runtime.remove("a").await.unwrap();
        assert!(!node.config.root.join("pods/p/containers/a").exists());
        // The same id again is a new container.
        assert!(!output(&mut node, "a", "ls /").await.contains("x\n"));
        let again = node.runtime.start_pod(node.pod_spec("p")).await;
        assert!(matches!(again, Err(Error::AlreadyExists(_))));
        node
    });
}

#[test]
fn bad_specs_are_refused() {
    support::run(async {
        let node = Node::new(OciRuntime::Builtin).await;
        node.pod("p").await;
        let base = || node.script("a", "true");
        let bad = [
            coracle_oci::ContainerSpec {
                id: "../escape".into(),
                ..base()
            },
            coracle_oci::ContainerSpec {
                argv: vec![],
                ..base()
            },
            coracle_oci::ContainerSpec {
                layers: vec![],
                ..base()
            },
            coracle_oci::ContainerSpec {
                cwd: "relative".into(),
                ..base()
            },
            coracle_oci::ContainerSpec {
                log_path: "../../log".into(),
                ..base()
            },
            coracle_oci::ContainerSpec {
                mounts: vec![bind(Path::new("/"), "relative")],
                ..base()
            },
            coracle_oci::ContainerSpec {
                capabilities: Capabilities {
                    add: vec!["FLY".into()],
                    drop: vec![],
                },
                ..base()
            },
        ];
        for spec in bad {
            let error = node.runtime.create_container("p", spec).await.unwrap_err();
            assert!(matches!(error, Error::InvalidSpec(_)), "{error}");
        }
        let spec = coracle_oci::ContainerSpec {
            layers: vec!["/no/such/layer".into()],
            ..base()
        };
        assert!(matches!(
            node.runtime.create_container("p", spec).await,
            Err(Error::ImageNotFound(_))
        ));
        assert!(matches!(
            node.runtime.create_container("q", base()).await,
            Err(Error::PodNotFound(_))
        ));
        let pod = PodSpec {
            uid: "../p".into(),
            ..node.pod_spec("p")
        };
        assert!(matches!(
            node.runtime.start_pod(pod).await,
            Err(Error::InvalidSpec(_))
        ));
        let pod = PodSpec {
            network: Network::Namespace("/no/such/netns".into()),
            ..node.pod_spec("q")
        };
        let error = node.runtime.start_pod(pod).await.unwrap_err().to_string();
        assert!(error.contains("/no/such/netns"), "{error}");
        node.done().await;
    });
    assert_eq!(runtimes().len(), 2);
}
