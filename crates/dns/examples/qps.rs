//! Measures queries a second: `cargo run --release -p coracle-dns --example qps [MILLISECONDS] [SERVICES]`.
//!
//! Server, clients and the resolver behind are in this process, on loopback and on the same cores. Two figures of one
//! run: names of the cluster, and external names asked the way a client with `ndots:5` asks, once they are cached.

use coracle_dns::{Forwarder, SearchPath, Server, SharedSearchPaths, SharedZone, Zone};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ENDPOINTS: usize = 10;
const EXTERNAL_NAMES: usize = 1000;
/// Clients, and queries of each that are under way at once.
const CLIENTS: usize = 2;
const WINDOW: usize = 32;
const ROUNDS: usize = 15;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const A: u16 = 1;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|a| a.parse::<usize>().expect("a number"));
    let duration = Duration::from_millis(arguments.next().unwrap_or(500) as u64);
    let services = arguments.next().unwrap_or(10_000);

    let start = Instant::now();
    let zone = zone(services);
    eprintln!(
        "zone of {services} services x {ENDPOINTS} endpoints: built in {:?}, rss {} kB",
        start.elapsed(),
        rss()
    );

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let forwarder = Forwarder::new(vec![resolver()]);
    let paths = SharedSearchPaths::default();
    let path = SearchPath::new(["ns1.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    paths
        .write()
        .insert(LOOPBACK, Arc::new(path.expect("names").expect("not empty")));
    let zone: SharedZone = Arc::new(zone.into());
    let server = runtime
        .block_on(Server::bind((LOOPBACK, 0).into(), zone, forwarder))
        .expect("a server");
    let server = server.with_search_paths(paths);
    let address = server.local_addr().expect("an address");
    let metrics = server.metrics();
    runtime.spawn(server.run());

    let cluster: Vec<Vec<u8>> = (0..services.min(1000))
        .map(|n| query(&format!("svc-{n}.ns{}.svc.cluster.local", n % 100)))
        .collect();
    let headless: Vec<Vec<u8>> = (0..services.min(1000))
        .map(|n| query(&format!("headless-{n}.ns{}.svc.cluster.local", n % 100)))
        .collect();
    let missing = vec![query("nothing.ns1.svc.cluster.local.ns2.svc.cluster.local")];
    let external: Vec<Vec<u8>> = (0..EXTERNAL_NAMES)
        .map(|n| query(&format!("www{n}.example.com.ns1.svc.cluster.local")))
        .collect();
    ask_once(address, &external);

    let kinds = [
        ("dns_qps", &cluster),
        ("dns_headless_qps", &headless),
        ("dns_missing_qps", &missing),
        ("dns_external_qps", &external),
    ];
    let mut rounds = Vec::new();
    let mut costs = vec![0.0; kinds.len()];
    // Interleaved, so that a busy moment of the machine hits all of them.
    for _ in 0..ROUNDS {
        let rates = kinds.iter().zip(&mut costs).map(|((_, queries), cost)| {
            let before = cpu_seconds();
            let rate = measure(address, queries, duration);
            *cost += (cpu_seconds() - before) * 1e6 / (rate * duration.as_secs_f64()) / ROUNDS as f64;
            rate
        });
        rounds.push(rates.collect::<Vec<_>>());
    }
    for (n, (name, _)) in kinds.iter().enumerate() {
        figure(name, "1/s", rounds.iter().map(|rates| rates[n]).collect());
    }
    figure(
        "dns_external_ratio",
        "",
        rounds.iter().map(|rates| rates[3] / rates[0]).collect(),
    );
    figure("dns_rss_mib", "MiB", vec![rss() as f64 / 1024.0]);
    for ((name, _), cost) in kinds.iter().zip(costs) {
        eprintln!("{name}: {cost:.2} us of CPU a query, the client's included");
    }
    let mut page = String::new();
    metrics(&mut page);
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .for_each(|line| eprintln!("{line}"));
}

/// One line of JSON, in the form of `cargo xtask bench`.
fn figure(name: &str, unit: &str, mut samples: Vec<f64>) {
    samples.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        let index = (quantile * (samples.len() - 1) as f64).ceil() as usize;
        (samples[index] * 1000.0).round() / 1000.0
    };
    println!(
        "{}",
        json!({"figure": name, "unit": unit, "n": samples.len(),
            "min": at(0.0), "p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
    );
}

/// Half of the Services have an address, half are headless.
fn zone(services: usize) -> Zone {
    let mut zone = Zone::new("cluster.local").expect("a name");
    for n in 0..services {
        for (name, cluster_ip) in [
            (format!("svc-{n}"), format!("10.96.{}.{}", n / 250, n % 250)),
            (format!("headless-{n}"), "None".into()),
        ] {
            let namespace = format!("ns{}", n % 100);
            let service = json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80}]}});
            zone.upsert_service(&serde_json::from_value(service).expect("a Service"));
        }
        let endpoints: Vec<_> = (0..ENDPOINTS)
            .map(|e| json!({"addresses": [format!("10.{}.{}.{}", 100 + e, n / 250, n % 250)], "conditions": {"ready": true}}))
            .collect();
        let service = format!("headless-{n}");
        let slice = json!({"metadata": {"name": format!("{service}-x"), "namespace": format!("ns{}", n % 100),
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints});
        zone.upsert_slice(&serde_json::from_value(slice).expect("a slice"));
    }
    zone.set_synced();
    zone
}

/// A resolver that gives every name one address.
fn resolver() -> SocketAddr {
    let socket = UdpSocket::bind((LOOPBACK, 0)).expect("a socket");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let name = 12
                + buffer[12..length]
                    .iter()
                    .position(|byte| *byte == 0)
                    .expect("a name")
                + 1;
            let mut reply = buffer[..name + 4].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1]);
            socket.send_to(&reply, client).expect("sent");
        }
    });
    address
}

fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(A.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((LOOPBACK, 0)).expect("a socket");
    socket.connect(server).expect("connected");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    socket
}

fn ask_once(server: SocketAddr, queries: &[Vec<u8>]) {
    let (socket, mut buffer) = (client(server), [0; 4096]);
    for query in queries {
        socket.send(query).expect("sent");
        let length = socket.recv(&mut buffer).expect("answered");
        assert!(
            buffer[3] & 15 == 0 && buffer[7] == 2 && length > 50,
            "an alias and an address"
        );
    }
}

/// Queries a second of all clients.
fn measure(server: SocketAddr, queries: &[Vec<u8>], duration: Duration) -> f64 {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                scope.spawn({
                    let stop = &stop;
                    move || load(server, queries, n, stop)
                })
            })
            .collect();
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .sum()
    });
    answered as f64 / start.elapsed().as_secs_f64()
}

fn load(server: SocketAddr, queries: &[Vec<u8>], start: usize, stop: &AtomicBool) -> usize {
    let (socket, mut buffer) = (client(server), [0; 4096]);
    let mut queries = queries.iter().cycle().skip(start * queries.len() / CLIENTS);
    let mut send = || socket.send(queries.next().expect("endless")).expect("sent");
    for _ in 0..WINDOW {
        send();
    }
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        socket.recv(&mut buffer).expect("answered in time");
        answered += 1;
        send();
    }
    answered
}

/// Time that all threads of this process have run. The kernel counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("readable");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0)
        .sum()
}

/// Resident memory in kB.
fn rss() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("a line");
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}
