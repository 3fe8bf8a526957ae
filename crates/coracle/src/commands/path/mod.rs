//! `coracle path POD SVC:PORT`: which packet rules a connection takes, in the names of Services and Pods.
//!
//! The node's tables are read as they are, and the packet tracer of `coracle_dataplane`, which the tests hold to the
//! kernel's behaviour, walks them; with `--proxy-mode iptables` the chains of Services as `iptables-save` prints them. No
//! packet is sent.

mod chains;
mod narrate;

use crate::cli::OutputFormat;
use crate::cluster::progress::line;
use crate::commands::diagnose::node::{Here, describe};
use crate::commands::diagnose::{PodReference, ServiceReference};
use crate::commands::node_rules::{NodeRules, addresses};
use crate::config::family;
use crate::kubeconfig::context::{Access, ContextArgs};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use coracle_client::ListOptions;
use coracle_dataplane::fake_kernel::Packet;
use coracle_dataplane::{Connection, Protocol};
use coracle_node::service_proxy::{Looked, look, saved_chains};
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use narrate::{Names, narrate, narrate_chains};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// `coracle path`.
#[derive(Args, Debug)]
pub struct PathArgs {
    /// The Pod that connects, as pod/NAME, NAME or pod/NAMESPACE/NAME
    #[arg(value_name = "POD")]
    pub pod: PodReference,
    /// The Service and the name or number of its port
    #[arg(value_name = "SVC:PORT")]
    pub service: ServiceWithPort,
    /// Which address of a dual-stack Service is meant: IPv4 or IPv6 [default: the Service's first]
    #[arg(long, value_name = "FAMILY", value_parser = [family(false), family(true)], ignore_case = true)]
    pub ip_family: Option<String>,
    /// How to print the result
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
    #[command(flatten)]
    pub context: ContextArgs,
    /// Where `coracle up` keeps the Pods' network namespaces
    #[arg(long, value_name = "DIR", default_value = "/run/coracle", value_parser = crate::config::directory)]
    pub run_dir: PathBuf,
}

/// `svc/web:http`, `web:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceWithPort {
    service: ServiceReference,
    port: String,
}

impl FromStr for ServiceWithPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').filter(|(_, port)| !port.is_empty());
        let (service, port) = parts.ok_or("give SVC:PORT, such as svc/web:80")?;
        Ok(Self {
            service: service.parse()?,
            port: port.to_owned(),
        })
    }
}

/// Runs `coracle path …`.
pub async fn run(args: PathArgs) -> Result<()> {
    let access = args.context.access()?;
    let told = timeout(PATIENCE, tell(&args, &access))
        .await
        .context("the API server does not answer")??;
    match args.output {
        OutputFormat::Text => line(told.to_string().trim_end()),
        OutputFormat::Json => line(&serde_json::to_string_pretty(&told)?),
    }
    Ok(())
}

async fn tell(args: &PathArgs, access: &Access) -> Result<narrate::Told> {
    let (client, namespace) = (&access.client, access.namespace.as_str());
    let pod_namespace = args.pod.namespace.as_deref().unwrap_or(namespace);
    let pod_api = client.api::<Pod>();
    let pod = pod_api
        .get(pod_namespace, &args.pod.name)
        .await
        .context("cannot read the Pod")?;
    let name = args.service.service.name();
    let service = client
        .api::<Service>()
        .get(namespace, name)
        .await
        .context("cannot read the Service")?;
    let all = ListOptions::default();
    let nodes = client
        .api::<Node>()
        .list("", &all)
        .await
        .context("cannot read the nodes")?;
    let here = Here::find(&nodes.items, &args.run_dir)
        .map_err(|why| anyhow!("cannot read the packet rules: {why}"))?;
    here.place_of(&pod)
        .map_err(|why| anyhow!("Pod {}: {why}", args.pod.name))?;
    let (destination, protocol) = destination(&service, &args.service.port, args.ip_family.as_deref())?;
    let source = address(&pod, destination.is_ipv6()).context("the Pod has no address of this family")?;
    let looked = look().map_err(|error| anyhow!("cannot read the packet rules: {}", describe(&error)))?;
    let packet = Packet {
        source,
        destination,
        protocol,
    };
    let rules = NodeRules::read(client, &here, Some(&pod)).await;
    let forbids = |destination| {
        rules.judge(&Connection {
            source,
            destination,
            protocol,
        })
    };
    let names = Names {
        client: format!("{pod_namespace}/{}", args.pod.name),
        service: format!("{namespace}/{name}"),
        port: args.service.port.clone(),
        node: here.name.clone(),
        pods: rules
            .pods
            .iter()
            .flat_map(|pod| addresses(pod).into_iter().map(|ip| (ip, named(pod))))
            .collect(),
    };
    let (config, node_addresses) = (&rules.config, &rules.node_addresses);
    match looked {
        Looked::Tables(state) => Ok(narrate(config, node_addresses, &state, &packet, &names, &forbids)),
        Looked::ByIptables(state) => {
            let saved = saved_chains(destination.is_ipv6())
                .map_err(|error| anyhow!("cannot read the chains: {}", describe(&error)))?;
            let way = chains::walk(&saved, &packet);
            Ok(narrate_chains(
                config,
                node_addresses,
                &state,
                way,
                &packet,
                &names,
                &forbids,
            ))
        }
        Looked::Nothing => bail!("the kernel has no packet rules of this version of coracle"),
    }
}

