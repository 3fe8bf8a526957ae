//! What a container costs: prints medians and holds generous bounds, as this may run unoptimised on a busy machine.
//! `cargo test --release -p coracle-oci --test figures -- --nocapture` tells the real ones.

mod support;

use std::time::{Duration, Instant};

use coracle_oci::{ExecSpec, OciRuntime};
use support::{Node, run};

const ROUNDS: usize = 20;

#[derive(Default)]
struct Figure(Vec<Duration>);

impl Figure {
    async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = work.await;
        self.0.push(start.elapsed());
        result
    }

    fn print(&mut self, runtime: &str, name: &str) -> Duration {
        self.0.sort();
        let (median, worst) = (self.0[self.0.len() / 2], self.0[self.0.len() - 1]);
        println!("{runtime:8} {name:28} median {median:>10.3?}  worst {worst:>10.3?}");
        median
    }
}

/// Proportional set size of a process in kB, and what of it nobody else has.
fn memory(pid: i32) -> (u64, u64) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Pss:"), field("Private_Clean:") + field("Private_Dirty:"))
}

async fn measure(runtime: OciRuntime) -> (Duration, Duration, Duration) {
    let name = if runtime == OciRuntime::Builtin {
        "builtin"
    } else {
        "runc"
    };
    let mut node = Node::new(runtime).await;
    let [
        mut pod,
        mut create,
        mut start,
        mut exec,
        mut end,
        mut remove,
        mut remove_pod,
    ] = std::array::from_fn(|_| Figure::default());
    // The first one starts the shim server.
    node.pod("first").await;
    for round in 0..ROUNDS {
        let (uid, id) = (format!("p{round}"), format!("c{round}"));
        pod.time(node.pod(&uid)).await;
        let spec = node.script(&id, "sleep 1000");
        create
            .time(node.runtime.create_container(&uid, spec))
            .await
            .unwrap();
        start.time(node.runtime.start(&id)).await.unwrap();
        let run = async {
            let request = ExecSpec {
                argv: vec!["true".into()],
                ..ExecSpec::default()
            };
            node.runtime
                .exec(&id, request)
                .await
                .unwrap()
                .wait()
                .await
                .unwrap()
        };
        assert_eq!(exec.time(run).await, 0);
        let kill = async {
            node.runtime.kill(&id, 9).await.unwrap();
            node.exit(&id).await
        };
        end.time(kill).await;
        remove.time(node.runtime.remove(&id)).await.unwrap();
        remove_pod.time(node.runtime.remove_pod(&uid)).await.unwrap();
    }
    pod.print(name, "start pod");
    let create = create.print(name, "create");
    let start = start.print(name, "start to running");
    let exec = exec.print(name, "exec true, to its end");
    end.print(name, "kill to exit event");
    let remove = remove.print(name, "remove container");
    remove_pod.print(name, "remove pod");
    node.done().await;
    (create + start, exec, remove)
}

#[test]
fn figures() {
    run(async {
        let (start, exec, remove) = measure(OciRuntime::Builtin).await;
        assert!(start < Duration::from_millis(100), "{start:?}");
        assert!(exec < Duration::from_millis(50), "{exec:?}");
        assert!(remove < Duration::from_millis(50), "{remove:?}");
        for runtime in support::runtimes().into_iter().skip(1) {
            measure(runtime).await;
        }
    });
}

#[test]
fn shims_are_small() {
    run(async {
        let node = Node::new(OciRuntime::Builtin).await;
        const PODS: usize = 10;
        for number in 0..PODS {
            let uid = format!("p{number}");
            node.pod(&uid).await;
            node.start(&uid, node.script(&format!("c{number}"), "seq 1 1000; sleep 1000"))
                .await;
            node.exec(&format!("c{number}"), &["true"]).await;
        }
        let pids: Vec<i32> = node
            .runtime
            .list()
            .iter()
            .map(|pod| pod.shim_pid.unwrap())
            .collect();
        let server = support::parent_of(pids[0]);
        let total: u64 = pids.iter().map(|pid| memory(*pid).0).sum();
        let (pss, private) = memory(pids[0]);
        println!(
            "shim: {pss} kB PSS, {private} kB private; {PODS} shims {total} kB PSS, server {} kB PSS",
            memory(server).0
        );
        assert!(total / (PODS as u64) < 1024, "{total} kB for {PODS} shims");
        node.done().await;
    });
}
