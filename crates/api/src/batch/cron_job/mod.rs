//! CronJob. Upstream: `pkg/apis/batch`, `pkg/registry/batch/cronjob`.

mod schedule;
mod validation;

use crate::access::{Read, Write};
use crate::at::At;
use crate::batch::job;
use crate::strategy::{Facts, Kind};
use crate::table::{self, AGE, NAME, TableSpec, age, boolean, integer, or_none, since, text, wide};
use crate::warnings::{host_name, is_new_generation};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Schedule"),
            text("Timezone"),
            boolean("Suspend"),
            integer("Active"),
            text("Last Schedule"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells,
    },
    default,
    prepare_for_create: |job| job.put("status", json!({})),
    check: validation::check,
    check_update: Some(validation::check_update),
    warnings,
    ..Kind::new(Facts::NAMESPACED)
};

fn default(cron: &mut Value) {
    let spec = cron.object("spec");
    spec.fill_text("concurrencyPolicy", "Allow");
    spec.fill("suspend", false);
    spec.fill("successfulJobsHistoryLimit", 3);
    spec.fill("failedJobsHistoryLimit", 1);
    let template = spec.object("jobTemplate");
    template.object("metadata");
    job::default_spec(template.object("spec"));
}

fn warnings(cron: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = At::top(cron, "spec");
    if old.is_none() {
        host_name(cron, "Pod names and hostnames", &mut warnings);
    }
    if is_new_generation(cron, old) {
        job::warn_of_spec(&spec.child("jobTemplate").child("spec"), &mut warnings);
    }
    if old.is_some() && spec.text("schedule").contains("TZ") {
        warnings.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .to_owned(),
        );
    }
    warnings
}

fn cells(cron: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (cron.sub("spec"), cron.sub("status"));
    let job = spec.sub("jobTemplate").sub("spec");
    let last = match status.text("lastScheduleTime") {
        "" => "<none>".to_owned(),
        time => since(Some(time), now),
    };
    let suspend = match spec.sub("suspend").as_bool() {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    let [names, images] = table::containers(job.sub("template"));
    vec![
        cron.name().into(),
        spec.text("schedule").into(),
        or_none(spec.text("timeZone")),
        suspend.into(),
        status.list("active").len().into(),
        last.into(),
        age(cron, now),
        names,
        images,
        table::label_selector(job.sub("selector")),
    ]
}
