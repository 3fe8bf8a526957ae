//! A new TCP connection through a Service against one straight to the Pod behind it, over the same pair of devices:
//! with ten Services, and with 10,000.

use crate::services::{self, ENDPOINTS, MANY, settle};
use crate::{figure, machine};
use anyhow::{Context, Result};
use coracle_node::service_proxy::{Event, ServiceProxy};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const ROUNDS: usize = 40;
/// Connections in a row, one way and the other in turns.
const IN_A_ROW: usize = 50;
const FIRST_PORT: u16 = 8080;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 10);

/// Prints `connect_ratio_10` and `connect_ratio_10000`.
pub fn measure() -> Result<()> {
    for (figure, services) in [("connect_ratio_10", 10), ("connect_ratio_10000", MANY)] {
        figure::print(figure, "", &ratios(services)?);
    }
    Ok(())
}

/// Medians through the Service over medians straight to the Pod, of each round.
fn ratios(services: u32) -> Result<Vec<f64>> {
    machine::run(|machine| {
        let server = machine.pod("server", SERVER)?;
        let client = machine.pod("client", Ipv4Addr::new(10, 128, 0, 11))?;
        let ports: Vec<u16> = (FIRST_PORT..).take(ENDPOINTS as usize).collect();
        for port in &ports {
            let listener = machine::inside(&server, || TcpListener::bind((SERVER, *port)))??;
            // Ends with this process.
            std::thread::spawn(move || {
                let mut clients = listener.incoming();
                while let Some(Ok(client)) = clients.next() {
                    drop(client);
                }
            });
        }
        let proxy = ServiceProxy::start(services::config()?)?;
        for event in services::events(services)? {
            proxy.send(event);
        }
        // The first Service leads to the server: its endpoints differ in their ports.
        proxy.send(Event::EndpointSlice(Box::new(services::slice(0, &[])?)));
        for port in &ports {
            proxy.send(Event::EndpointSlice(Box::new(slice(*port)?)));
        }
        proxy.send(Event::Synced);
        settle(&proxy)?;

        let straight: Vec<SocketAddr> = ports.iter().map(|port| (SERVER, *port).into()).collect();
        let through = [SocketAddr::from((services::cluster_ip(0), 80))];
        let measured = machine::inside(&client, || {
            (0..ROUNDS)
                .map(|_| {
                    let (mut direct, mut service) = (Vec::new(), Vec::new());
                    for _ in 0..10 {
                        direct.extend(connect(&straight)?);
                        service.extend(connect(&through)?);
                    }
                    Ok(figure::median(&service) / figure::median(&direct))
                })
                .collect::<Result<Vec<f64>>>()
        })?;
        proxy.delete()?;
        measured
    })
}

/// A slice of the first Service with one port of the server.
fn slice(port: u16) -> Result<EndpointSlice> {
    let name = services::name(0);
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("{name}-{port}"), "namespace": services::NAMESPACE,
                     "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [SERVER], "conditions": {"ready": true}}],
    }))?)
}

/// Microseconds that some connections take.
fn connect(targets: &[SocketAddr]) -> Result<Vec<f64>> {
    let connect = |target: &SocketAddr| {
        let begin = Instant::now();
        let connection = TcpStream::connect(target).with_context(|| format!("connect to {target}"))?;
        let took = begin.elapsed().as_secs_f64() * 1e6;
        // Leaves nothing behind: neither a port in use nor a connection that the kernel keeps in mind.
        rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO))?;
        Ok(took)
    };
    targets.iter().cycle().take(IN_A_ROW).map(connect).collect()
}
