//! `coracle diagnose svc/NAME`: why does a Service not answer?
//!
//! Objects come from the API server under the identity of the kubeconfig. As root on a node of the cluster the command
//! also looks at what is: sockets in the Pods' network namespaces, packet rules, tracked connections, the cluster
//! DNS's answer, and connections that it makes from the client's network namespace. `coracle_diagnose` judges.

mod connections;
mod denials;
mod dns;
pub mod node;
mod objects;
mod reference;
mod rules;
mod sockets;

pub use reference::{PodReference, ServiceReference};

use crate::cli::OutputFormat;
use crate::cluster::progress::line;
use crate::kubeconfig::context::{Access, ContextArgs};
use anyhow::{Context, Result, bail};
use clap::Args;
use coracle_diagnose::{Client, Evidence, attempts, diagnose};
use coracle_node::service_proxy::look;
use k8s_openapi::api::core::v1::Pod;
use node::Here;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// `coracle diagnose`.
#[derive(Args, Debug)]
pub struct DiagnoseArgs {
    /// The Service, as svc/NAME or NAME
    #[arg(value_name = "svc/NAME")]
    pub service: ServiceReference,
    /// Connect from this Pod, as pod/NAME or pod/NAMESPACE/NAME [default: from the node]
    #[arg(long, value_name = "pod/NAME")]
    pub from: Option<PodReference>,
    /// How to print the result
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
    #[command(flatten)]
    pub context: ContextArgs,
    /// Where `coracle up` keeps the Pods' network namespaces
    #[arg(long, value_name = "DIR", default_value = "/run/coracle", value_parser = crate::config::directory)]
    pub run_dir: PathBuf,
}

/// Runs `coracle diagnose …`. The exit status says whether something has to be done.
pub async fn run(args: DiagnoseArgs) -> Result<ExitCode> {
    let access = args.context.access()?;
    let evidence = collect(&args, &access).await?;
    let diagnosis = diagnose(&evidence);
    match args.output {
        OutputFormat::Text => line(diagnosis.to_string().trim_end()),
        OutputFormat::Json => line(&serde_json::to_string_pretty(&diagnosis)?),
    }
    Ok(if diagnosis.is_problem() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn collect(args: &DiagnoseArgs, access: &Access) -> Result<Evidence> {
    let (namespace, name) = (access.namespace.as_str(), args.service.name());
    let reading = objects::read(&access.client, namespace, name);
    let mut objects = tokio::time::timeout(PATIENCE, reading)
        .await
        .context("the API server does not answer")??;
    let client_pod = match &args.from {
        Some(reference) => Some(objects::client_pod(&access.client, namespace, reference).await?),
        None => None,
    };
    let mut evidence = Evidence {
        service: objects.service.take(),
        services: std::mem::take(&mut objects.services),
        pods: objects.pods.drain(..).map(Arc::new).collect(),
        elsewhere: std::mem::take(&mut objects.elsewhere),
        workloads: std::mem::take(&mut objects.workloads),
        slices: objects.slices.drain(..).map(Arc::new).collect(),
        events: std::mem::take(&mut objects.events),
        client: client(client_pod.as_ref()),
        ..Evidence::new(namespace, name)
    };
    match Here::find(&objects.nodes, &args.run_dir) {
        Ok(here) => look_at_node(&mut evidence, &here, client_pod.as_ref(), access).await?,
        Err(why) => without_node(&mut evidence, &why),
    }
    Ok(evidence)
}

/// Fills in what only the node shows.
async fn look_at_node(
    evidence: &mut Evidence,
    here: &Here,
    client_pod: Option<&Pod>,
    access: &Access,
) -> Result<()> {
    let place = match client_pod {
        None => node::Place::Node,
        Some(pod) => match here.place_of(pod) {
            Ok(place) => place,
            Err(why) => bail!(
                "cannot connect from Pod {}: {why}",
                pod.metadata.name.as_deref().unwrap_or_default()
            ),
        },
    };
    evidence.node = here.describe();
    evidence.sockets = sockets::of_pods(here, &evidence.pods);
    let looked = look().map_err(|error| node::describe(&error));
    evidence.rules = rules::read(&looked);
    evidence.flows = rules::flows();
    let attempts = attempts(evidence);
    let (dns, connections) = tokio::join!(
        dns::ask(evidence, here, &place, &access.client),
        connections::try_all(&place, attempts)
    );
    evidence.dns = dns;
    evidence.connections = Ok(connections);
    evidence.denials = denials::judge(evidence, here, client_pod, &looked, &access.client).await;
    Ok(())
}

fn without_node(evidence: &mut Evidence, why: &str) {
    evidence.rules = Err(why.to_owned());
    evidence.flows = Err(why.to_owned());
    evidence.denials = Err(why.to_owned());
    evidence.dns = Err(why.to_owned());
    evidence.connections = Err(why.to_owned());
    for pod in &evidence.pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        evidence.sockets.insert(name, Err(why.to_owned()));
    }
}

fn client(pod: Option<&Pod>) -> Client {
    let Some(pod) = pod else {
        return Client::default();
    };
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    Client {
        pod: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        resolver_of_node: policy == "Default" || (policy == "ClusterFirst" && host_network),
    }
}
