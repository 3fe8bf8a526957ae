//! Endpoints come and go while clients connect: no connection is lost.

use crate::world::*;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 80), 80);

/// Changes endpoints this often; each time a sweep of what was left before is under way.
const CHANGES: usize = 3_000;

#[test]
fn no_connection_is_lost_while_endpoints_change() {
    for affinity in ["None", "ClientIP"] {
        on_a_node(|world| {
            let pods: Vec<_> = (2..6).map(|number| world.pod(number)).collect();
            let _servers: Vec<_> = pods.iter().map(|pod| world.serve(pod, 8080)).collect();
            let spec = format!(
                r#"{{"clusterIP":"10.96.0.80","sessionAffinity":"{affinity}","ports":[{{"port":80}}]}}"#
            );
            let proxy = proxy(vec![service("web", &spec), slice("web", HTTP, &[2, 3, 4, 5])]);
            let sets: [&[u8]; 8] = [
                &[2, 3, 4, 5],
                &[3, 4, 5],
                &[5],
                &[2, 5],
                &[4, 2],
                &[4, 3, 2],
                &[2],
                &[3, 4],
            ];
            let done = AtomicBool::new(false);
            let connections = AtomicU32::new(0);
            std::thread::scope(|scope| {
                let _stop = StopAtEnd(&done);
                let connect = || {
                    while !done.load(Ordering::Relaxed) {
                        ask(SocketAddr::from(TO)).expect("each connection is served");
                        connections.fetch_add(1, Ordering::Relaxed);
                    }
                };
                let client = world.pod(9);
                let from_pod = scope.spawn(move || world.at(From::Pod(&client), connect));
                let from_node = scope.spawn(connect);
                for change in 0..CHANGES {
                    proxy.send(slice("web", HTTP, sets[change % sets.len()]));
                    settle(&proxy);
                    if from_pod.is_finished() || from_node.is_finished() {
                        break;
                    }
                }
            });
            assert!(connections.load(Ordering::Relaxed) > 100, "clients were at work");
        });
    }
}
