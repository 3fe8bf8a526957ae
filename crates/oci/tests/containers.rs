//! Containers behave alike under our launcher and under runc.

mod support;

use coracle_oci::OciRuntime;
use support::{Node, run, runtimes};

#[test]
fn exit_codes_and_output() {
    run(async {
        for runtime in runtimes() {
            let mut node = Node::new(runtime).await;
            node.pod("p").await;
            let script = node.script("a", "echo out; echo err >&2; exit 7");
            let (exit, output) = node.finish("p", script).await;
            assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (7, None, "Error"));
            assert!(exit.started_at.unwrap() <= exit.finished_at);
            assert!(output.contains("out\n") && output.contains("err\n"), "{output:?}");
            node.done().await;
        }
    });
}
