//! The daemon goes and comes back: its rules stay in force, and are taken over with the smallest change.

use crate::world::*;
use coracle_dataplane::ServiceKey;
use coracle_kernel::net::nftables::{Batch, Family, Nftables};
use coracle_node::service_proxy::{Error, Event, ServiceProxy};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 80), 80);
const SPEC: &str = r#"{"clusterIP":"10.96.0.80","sessionAffinity":"ClientIP","ports":[{"port":80}]}"#;

fn generation() -> u32 {
    Nftables::open()
        .expect("a socket")
        .generation()
        .expect("a generation")
        .0
}

#[test]
fn a_second_proxy_is_turned_away_and_foreign_changes_too() {
    on_a_node(|_| {
        let first = proxy(vec![]);
        assert!(matches!(ServiceProxy::start(config()), Err(Error::Owned)));
        let mut batch = Batch::new();
        let family = if is_ipv6() { Family::Ip6 } else { Family::Ip };
        batch.delete_table(family, "coracle");
        let error = Nftables::open()
            .expect("a socket")
            .commit(batch)
            .expect_err("not ours");
        assert!(error.is_not_permitted(), "{error}");
        first.delete().expect("its own process may");
        let table = Nftables::open().expect("a socket").table(family, "coracle");
        assert_eq!(table.expect("a look"), None);
    });
}

#[test]
fn a_restart_without_changes_writes_nothing_and_loses_nothing() {
    on_a_node(|world| {
        let (five, six, client) = (world.pod(5), world.pod(6), world.pod(9));
        let (_five, _six) = (world.serve(&five, 8080), world.serve(&six, 8080));
        let events = || vec![service("web", SPEC), slice("web", HTTP, &[5, 6])];
        let first = proxy(events());
        let stays = world.ask(From::Pod(&client), TO).expect("an answer").server;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&done);
            scope.spawn(|| {
                world.at(From::Pod(&client), || {
                    while !done.load(Ordering::Relaxed) {
                        let answer = ask(SocketAddr::from(TO)).expect("served through the restart");
                        assert_eq!(answer.server, stays, "affinity survives the restart");
                    }
                });
            });
            drop(first);
            assert_eq!(
                world.ask(From::Node, TO).map(|_| ()).map_err(|e| e.kind()),
                Ok(()),
                "nobody is running"
            );
            let before = generation();
            let second = proxy(events());
            // Taking the table over is one commit; nothing else is different.
            assert_eq!(generation() - before, 1);
            second.send(Event::Synced);
        });
    });
}

#[test]
fn a_restart_catches_up_with_what_it_missed() {
    on_a_node(|world| {
        let (five, six, client) = (world.pod(5), world.pod(6), world.pod(9));
        let (_five, _six) = (world.serve(&five, 8080), world.serve(&six, 8080));
        let other = r#"{"clusterIP":"10.96.0.81","ports":[{"port":80}]}"#;
        drop(proxy(vec![
            service("web", SPEC),
            slice("web", HTTP, &[5]),
            service("gone", other),
            slice("gone", HTTP, &[5]),
        ]));
        let second = ServiceProxy::start(config()).expect("a second proxy");
        second.send(service("web", SPEC));
        settle_without_sync(world, &client, five.ip);
        second.send(slice("web", HTTP, &[6]));
        second.send(Event::Synced);
        settle(&second);
        assert_eq!(
            world.ask(From::Pod(&client), TO).expect("an answer").server,
            six.ip
        );
        let gone = world.at(From::Pod(&client), || {
            let to = at(Ipv4Addr::new(10, 96, 0, 81), 80);
            std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(300))
        });
        assert!(gone.is_err(), "the Service went meanwhile");
        assert_eq!(second.timeline().of(&ServiceKey::new("ns", "gone")), None);
    });
}

