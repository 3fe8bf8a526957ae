//! `pods/NAME/eviction`: a deletion that asks the pod's disruption budget first. Upstream: `EvictionREST`.

use crate::plugin::Reader;
use crate::registry::Registry;
use crate::registry::call::Call;
use crate::registry::decode;
use crate::registry::object::parse;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::render::Content;
use crate::registry::update::Part;
use coracle_api::resources::by_gvr;
use coracle_meta::object::ObjectExt;
use coracle_meta::{
    GroupResource, GroupVersionKind, Selector, Status, StatusCause, StatusDetails, timestamp,
};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

impl Registry {
    pub(in crate::registry) async fn evict(
        &self,
        call: &Call,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        let mut write = call.write_options()?;
        let gvk = GroupVersionKind::new("policy", "v1", "Eviction");
        let eviction = decode::typed(call, body, &gvk, write.field_validation)?;
        if eviction.name() != call.attributes.name {
            return Err(Status::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        let raw = eviction.get("deleteOptions").cloned().unwrap_or_default();
        let mut options = DeleteOptions::parse(Some(raw), &call.uri)?;
        write.dry_run |= options.dry_run;
        options.dry_run = write.dry_run;

        let stored = self.find(call)?;
        let pod = parse(&stored);
        if is_guarded(&pod) {
            self.ask_budgets(call, &pod, &write, &mut options).await?;
        }
        self.delete(call, &options).await?;
        let mut status = Status::success();
        status.code = StatusCode::CREATED.as_u16();
        Ok((StatusCode::CREATED, Content::Status(status.into())))
    }

    /// Takes one disruption from the pod's budget, where it has one.
    async fn ask_budgets(
        &self,
        call: &Call,
        pod: &Value,
        write: &WriteOptions,
        options: &mut DeleteOptions,
    ) -> Result<(), Status> {
        let budgets = self.reader.list(
            &GroupResource::new("policy", "poddisruptionbudgets"),
            Some(pod.namespace()),
        );
        let mut matching = budgets.into_iter().filter(|budget| {
            Selector::from_label_selector(&budget["spec"]["selector"])
                .is_ok_and(|selector| selector.matches_object(pod))
        });
        let Some(budget) = matching.next() else {
            return Ok(());
        };
        if matching.next().is_some() {
            return Err(Status::failure(
                500,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        if !is_ready(pod) && unready_may_go(&budget) {
            // The pod must not have become ready in between.
            options
                .resource_version
                .get_or_insert_with(|| pod.resource_version().to_owned());
            return Ok(());
        }
        let resource = by_gvr("policy", "v1", "poddisruptionbudgets")
            .ok_or_else(|| Status::internal("no disruption budgets are served"))?;
        let call = call.about(resource, budget.namespace(), budget.name());
        let change = |old: Option<&Value>| disrupted(old.ok_or_else(|| call.not_found())?, pod.name());
        self.update(&call, Part::Status, false, write, &change)
            .await
            .map(|_| ())
    }
}

/// Pods that do not run, or go already, disrupt nothing. Upstream: `canIgnorePDB`.
fn is_guarded(pod: &Value) -> bool {
    let phase = pod.str_at(&["status", "phase"]).unwrap_or_default();
    !pod.is_terminating() && !matches!(phase, "Succeeded" | "Failed" | "Pending" | "")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn unready_may_go(budget: &Value) -> bool {
    let desired = budget.int_at(&["status", "desiredHealthy"]).unwrap_or(0);
    let current = budget.int_at(&["status", "currentHealthy"]).unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || (desired > 0 && current >= desired)
}

/// The budget with one disruption less. Upstream: `checkAndDecrement`.
fn disrupted(budget: &Value, pod: &str) -> Result<Value, Status> {
    let name = budget.name();
    if budget.int_at(&["status", "observedGeneration"]).unwrap_or(0) < budget.generation() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why, 10));
    }
    let allowed = budget.int_at(&["status", "disruptionsAllowed"]).unwrap_or(0);
    if allowed <= 0 {
        let desired = budget.int_at(&["status", "desiredHealthy"]).unwrap_or(0);
        let current = budget.int_at(&["status", "currentHealthy"]).unwrap_or(0);
        let why =
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently");
        return Err(refused(why, 0));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    budget["status"]["disruptedPods"][pod] = timestamp::format_time(Timestamp::now()).into();
    Ok(budget)
}

fn refused(why: String, retry_after_seconds: i32) -> Status {
    let mut status = Status::failure(429, "TooManyRequests", REFUSED);
    status.details = Some(StatusDetails {
        causes: vec![StatusCause {
            reason: "DisruptionBudget".into(),
            message: why,
            field: String::new(),
        }],
        retry_after_seconds,
        ..StatusDetails::default()
    });
    status
}