/// The cluster IP and the port that are meant.
fn destination(
    service: &Service,
    wanted: &str,
    wanted_family: Option<&str>,
) -> Result<(SocketAddr, Protocol)> {
    let spec = service.spec.as_ref().context("the Service has no spec")?;
    let ports = spec.ports.as_deref().unwrap_or_default();
    let is_wanted =
        |port: &&ServicePort| port.name.as_deref() == Some(wanted) || port.port.to_string() == wanted;
    let Some(port) = ports.iter().find(is_wanted) else {
        let known = ports.iter().map(|port| match &port.name {
            Some(name) => format!("{name} ({})", port.port),
            None => port.port.to_string(),
        });
        bail!(
            "the Service has no port {wanted}; it has {}",
            known.collect::<Vec<_>>().join(", ")
        );
    };
    let ips = spec.cluster_ips.as_deref().unwrap_or_default().iter();
    let ips: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
    let is_wanted =
        |ip: &&IpAddr| wanted_family.is_none_or(|wanted| family(ip.is_ipv6()).eq_ignore_ascii_case(wanted));
    let Some(ip) = ips.iter().copied().find(|ip| is_wanted(&ip)) else {
        if let (Some(wanted), false) = (wanted_family, ips.is_empty()) {
            bail!("the Service has no {wanted} address");
        }
        bail!(
            "the Service has no cluster IP: clients connect straight to what its name stands for, and no rule applies"
        );
    };
    let protocol = Protocol::parse(port.protocol.as_deref()).context("the port's protocol is unknown")?;
    Ok((SocketAddr::new(ip, u16::try_from(port.port)?), protocol))
}

fn address(pod: &Pod, ipv6: bool) -> Option<IpAddr> {
    addresses(pod).into_iter().find(|ip| ip.is_ipv6() == ipv6)
}

fn named(pod: &Pod) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// Pods by their addresses.
type PodNames = BTreeMap<IpAddr, String>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_port_is_named_or_numbered() {
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": {
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7", "fd00::7"],
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }}))
        .expect("a Service");
        let found =
            |port: &str| destination(&service, port, None).map(|(to, protocol)| format!("{to}/{protocol}"));
        for (family, expected) in [("ipv6", "[fd00::7]:80"), ("IPv4", "10.96.0.7:80")] {
            let (to, _) = destination(&service, "80", Some(family)).expect("found");
            assert_eq!(to.to_string(), expected);
        }
        let single: Service = serde_json::from_value(json!({"metadata": {}, "spec": {
            "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]}}))
        .expect("a Service");
        let error = destination(&single, "80", Some("IPv6"))
            .expect_err("none")
            .to_string();
        assert_eq!(error, "the Service has no IPv6 address");
        assert_eq!(found("http").expect("found"), "10.96.0.7:80/TCP");
        assert_eq!(found("53").expect("found"), "10.96.0.7:53/UDP");
        let error = found("81").expect_err("unknown").to_string();
        assert_eq!(error, "the Service has no port 81; it has http (80), dns (53)");
        assert!("svc/web".parse::<ServiceWithPort>().is_err() && "web:".parse::<ServiceWithPort>().is_err());
        assert_eq!("svc/web:80".parse::<ServiceWithPort>().expect("valid").port, "80");
    }
}