/// Until everything is known, the old rules stay: half the events must not be taken for the whole.
fn settle_without_sync(world: &World, client: &Pod, expected: Ipv4Addr) {
    for _ in 0..50 {
        assert_eq!(
            world.ask(From::Pod(client), TO).expect("an answer").server,
            expected
        );
    }
}

/// Names the directory in which this process plays the daemon that is killed.
const VICTIM: &str = "CORACLE_TEST_VICTIM";

/// Another process of this test, in the namespace of this thread, which plays the daemon and is to be killed.
pub(crate) fn start_victim(world: &World, test: &str) -> Child {
    let victim = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test])
        .env(VICTIM, &world.directory)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child");
    eventually("the child is at work", || world.directory.join("ready").exists());
    victim
}

/// Where this process is that other one: starts the daemon and waits for the end.
pub(crate) fn be_the_victim(start: impl FnOnce() -> ServiceProxy) {
    let Some(directory) = std::env::var_os(VICTIM) else {
        return;
    };
    let _proxy = start();
    std::fs::write(std::path::Path::new(&directory).join("ready"), "").expect("a sign");
    loop {
        std::thread::park();
    }
}

#[test]
fn kill_9_loses_nothing() {
    be_the_victim(|| proxy(vec![service("web", SPEC), slice("web", HTTP, &[5])]));
    on_a_node(|world| {
        let (five, six, client) = (world.pod(5), world.pod(6), world.pod(9));
        let (_five, _six) = (world.serve(&five, 8080), world.serve(&six, 8080));
        let mut victim = start_victim(world, "restart::kill_9_loses_nothing");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&done);
            scope.spawn(|| {
                world.at(From::Pod(&client), || {
                    while !done.load(Ordering::Relaxed) {
                        ask(SocketAddr::from(TO)).expect("served before, during and after");
                    }
                });
            });
            victim.kill().expect("kill -9");
            victim.wait().expect("dead");
            assert_eq!(
                world.ask(From::Pod(&client), TO).expect("an answer").server,
                five.ip
            );
            let proxy = proxy(vec![service("web", SPEC), slice("web", HTTP, &[5, 6])]);
            proxy.send(slice("web", HTTP, &[6]));
            settle(&proxy);
            assert_eq!(
                world.ask(From::Pod(&client), TO).expect("an answer").server,
                six.ip
            );
        });
    });
}

#[test]
fn rules_of_another_version_are_replaced_in_one_step() {
    on_a_node(|world| {
        let (five, client) = (world.pod(5), world.pod(9));
        let _five = world.serve(&five, 8080);
        let events = || vec![service("web", SPEC), slice("web", HTTP, &[5])];
        let mut other = config();
        // Other pod ranges make other rules.
        other.pod_cidrs.push(range("10.245.0.0/16"));
        let first = ServiceProxy::start(other).expect("a proxy");
        for event in events() {
            first.send(event);
        }
        first.send(Event::Synced);
        settle(&first);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&done);
            scope.spawn(|| {
                world.at(From::Pod(&client), || {
                    while !done.load(Ordering::Relaxed) {
                        ask(SocketAddr::from(TO)).expect("served through the upgrade");
                    }
                });
            });
            drop(first);
            let second = proxy(events());
            assert_eq!(
                world.ask(From::Pod(&client), TO).expect("an answer").server,
                five.ip
            );
            drop(second);
        });
    });
}

