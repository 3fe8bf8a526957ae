//! The number behind a pod's priority class. Upstream: `plugin/pkg/admission/priority`.

use super::{created, forbidden, is_about};
use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use serde_json::{Value, json};

/// See the file's head.
pub struct Priority;

const GROUP: &str = "scheduling.k8s.io";

fn classes() -> GroupResource {
    GroupResource::new(GROUP, "priorityclasses")
}

/// The class of pods that name none. Should there be several, the one with the lowest value.
fn default_class(reader: &dyn Reader) -> Option<Value> {
    let mut all = reader.list(&classes(), None);
    all.retain(|class| class["globalDefault"] == true);
    all.into_iter().min_by_key(|class| class["value"].as_i64())
}

impl Admission for Priority {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        if request.operation == Operation::Update && is_about(request, "", "pods") {
            keep(request);
            return Ok(());
        }
        let Some(pod) = created(request, "", "pods") else {
            return Ok(());
        };
        let named = pod
            .str_at(&["spec", "priorityClassName"])
            .unwrap_or_default()
            .to_owned();
        let class = if named.is_empty() {
            default_class(reader)
                .unwrap_or_else(|| json!({"value": 0, "preemptionPolicy": "PreemptLowerPriority"}))
        } else {
            match reader.get(&classes(), "", &named) {
                Some(class) => class,
                None => {
                    return Err(forbidden(
                        request,
                        format!("no PriorityClass with name {named} was found"),
                    ));
                }
            }
        };
        let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
            return Ok(());
        };
        if named.is_empty() && !class.name().is_empty() {
            spec["priorityClassName"] = class.name().into();
        }
        let mut complaint = None;
        for (key, what) in [
            ("priority", "the integer value of priority"),
            ("preemptionPolicy", "the string value of PreemptionPolicy"),
        ] {
            let Some(computed) = class.get(if key == "priority" { "value" } else { key }) else {
                continue;
            };
            let given = &mut spec[key];
            if !given.is_null() && given != computed && complaint.is_none() {
                let bare = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                complaint = Some(format!(
                    "{what} ({}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                    bare(given),
                    bare(computed)
                ));
            }
            *given = computed.clone();
        }
        match complaint {
            Some(why) => Err(forbidden(request, why)),
            None => Ok(()),
        }
    }

    fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(class) = request
            .object
            .as_deref()
            .filter(|_| is_about(request, GROUP, "priorityclasses"))
        else {
            return Ok(());
        };
        if class["globalDefault"] != true {
            return Ok(());
        }
        match default_class(reader) {
            Some(existing) if existing.name() != class.name() => Err(forbidden(
                request,
                format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    existing.name()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// What was computed at the creation stays when an update leaves it out.
fn keep(request: &mut AdmissionRequest) {
    let (Some(pod), Some(old)) = (request.object.as_deref_mut(), request.old) else {
        return;
    };
    for key in ["priority", "preemptionPolicy"] {
        if let Some(value) = old.at(&["spec", key])
            && pod.at(&["spec", key]).is_none()
            && pod["spec"].is_object()
        {
            pod["spec"][key] = value.clone();
        }
    }
}
