//! Balancing by load, on connections that are held: who gets the next one.

use crate::world::*;
use coracle_dataplane::{Key, Value};
use coracle_node::service_proxy::{Event, Looked, look};
use coracle_testkit::ipv6_twin;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 81);

/// A connection that lasts until it is dropped.
struct Held {
    _stream: TcpStream,
    /// The pod it goes to.
    pod: u8,
}

fn spec(ip: Ipv4Addr) -> String {
    format!(r#"{{"clusterIP":"{ip}","ports":[{{"port":80}}]}}"#)
}

/// Tells each client its number and stays connected until the client hangs up.
fn hold_clients(world: &World, number: u8) {
    let pod = world.pod(number);
    let listener = world.at(From::Pod(&pod), || {
        TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, 8080))
    });
    let listener = listener.expect("a listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else {
                return;
            };
            std::thread::spawn(move || {
                let _ = stream.write_all(&[number]);
                let _ = stream.read(&mut [0]);
            });
        }
    });
}

fn connect(to: Ipv4Addr) -> Held {
    let mut stream = TcpStream::connect_timeout(&at(to, 80), PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut number = [0];
    stream.read_exact(&mut number).expect("the pod's number");
    Held {
        _stream: stream,
        pod: number[0],
    }
}

/// Waits until the next connection goes to one of these, by the kernel's own tables.
pub fn next_is(pods: &[u8]) {
    let expected: BTreeSet<u8> = pods.iter().copied().collect();
    let mut best = BTreeSet::new();
    let mut is_so = || {
        let Looked::Tables(state) = look().expect("a dump") else {
            panic!("no table of ours");
        };
        let web = state.iter().filter_map(|(key, value)| match (key, value) {
            (Key::Slot(frontend, _), Value::Target(target)) if frontend.address == here(WEB) => {
                Some(ipv6_twin::back(target.ip()).octets()[3])
            }
            _ => None,
        });
        best = web.collect();
        best == expected
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{best:?}, not {expected:?}");
        std::thread::yield_now();
    }
}

/// Connects to one of these, and says to which.
fn connect_to(pods: &[u8]) -> Held {
    next_is(pods);
    let held = connect(WEB);
    assert!(pods.contains(&held.pod), "{} is not one of {pods:?}", held.pod);
    held
}

fn without(pods: &[u8], gone: &[u8]) -> Vec<u8> {
    pods.iter().copied().filter(|pod| !gone.contains(pod)).collect()
}

fn weighted(weights: &str, pods: &[u8]) -> Event {
    let mut event = slice("web", HTTP, pods);
    if let Event::EndpointSlice(slice) = &mut event {
        let annotation = ("coracle.dev/weights".to_owned(), text_here(weights));
        slice.metadata.annotations = Some([annotation].into());
    }
    event
}

#[test]
fn least_connections_spares_who_has_more_and_comes_back_when_they_end() {
    let all = [5, 6, 7];
    on_a_node(|world| {
        all.iter().for_each(|pod| hold_clients(world, *pod));
        let events = || {
            vec![
                balanced("web", &spec(WEB), "least-connections"),
                slice("web", HTTP, &all),
                service("plain", &spec(PLAIN)),
                slice("plain", HTTP, &[6]),
            ]
        };
        let proxy = self::proxy(events());
        let one = connect_to(&all);
        let two = connect_to(&without(&all, &[one.pod]));
        let three = connect_to(&without(&all, &[one.pod, two.pod]));
        let four = connect_to(&all);
        next_is(&without(&all, &[four.pod]));
        drop(four);
        next_is(&all);
        // Connections through another Service count: the load is the endpoint's.
        let plain = connect(PLAIN);
        next_is(&[5, 7]);
        drop(plain);
        next_is(&all);
        drop((one, two));
        next_is(&without(&all, &[three.pod]));

        // The daemon is away, and does not see this one begin; the next daemon counts it.
        drop(proxy);
        let unseen = connect(WEB);
        assert_ne!(unseen.pod, three.pod);
        let proxy = self::proxy(events());
        next_is(&without(&all, &[three.pod, unseen.pod]));
        drop((unseen, three));
        proxy.delete().expect("the rules go");
    });
}

#[test]
fn the_shortest_expected_delay_goes_by_weight() {
    on_a_node(|world| {
        [5, 6].iter().for_each(|pod| hold_clients(world, *pod));
        let proxy = proxy(vec![
            balanced("web", &spec(WEB), "shortest-expected-delay"),
            weighted("10.244.0.6=3", &[5, 6]),
        ]);
        // (0 + 1) / 3, then (1 + 1) / 3; then both are 1.
        let heavy = [connect_to(&[6]), connect_to(&[6])];
        let third = connect_to(&[5, 6]);
        next_is(&without(&[5, 6], &[third.pod]));
        drop(heavy);
        next_is(&[6]);
        drop(third);
        // Weights may change under way.
        proxy.send(weighted("10.244.0.5=2", &[5, 6]));
        next_is(&[5]);
    });
}

#[test]
fn never_queue_takes_an_idle_one_before_a_faster_one() {
    on_a_node(|world| {
        [5, 6].iter().for_each(|pod| hold_clients(world, *pod));
        let _proxy = proxy(vec![
            balanced("web", &spec(WEB), "never-queue"),
            weighted("10.244.0.6=10", &[5, 6]),
        ]);
        let one = connect_to(&[5, 6]);
        let two = connect_to(&without(&[5, 6], &[one.pod]));
        // None is idle: the faster one.
        let more = [connect_to(&[6]), connect_to(&[6])];
        let slow = if one.pod == 5 { one } else { two };
        drop(slow);
        next_is(&[5]);
        drop(more);
    });
}

#[test]
fn connections_that_come_together_spare_who_has_more() {
    let all = [5, 6, 7];
    on_a_node(|world| {
        all.iter().for_each(|pod| hold_clients(world, *pod));
        let proxy = proxy(vec![
            balanced("web", &spec(WEB), "least-connections"),
            slice("web", HTTP, &[5]),
        ]);
        next_is(&[5]);
        let _before: Vec<Held> = (0..60).map(|_| connect(WEB)).collect();
        proxy.send(slice("web", HTTP, &all));
        next_is(&[6, 7]);
        // Nobody waits for the counts here.
        let held: Vec<Held> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..10)
                .map(|_| scope.spawn(|| (0..12).map(|_| connect(WEB)).collect::<Vec<Held>>()))
                .collect();
            let held = clients
                .into_iter()
                .map(|client| client.join().expect("connections"));
            held.flatten().collect()
        });
        let [five, six, seven] = all.map(|pod| held.iter().filter(|held| held.pod == pod).count());
        // By chance it would be 40 each. How even the others are is a matter of how busy the machine is.
        println!("120 connections from ten threads: {five}, {six}, {seven}");
        assert!(
            five < 25 && five < six && five < seven,
            "60 + {five}, {six}, {seven}"
        );
    });
}