#[test]
fn rules_of_two_families_are_taken_and_read_back() {
    on_a_node(|_| {
        let mut config = config();
        // The world has addresses of one family only, and its ranges of the other make no difference.
        config.pod_cidrs = ["10.244.0.0/16", "fd00:244::/64"]
            .map(|range| range.parse().expect("a range"))
            .into();
        config.service_cidrs = ["10.96.0.0/12", "fd00:96::/112"]
            .map(|range| range.parse().expect("a range"))
            .into();
        let start = || {
            let proxy = ServiceProxy::start(config.clone()).expect("a proxy");
            for sticky in ["None", "ClientIP"] {
                let number = sticky.len();
                let spec = format!(
                    r#"{{"type":"NodePort","clusterIPs":["fd00:96::{number}"],"sessionAffinity":"{sticky}","externalTrafficPolicy":"Local","ports":[{{"port":80,"nodePort":3000{number}}}]}}"#
                );
                proxy.send(service(sticky, &spec));
                let text = format!(
                    r#"{{"metadata":{{"namespace":"ns","name":"x{sticky}","labels":{{"kubernetes.io/service-name":"{sticky}"}}}},
                    "addressType":"IPv6","ports":{HTTP},"endpoints":[{{"addresses":["fd00:244::5"],"nodeName":"here"}}]}}"#
                );
                proxy.send(slice_of(&text));
            }
            proxy.send(Event::Synced);
            settle(&proxy);
            proxy
        };
        drop(start());
        let before = generation();
        let _second = start();
        // Two tables are taken over, and what was read back is what is wanted.
        assert_eq!(generation() - before, 2);
        let mut nft = Nftables::open().expect("a socket");
        let frontends = nft
            .elements(Family::Ip6, "coracle", "frontends")
            .expect("elements");
        assert_eq!(frontends.len(), 4);
    });
}

#[test]
fn the_rules_print_as_text_that_reads_back() {
    on_a_node(|_| {
        let spec = |n: usize, policy: &str, affinity: &str| {
            let node_port = 30000 + n;
            format!(
                r#"{{"type":"LoadBalancer","clusterIP":"10.96.1.{n}","externalTrafficPolicy":"{policy}",
                "sessionAffinity":"{affinity}","loadBalancerSourceRanges":["192.0.2.0/27"],
                "ports":[{{"port":80,"nodePort":{node_port}}}]}}"#
            )
        };
        let affinities: &[(usize, &str)] = if is_ipv6() {
            // For the key of an IPv6 client nft 1.0.6 finds no registers; the kernel does.
            &[(0, "None")]
        } else {
            &[(0, "None"), (10, "ClientIP")]
        };
        let mut events = Vec::new();
        for (n, (policy, balancing)) in [
            ("Local", "random"),
            ("Cluster", "random"),
            ("Cluster", "round-robin"),
            ("Local", "source-hash"),
            ("Cluster", "destination-hash"),
            ("Cluster", "least-connections"),
        ]
        .into_iter()
        .enumerate()
        {
            for (offset, affinity) in affinities {
                let name = format!("s{}", n + offset);
                let vip = Ipv4Addr::new(198, 51, 100, u8::try_from(n + offset).expect("small"));
                let mut event = load_balancer(&name, &spec(n + offset, policy, affinity), vip);
                if let Event::Service(service) = &mut event {
                    let annotation = ("coracle.dev/balancing".to_owned(), balancing.to_owned());
                    service.metadata.annotations = Some([annotation].into());
                }
                events.extend([event, slice(&name, HTTP, &[5, 6])]);
            }
        }
        let _proxy = proxy(events);
        let family = if is_ipv6() { "ip6" } else { "ip" };
        let table = format!("table {family} coracle");
        let printed = Command::new("nft")
            .args(["list", "table", family, "coracle"])
            .output()
            .expect("nft");
        assert!(printed.status.success(), "{printed:?}");
        let text = String::from_utf8(printed.stdout).expect("text");
        assert!(text.contains("node-port-local-2-source-hash"), "{text}");
        // A copy, since the table itself has an owner.
        let copy: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("flags owner"))
            .collect();
        let copy = copy.join("\n").replace(&table, &format!("table {family} copy"));
        let mut check = Command::new("nft")
            .args(["--check", "--file", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nft");
        let mut stdin = check.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, copy.as_bytes()).expect("nft reads");
        drop(stdin);
        let checked = check.wait_with_output().expect("nft ends");
        assert!(
            checked.status.success(),
            "{}\n{copy}",
            String::from_utf8_lossy(&checked.stderr)
        );
    });
}
