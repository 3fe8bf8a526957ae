//! Processes run in containers, attached clients and terminals, under our launcher and under runc.

mod support;

use coracle_oci::{Error, ExecSpec, User};
use support::{read_line, read_until, send, test_each};
use tokio::io::AsyncReadExt;

fn spec(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        ..ExecSpec::default()
    }
}

#[test]
fn exec_runs_in_the_container() {
    test_each(async |mut node| {
        node.pod("p").await;
        let mut container = node.script("a", "echo > /mark; sleep 1000");
        container.env = vec!["A=container".into(), "B=container".into()];
        container.user = User {
            user: "0:0".into(),
            ..User::default()
        };
        node.start("p", container).await;
        let script = "ls /mark; echo $A $B; echo error >&2; grep Seccomp: /proc/self/status; ls /proc/self/fd | wc -l; exit 4";
        let mut request = spec(&["sh", "-c", script]);
        request.env = vec!["B=exec".into()];
        let mut session = node.runtime.exec("a", request).await.unwrap();
        let (mut output, mut error) = (String::new(), String::new());
        session
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .await
            .unwrap();
        session
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut error)
            .await
            .unwrap();
        assert!(session.stdin.is_none());
        assert_eq!((session.wait().await.unwrap(), error.as_str()), (4, "error\n"));
        assert_eq!(session.wait().await.unwrap(), 4);
        assert_eq!(output, "/mark\ncontainer exec\nSeccomp:\t2\n4\n");

        let mut request = spec(&["sh", "-c", "id -u; pwd"]);
        request.user = Some(User {
            user: "web".into(),
            ..User::default()
        });
        request.cwd = Some("/tmp".into());
        let mut session = node.runtime.exec("a", request).await.unwrap();
        let mut output = String::new();
        session
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .await
            .unwrap();
        assert_eq!(
            (output.as_str(), session.wait().await.unwrap()),
            ("1000\n/tmp\n", 0)
        );

        let error = node
            .runtime
            .exec("a", spec(&["nosuch"]))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exec: \"nosuch\": executable file not found in $PATH"),
            "{error}"
        );
        node.runtime.kill("a", 9).await.unwrap();
        node.exit("a").await;
        assert!(matches!(
            node.runtime.exec("a", spec(&["true"])).await,
            Err(Error::Start(_))
        ));
        assert!(matches!(
            node.runtime.exec("b", spec(&["true"])).await,
            Err(Error::ContainerNotFound(_))
        ));
        node
    });
}

#[test]
fn exec_streams_both_ways_and_any_amount() {
    test_each(async |node| {
        node.pod("p").await;
        node.start("p", node.script("a", "sleep 1000")).await;
        let mut session = node
            .runtime
            .exec(
                "a",
                ExecSpec {
                    stdin: true,
                    ..spec(&["cat"])
                },
            )
            .await
            .unwrap();
        let mut stdin = session.stdin.take().unwrap();
        let mut stdout = session.stdout.take().unwrap();
        let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let sent = data.clone();
        let sender = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut stdin, &sent)
                .await
                .unwrap();
        });
        let mut received = Vec::new();
        stdout.read_to_end(&mut received).await.unwrap();
        sender.await.unwrap();
        assert!(received == data, "{} bytes came back", received.len());
        assert_eq!(session.wait().await.unwrap(), 0);
        node
    });
}

#[test]
fn exec_ends_when_it_is_killed_or_dropped() {
    test_each(async |node| {
        node.pod("p").await;
        node.start("p", node.script("a", "sleep 1000")).await;
        let mut session = node
            .runtime
            .exec("a", spec(&["sh", "-c", "sleep 2000 & wait"]))
            .await
            .unwrap();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), session.wait()).await;
        assert!(waited.is_err(), "it ended by itself");
        session.kill().await.unwrap();
        assert_eq!(session.wait().await.unwrap(), 137);
        let session = node.runtime.exec("a", spec(&["sleep", "3000"])).await.unwrap();
        drop(session);
        loop {
            let (_, processes, _) = node.exec("a", &["ps", "-o", "args"]).await;
            if !processes.contains("sleep 3000") {
                assert!(!processes.contains("sleep 2000"), "{processes}");
                break;
            }
        }
        node
    });
}

