//! Queries a second that the cluster DNS answers: names of the cluster, and external names asked the way a client with
//! `ndots:5` asks, once they are cached.
//!
//! The real server, its clients and a resolver behind it share a network namespace and this machine's processors.

use crate::services::{self, MANY};
use crate::{figure, machine};
use anyhow::{Context, Result, ensure};
use coracle_dns::{Forwarder, SearchPath, Server, SharedSearchPaths, SharedZone, Zone};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EXTERNAL_NAMES: usize = 1_000;
/// Clients, and queries of each that are under way at once.
const CLIENTS: usize = 2;
const WINDOW: usize = 32;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the bits of a query that matter are: header, type A, class IN.
const HEADER: [u8; 12] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// Prints `dns_qps`, `dns_external_qps` and the second in terms of the first.
pub fn measure() -> Result<()> {
    machine::run(|_| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let paths = SharedSearchPaths::default();
        let path = SearchPath::new(["default.svc.cluster.local", "svc.cluster.local", "cluster.local"])?;
        let path = path.context("a search path")?;
        paths.write().insert(LOOPBACK, Arc::new(path));
        let zone: SharedZone = Arc::new(zone()?.into());
        let forwarder = Forwarder::new(vec![resolver()?]);
        let server = runtime.block_on(Server::bind((LOOPBACK, 0).into(), zone, forwarder))?;
        let server = server.with_search_paths(paths);
        let address = server.local_addr()?;
        runtime.spawn(server.run());

        let suffix = "default.svc.cluster.local";
        let cluster: Vec<_> = (0..MANY)
            .map(|n| query(&format!("{}.{suffix}", services::name(n))))
            .collect();
        let external: Vec<_> = (0..EXTERNAL_NAMES)
            .map(|n| query(&format!("www{n}.example.com.{suffix}")))
            .collect();
        fill_cache(address, &external)?;
        let (mut names, mut externals, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        // In turns, so that a busy moment of the machine hits both.
        for _ in 0..ROUNDS {
            let (cluster, external) = (rate(address, &cluster)?, rate(address, &external)?);
            names.push(cluster);
            externals.push(external);
            ratios.push(external / cluster);
        }
        figure::print("dns_qps", "1/s", &names);
        figure::print("dns_external_qps", "1/s", &externals);
        figure::print("dns_external_ratio", "", &ratios);
        Ok(())
    })
}

fn zone() -> Result<Zone> {
    let mut zone = Zone::new("cluster.local")?;
    zone.upsert_namespace(services::NAMESPACE);
    for number in 0..MANY {
        zone.upsert_service(&services::service(number)?);
        zone.upsert_slice(&services::slice(number, &services::pods_of(number))?);
    }
    zone.set_synced();
    Ok(zone)
}

/// A resolver that gives every name one address for an hour. It ends with the process.
fn resolver() -> Result<SocketAddr> {
    const ANSWER: [u8; 10] = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1];
    let socket = UdpSocket::bind((LOOPBACK, 0))?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let Some(name) = buffer[..length]
                .get(HEADER.len()..)
                .and_then(|rest| rest.iter().position(|b| *b == 0))
            else {
                continue;
            };
            let question = HEADER.len() + name + 1 + A_IN.len();
            let mut reply = buffer[..question].to_vec();
            reply[2..HEADER.len()].copy_from_slice(&ANSWER);
            reply.extend(RECORD);
            let _ = socket.send_to(&reply, client);
        }
    });
    Ok(address)
}

fn query(name: &str) -> Vec<u8> {
    let mut message = HEADER.to_vec();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(A_IN);
    message
}

fn client(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((LOOPBACK, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks for each name once, and checks that one query is answered with an alias and an address.
fn fill_cache(server: SocketAddr, queries: &[Vec<u8>]) -> Result<()> {
    let (socket, mut buffer) = (client(server)?, [0; 4096]);
    for query in queries {
        socket.send(query)?;
        let length = socket.recv(&mut buffer)?;
        let (code, answers) = (buffer[3] & 15, buffer[7]);
        ensure!(
            (code, answers) == (0, 2) && length > query.len(),
            "an external name: code {code}, {answers} records"
        );
    }
    Ok(())
}

/// Queries a second of all clients together.
fn rate(server: SocketAddr, queries: &[Vec<u8>]) -> Result<f64> {
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let answered = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (first, stop) = (n * queries.len() / CLIENTS, &stop);
                scope.spawn(move || ask(server, queries, first, stop))
            })
            .collect();
        std::thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .sum::<Result<usize>>()
    })?;
    Ok(answered as f64 / begin.elapsed().as_secs_f64())
}

/// Keeps some queries under way until told to stop; how many were answered without an error.
fn ask(server: SocketAddr, queries: &[Vec<u8>], first: usize, stop: &AtomicBool) -> Result<usize> {
    let (socket, mut buffer) = (client(server)?, [0; 4096]);
    let mut queries = queries.iter().cycle().skip(first);
    for query in queries.by_ref().take(WINDOW) {
        socket.send(query)?;
    }
    let mut answered = 0;
    for query in queries {
        socket.recv(&mut buffer).context("a query was not answered")?;
        ensure!(buffer[3] & 15 == 0 && buffer[7] > 0, "a name was not found");
        answered += 1;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        socket.send(query)?;
    }
    Ok(answered)
}
