//! What outlives the daemon, and what happens when a shim does not.

mod support;

use coracle_oci::{ContainerStatus, Event, ExecSpec, OciRuntime};
use support::{Node, run, send, test_each};

#[test]
fn a_new_daemon_adopts_what_runs_and_learns_what_ended() {
    test_each(async |mut node| {
        node.pod("p").await;
        let mut waits = node.script(
            "waits",
            "while read line; do echo got $line; [ $line = end ] && exit 3; done",
        );
        waits.stdin = true;
        node.start("p", waits).await;
        node.start("p", node.script("ends", "sleep 0.2; exit 4")).await;
        node.start("p", node.script("ended", "exit 5")).await;
        node.runtime
            .create_container("p", node.script("created", "exit 6"))
            .await
            .unwrap();
        node.exit("ended").await;
        let before = node.runtime.pod("p").unwrap();
        // A process of a client dies with it.
        let exec = node.runtime.exec(
            "waits",
            ExecSpec {
                argv: vec!["sleep".into(), "7777".into()],
                ..ExecSpec::default()
            },
        );
        std::mem::forget(exec.await.unwrap());
        let pid = before.shim_pid.unwrap();
        // All handles of the old runtime go: its connections close as those of a killed daemon.
        node.restart().await;
        assert_eq!(node.exit("ends").await.code, 4);
        let after = node.runtime.pod("p").unwrap();
        assert_eq!(after.shim_pid, Some(pid));
        let ids = |pod: &coracle_oci::PodState| {
            pod.containers
                .iter()
                .map(|c| c.spec.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&after), ids(&before));
        for (old, new) in before.containers.iter().zip(&after.containers) {
            assert_eq!(old.created_at, new.created_at);
            assert_eq!(old.spec.argv, new.spec.argv);
            if old.spec.id != "ends" {
                assert_eq!(old.status, new.status, "{}", old.spec.id);
            }
        }
        let mut attachment = node.runtime.attach("waits").await.unwrap();
        send(&mut attachment.stdin, b"hello\nend\n").await;
        assert_eq!(node.exit("waits").await.code, 3);
        assert_eq!(node.output("p", "waits"), "got hello\ngot end\n");
        node.runtime.start("created").await.unwrap();
        assert_eq!(node.exit("created").await.code, 6);
        // And new ones can be made.
        assert_eq!(node.finish("p", node.script("new", "exit 7")).await.0.code, 7);
        node
    });
}

/// The daemon is another process here, and is killed the hard way.
#[test]
fn containers_survive_a_killed_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(daemon)
        .args(["daemon_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env("CORACLE_TEST_DIRECTORY", directory.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mark = directory.path().join("running");
    while !mark.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the daemon ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    run(async {
        let mut node = Node::open(directory.path(), OciRuntime::Builtin, "killed").await;
        let container = node.runtime.container("a").unwrap();
        assert!(
            matches!(container.status, ContainerStatus::Running { .. }),
            "{container:?}"
        );
        node.runtime.kill("a", 15).await.unwrap();
        assert_eq!(node.exit("a").await.code, 42);
        assert_eq!(node.output("p", "a"), "ready\nstopped\n");
        node.done().await;
    });
}

#[test]
#[ignore = "a part of another test, which runs it as a process of its own"]
fn daemon_to_be_killed() {
    let Some(path) = std::env::var_os("CORACLE_TEST_DIRECTORY") else {
        return;
    };
    let directory = std::path::PathBuf::from(path);
    run(async {
        let mark = directory.join("running");
        let node = Node::open(&directory, OciRuntime::Builtin, "killed").await;
        node.pod("p").await;
        let script = "trap 'echo stopped; exit 42' TERM; echo ready; while :; do sleep 0.01; done";
        node.start("p", node.script("a", script)).await;
        support::wait_for_log(&node, "p", "a", "ready").await;
        std::fs::write(mark, "").unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn containers_end_with_their_shim_and_that_is_told() {
    test_each(async |mut node| {
        node.pod("p").await;
        node.start("p", node.script("a", "sleep 1000 & sleep 2000")).await;
        let state = node.runtime.pod("p").unwrap();
        let ContainerStatus::Running { pid, .. } = state.containers[0].status else {
            panic!("{state:?}")
        };
        support::kill_process(state.shim_pid.unwrap());
        let exit = node.exit("a").await;
        assert_eq!((exit.code, exit.reason.as_str()), (255, "ContainerStatusUnknown"));
        loop {
            if let Event::PodLost { pod_uid } = node.events.recv().await.unwrap() {
                assert_eq!(pod_uid, "p");
                break;
            }
        }
        assert!(!support::runs(pid), "it runs without its shim");
        assert_eq!(node.runtime.pod("p").unwrap().shim_pid, None);
        assert!(
            node.runtime
                .create_container("p", node.script("b", "true"))
                .await
                .is_ok()
        );
        assert!(matches!(
            node.runtime.start("b").await,
            Err(coracle_oci::Error::ShimGone(_))
        ));
        node.restart().await;
        assert_eq!(node.runtime.pod("p").unwrap().shim_pid, None);
        node.runtime.remove_pod("p").await.unwrap();
        // The name is free again.
        node.pod("p").await;
        assert_eq!(node.finish("p", node.script("a", "exit 1")).await.0.code, 1);
        node
    });
}

#[test]
fn a_lost_shim_server_is_replaced() {
    run(async {
        let mut node = Node::new(OciRuntime::Builtin).await;
        node.pod("p").await;
        node.start("p", node.script("a", "sleep 1000")).await;
        let server = support::parent_of(node.runtime.pod("p").unwrap().shim_pid.unwrap());
        support::kill_process(server);
        node.pod("q").await;
        assert_eq!(node.finish("q", node.script("b", "exit 3")).await.0.code, 3);
        assert!(matches!(
            node.runtime.container("a").unwrap().status,
            ContainerStatus::Running { .. }
        ));
        node.done().await;
    });
}

/// As after an upgrade, or a disk that lost something: what runs there would never be seen again.
#[test]
fn a_pod_whose_record_is_lost_ends_with_its_shim() {
    run(async {
        let mut node = Node::new(OciRuntime::Builtin).await;
        node.pod("p").await;
        node.start("p", node.script("a", "sleep 1000")).await;
        let shim = node.runtime.pod("p").unwrap().shim_pid.unwrap();
        std::fs::write(node.config.root.join("pods/p/pod.json"), "{}").unwrap();
        node.restart().await;
        assert!(node.runtime.pod("p").is_none());
        // It has hung up, and has little left to do.
        while support::runs(shim) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        // The name is free again.
        node.pod("p").await;
        assert_eq!(node.finish("p", node.script("a", "exit 1")).await.0.code, 1);
        node.done().await;
    });
}