#[test]
fn exec_with_a_terminal() {
    test_each(async |node| {
        node.pod("p").await;
        node.start("p", node.script("a", "sleep 1000")).await;
        let request = ExecSpec {
            tty: true,
            stdin: true,
            size: Some((100, 30)),
            ..spec(&["sh"])
        };
        let mut session = node.runtime.exec("a", request).await.unwrap();
        assert!(session.stderr.is_none());
        send(
            &mut session.stdin,
            b"tty; stty size; echo $TERM; echo er''ror >&2\n",
        )
        .await;
        let shown = read_until(&mut session.stdout, "error\r\n").await;
        assert!(
            shown.contains("/dev/pts/") && shown.contains("30 100") && shown.contains("xterm"),
            "{shown}"
        );
        session.resize(120, 40).unwrap();
        send(&mut session.stdin, b"stty size; echo do''ne\n").await;
        let shown = read_until(&mut session.stdout, "done\r\n").await;
        assert!(shown.contains("40 120"), "{shown}");
        // Control-C reaches the program in the foreground.
        let script = b"sh -c \"trap 'echo cau''ght; exit 7' INT; echo sta''rted; while :; do sleep 0.01; done\"; echo co''de $?\n";
        send(&mut session.stdin, script).await;
        read_until(&mut session.stdout, "started").await;
        send(&mut session.stdin, &[3]).await;
        read_until(&mut session.stdout, "code 7").await;
        send(&mut session.stdin, b"exit 6\n").await;
        let mut rest = Vec::new();
        session
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut rest)
            .await
            .unwrap();
        assert_eq!(session.wait().await.unwrap(), 6);
        node
    });
}

#[test]
fn attach_to_pipes() {
    test_each(async |mut node| {
        node.pod("p").await;
        let mut container = node.script(
            "a",
            "echo early; while read line; do echo got $line; echo e$line >&2; done; echo end; exit 9",
        );
        container.stdin = true;
        container.stdin_once = true;
        node.start("p", container).await;
        support::wait_for_log(&node, "p", "a", "early").await;
        let mut first = node.runtime.attach("a").await.unwrap();
        assert!(!first.tty);
        send(&mut first.stdin, b"one\n").await;
        read_line(&mut first.stdout, "got one").await;
        read_line(&mut first.stderr, "eone").await;
        let mut second = node.runtime.attach("a").await.unwrap();
        assert!(second.stdin.is_none(), "input goes to the first client only");
        send(&mut first.stdin, b"two\n").await;
        read_line(&mut first.stdout, "got two").await;
        read_line(&mut second.stdout, "got two").await;
        // One client leaves; with the other's input the container's input ends.
        drop(second);
        first.stdin = None;
        assert_eq!(read_until(&mut first.stdout, "end\n").await, "end\n");
        assert_eq!(node.exit("a").await.code, 9);
        let mut rest = Vec::new();
        first.stdout.unwrap().read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            node.output("p", "a")
                .lines()
                .filter(|line| line.starts_with("got"))
                .count(),
            2
        );
        node
    });
}

#[test]
fn a_slow_client_loses_nothing() {
    test_each(async |mut node| {
        node.pod("p").await;
        let mut container = node.script("a", "read line; seq 1 100000; echo end");
        container.stdin = true;
        node.start("p", container).await;
        let mut attachment = node.runtime.attach("a").await.unwrap();
        send(&mut attachment.stdin, b"\n").await;
        // More than all pipes hold: the container has to wait for us.
        let patience = std::time::Duration::from_millis(100);
        let ended = async {
            while let Some(event) = node.events.recv().await {
                if matches!(event, coracle_oci::Event::ContainerExited { .. }) {
                    return;
                }
            }
        };
        assert!(
            tokio::time::timeout(patience, ended).await.is_err(),
            "it did not wait"
        );
        let seen = read_until(&mut attachment.stdout, "end\n").await;
        assert_eq!(seen.lines().count(), 100_001);
        node.exit("a").await;
        assert_eq!(node.output("p", "a").lines().count(), 100_001);
        node
    });
}

#[test]
fn a_container_with_a_terminal() {
    test_each(async |mut node| {
        node.pod("p").await;
        let mut container = node.script(
            "a",
            "tty; while read line; do case $line in size) stty size;; *) exit 5;; esac; done",
        );
        container.tty = true;
        container.stdin = true;
        node.start("p", container).await;
        let mut attachment = node.runtime.attach("a").await.unwrap();
        assert!(attachment.tty && attachment.stderr.is_none());
        attachment.resize(90, 25).unwrap();
        send(&mut attachment.stdin, b"size\n").await;
        read_until(&mut attachment.stdout, "25 90").await;
        send(&mut attachment.stdin, b"bye\n").await;
        assert_eq!(node.exit("a").await.code, 5);
        let log = node.log("p", "a");
        assert!(
            log.contains("stdout F /dev/pts/0\r\n") || log.contains("stdout F /dev/console\r\n"),
            "{log}"
        );
        assert!(!log.contains("stderr"), "{log}");
        node
    });
}
