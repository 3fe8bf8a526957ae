//! What 10,000 Services with ten endpoints each cost on this machine: `cargo bench -p coracle-node --bench dataplane`.
//! Needs root; works in a network namespace of its own. One line of JSON a figure.

#[path = "../tests/service_proxy/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use coracle_node::DataPlane;
use coracle_node::service_proxy::{Event, ServiceProxy};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use world::*;

const SERVICES: u32 = 10_000;
const ENDPOINTS: std::ops::Range<u8> = 10..20;
const CHANGES: usize = 2_000;
const CONNECTIONS: usize = 2_000;
const LOAD_PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    on_a_node(|world| {
        let pods: Vec<_> = ENDPOINTS.map(|number| world.pod(number)).collect();
        let client = world.pod(9);
        let _servers: Vec<_> = pods.iter().map(|pod| world.serve(pod, 8080)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        // Returns when the kernel has all that the proxy was told.
        let committed = |proxy: &ServiceProxy| {
            let never_an_endpoint = Ipv4Addr::new(198, 51, 100, 255).into();
            runtime.block_on(async {
                proxy
                    .drained(never_an_endpoint, tokio::time::Instant::now() + LOAD_PATIENCE)
                    .await;
            });
        };
        let start = |events: Vec<Event>| {
            let begin = Instant::now();
            let proxy = ServiceProxy::start(config()).expect("a proxy");
            for event in events {
                proxy.send(event);
            }
            proxy.send(Event::Synced);
            committed(&proxy);
            (proxy, begin.elapsed())
        };
        let all: Vec<u8> = ENDPOINTS.collect();
        let events: Vec<Event> = (1..=SERVICES)
            .flat_map(|number| [cluster_service(number), endpoints(number, &all)])
            .collect();

        let (proxy, load) = start(events.clone());
        print("dataplane_load_ms", "ms", &[load.as_secs_f64() * 1e3]);
        drop(proxy);
        let (proxy, restart) = start(events);
        print("dataplane_restart_ms", "ms", &[restart.as_secs_f64() * 1e3]);

        let change = |lists: [&[u8]; 2]| -> Vec<f64> {
            let change = |turn: usize| {
                let event = endpoints(77, lists[turn % 2]);
                let begin = Instant::now();
                proxy.send(event);
                committed(&proxy);
                begin.elapsed().as_secs_f64() * 1e6
            };
            (0..CHANGES).map(change).collect()
        };
        let replaced: Vec<u8> = all
            .iter()
            .map(|number| if *number == 13 { 99 } else { *number })
            .collect();
        print("dataplane_replace_us", "us", &change([&replaced, &all]));
        print("dataplane_count_us", "us", &change([&all[1..], &all]));

        let connect = |to: SocketAddr| -> Vec<f64> {
            world.at(From::Pod(&client), || {
                let connect = |_| {
                    let begin = Instant::now();
                    ask(to).expect("an answer");
                    begin.elapsed().as_secs_f64() * 1e6
                };
                (0..CONNECTIONS).map(connect).collect()
            })
        };
        print("connect_direct_us", "us", &connect((pods[0].ip, 8080).into()));
        print("connect_service_us", "us", &connect((address(77), 80).into()));
    });
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 97, 0, 0)) + number)
}

fn cluster_service(number: u32) -> Event {
    let spec = format!(r#"{{"clusterIP":"{}","ports":[{{"port":80}}]}}"#, address(number));
    service(&format!("s{number}"), &spec)
}

fn endpoints(number: u32, pods: &[u8]) -> Event {
    slice(&format!("s{number}"), HTTP, pods)
}

fn print(figure: &str, unit: &str, samples: &[f64]) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        let last = sorted.len() - 1;
        (sorted[(quantile * last as f64).ceil() as usize] * 1e3).round() / 1e3
    };
    let line = serde_json::json!({
        "figure": figure, "unit": unit, "n": sorted.len(),
        "min": at(0.0), "p50": at(0.5), "p99": at(0.99), "max": at(1.0),
    });
    println!("{line}");
}
