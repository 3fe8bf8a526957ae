//! `coracle trace svc/NAME`: what happened at the last change of a Service, from the write to the first packet.
//!
//! Each node tells its part over its API (`/debug/services/NAMESPACE/NAME`), which the command reaches through the API
//! server under the identity of the kubeconfig: it takes the right to `get` the subresource `nodes/proxy`.

mod changes;
mod step;
mod story;

pub use changes::Change;
pub use step::{Part, Step, Trace};
pub use story::{Memory, tell};

use crate::cli::OutputFormat;
use crate::cluster::progress::line;
use crate::commands::diagnose::ServiceReference;
use crate::kubeconfig::context::ContextArgs;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use coracle_client::{Client, ListOptions, transport};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;

/// How long the API server and the nodes may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// `coracle trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// The Service, as svc/NAME or NAME
    #[arg(value_name = "svc/NAME")]
    pub service: ServiceReference,
    /// How to print the result
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
    #[command(flatten)]
    pub context: ContextArgs,
}

/// The story as programs read it.
#[derive(Serialize)]
struct Told {
    namespace: String,
    name: String,
    steps: Vec<ToldStep>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldStep {
    /// Since the first step.
    after_microseconds: i128,
    #[serde(flatten)]
    step: Step,
}

/// Runs `coracle trace …`.
pub async fn run(args: TraceArgs) -> Result<()> {
    let access = args.context.access()?;
    let (namespace, name) = (access.namespace.as_str(), args.service.name());
    let asking = ask(&access.client, namespace, name);
    let steps = timeout(PATIENCE, asking)
        .await
        .context("the API server or a node does not answer")??;
    let told = Told {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        steps: after(steps),
    };
    match args.output {
        OutputFormat::Json => line(&serde_json::to_string_pretty(&told)?),
        OutputFormat::Text => line(text(&told).trim_end()),
    }
    Ok(())
}

/// The steps of all nodes in their order. What is the cluster's and not a node's is told once.
async fn ask(client: &Client, namespace: &str, name: &str) -> Result<Vec<Step>> {
    client
        .api::<Service>()
        .get(namespace, name)
        .await
        .context("cannot read the Service")?;
    let nodes = client
        .api::<Node>()
        .list("", &ListOptions::default())
        .await
        .context("cannot read the nodes")?;
    let names = nodes.items.into_iter().filter_map(|node| node.metadata.name);
    let answers = futures::future::join_all(names.map(|node| async move {
        let path = format!("/api/v1/nodes/{node}/proxy/debug/services/{namespace}/{name}");
        let answer = client.bytes(Method::GET, &path, "", transport::empty()).await;
        let answer = answer.map_err(|error| anyhow!("node {node}: {}", error.describe()))?;
        let trace: Trace =
            serde_json::from_slice(&answer).with_context(|| format!("node {node} tells no story"))?;
        Ok::<_, anyhow::Error>(trace.steps)
    }))
    .await;
    let (mut steps, mut first_error) = (Vec::new(), None);
    for answer in answers {
        match answer {
            Ok(told) => steps.extend(told),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if steps.is_empty() => return Err(error.context("no node tells its part")),
        Some(error) => eprintln!("coracle: {error:#}"),
        None if steps.is_empty() => bail!("nothing is remembered of the Service"),
        None => (),
    }
    steps.sort();
    steps.dedup();
    Ok(steps)
}

fn after(steps: Vec<Step>) -> Vec<ToldStep> {
    let begin = steps.first().map_or(Timestamp::UNIX_EPOCH, |step| step.at);
    steps
        .into_iter()
        .map(|step| ToldStep {
            after_microseconds: step.at.duration_since(begin).as_micros(),
            step,
        })
        .collect()
}

fn text(told: &Told) -> String {
    let mut out = format!("Service {}/{}", told.namespace, told.name);
    if let Some(first) = told.steps.first() {
        out.push_str(&format!(", last change at {}", first.step.at));
        if first.step.part != Part::ApiServer {
            out.push_str(
                "\n  (what was written is not remembered: the daemon has been started since, or much has)",
            );
        }
    }
    out.push('\n');
    for told in &told.steps {
        let step = &told.step;
        let node = step
            .node
            .as_ref()
            .map(|node| format!("{node}: "))
            .unwrap_or_default();
        let revision = step
            .revision
            .map(|revision| format!(" (revision {revision})"))
            .unwrap_or_default();
        out.push_str(&format!(
            "  {:>12} µs  {:13}  {node}{}{revision}\n",
            grouped(told.after_microseconds),
            step.part.name(),
            step.text
        ));
    }
    if !told.steps.iter().any(|told| told.step.part == Part::FirstPacket) {
        out.push_str("  no connection that began since is tracked\n");
    }
    out
}

/// `1,234,567`.
fn grouped(number: i128) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567, -1234].map(grouped),
            ["0", "999", "1,000", "1,234,567", "-1,234"]
        );
    }

    #[test]
    fn each_step_is_a_line_with_the_time_since_the_first() {
        let step = |at: i64, part, node: Option<&str>, text: &str, revision| Step {
            at: Timestamp::from_microsecond(at).expect("in range"),
            part,
            node: node.map(str::to_owned),
            text: text.to_owned(),
            revision,
        };
        let told = Told {
            namespace: "shop".into(),
            name: "web".into(),
            steps: after(vec![
                step(1_000_000, Part::ApiServer, None, "Service web created", Some(7)),
                step(1_001_300, Part::Kernel, Some("node-1"), "done", None),
            ]),
        };
        assert_eq!(
            text(&told),
            "Service shop/web, last change at 1970-01-01T00:00:01Z
             0 µs  API server     Service web created (revision 7)
         1,300 µs  kernel         node-1: done
  no connection that began since is tracked
"
        );
    }
}
