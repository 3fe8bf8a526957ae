//! The cluster DNS's answer for the Service's name, asked from the client's network namespace.

use super::node::{Here, Place};
use coracle_client::{Client, transport};
use coracle_diagnose::{Answer, Evidence, Lookup, Seen};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use http::Method;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const PORT: u16 = 53;
/// How long an answer may take, twice.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 2;
/// Larger answers than a datagram usually takes; the loopback device and Pods' links take them.
const LARGEST: usize = 65_535;

/// The cluster DNS as the node's configuration names it.
struct ClusterDns {
    server: IpAddr,
    domain: String,
}

/// Asks. An error says why nobody could be asked.
pub async fn ask(evidence: &Evidence, here: &Here, place: &Place, client: &Client) -> Seen<Lookup> {
    let dns = cluster_dns(client, &here.name).await?;
    let name = format!(
        "{}.{}.svc.{}.",
        evidence.name,
        evidence.namespace,
        dns.domain.trim_end_matches('.')
    );
    let types = record_types(evidence);
    let (server, place, question) = (dns.server, place.clone(), name.clone());
    let asking = tokio::task::spawn_blocking(move || place.run(|| exchange(server, &question, &types)));
    let answer = asking.await.map_err(|error| error.to_string())??;
    Ok(Lookup { name, server, answer })
}

/// `clusterDNS` and `clusterDomain` of the node, through the API server.
async fn cluster_dns(client: &Client, node: &str) -> Seen<ClusterDns> {
    let path = format!("/api/v1/nodes/{node}/proxy/configz");
    let bytes = client.bytes(Method::GET, &path, "", transport::empty()).await;
    let bytes = bytes.map_err(|error| format!("the node does not tell its DNS: {}", error.describe()))?;
    let config: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("{path} is not JSON: {error}"))?;
    let config = &config["kubeletconfig"];
    let server = config["clusterDNS"][0]
        .as_str()
        .and_then(|address| address.parse().ok());
    Ok(ClusterDns {
        server: server.ok_or("the node has no cluster DNS")?,
        domain: config["clusterDomain"]
            .as_str()
            .unwrap_or("cluster.local")
            .to_owned(),
    })
}

/// A and AAAA as the Service has addresses; both for the name of an outside host.
fn record_types(evidence: &Evidence) -> Vec<RecordType> {
    let spec = evidence
        .service
        .as_ref()
        .and_then(|service| service.spec.as_ref());
    let families = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let has = |family: &str| families.is_empty() || families.iter().any(|f| f == family);
    let types = [("IPv4", RecordType::A), ("IPv6", RecordType::AAAA)];
    types
        .into_iter()
        .filter(|(family, _)| has(family))
        .map(|(_, record_type)| record_type)
        .collect()
}

fn exchange(server: IpAddr, name: &str, types: &[RecordType]) -> Answer {
    let mut alias = None;
    let mut addresses = Vec::new();
    let mut missing = true;
    for record_type in types {
        let message = match question(server, name, *record_type) {
            Ok(message) => message,
            Err(why) => return Answer::None(why),
        };
        match message.metadata.response_code {
            ResponseCode::NoError => missing = false,
            ResponseCode::NXDomain => (),
            code => return Answer::Failed(code.to_string()),
        }
        for record in &message.answers {
            match &record.data {
                RData::A(a) => addresses.push(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => addresses.push(IpAddr::V6(aaaa.0)),
                RData::CNAME(name) if alias.is_none() => alias = Some(name.to_string()),
                _ => (),
            }
        }
    }
    match alias {
        Some(alias) => Answer::Alias(alias, addresses),
        None if missing => Answer::NoSuchName,
        None => Answer::Addresses(addresses),
    }
}

/// One question, asked again once if nothing comes back.
fn question(server: IpAddr, name: &str, record_type: RecordType) -> Result<Message, String> {
    let text = |error: std::io::Error| error.to_string();
    let name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record_type));
    let bytes = message.to_vec().map_err(|error| error.to_string())?;
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(text)?;
    socket.connect(SocketAddr::new(server, PORT)).map_err(text)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    let mut buffer = vec![0; LARGEST];
    let mut last = String::new();
    for _ in 0..TRIES {
        socket.send(&bytes).map_err(text)?;
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = Message::from_vec(&buffer[..length]).map_err(|error| error.to_string())?;
                if answer.metadata.id == message.metadata.id {
                    return Ok(answer);
                }
                last = "an answer to another question came back".to_owned();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                last = format!("nothing came back within {} s", PATIENCE.as_secs());
            }
            Err(error) => last = text(error),
        }
    }
    Err(last)
}
