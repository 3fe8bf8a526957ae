//! Golden cases of Jobs and CronJobs.

use crate::strategy::strategy;
use crate::tests::{create, named, row, update, wrong};
use serde_json::{Value, json};

fn template(restart: &str) -> Value {
    json!({"spec": {"restartPolicy": restart, "containers": [{"name": "pi", "image": "perl:5.34"}]}})
}

fn job() -> Value {
    let mut job = named(
        strategy("batch", "Job"),
        "pi",
        json!({"spec": {"template": template("Never")}}),
    );
    job["metadata"]["uid"] = json!("1-2");
    job
}

#[test]
fn a_job() {
    let kind = strategy("batch", "Job");
    let mut job = job();
    assert_eq!(create(kind, &mut job), "");
    let labels = json!({
        "job-name": "pi", "batch.kubernetes.io/job-name": "pi",
        "controller-uid": "1-2", "batch.kubernetes.io/controller-uid": "1-2",
    });
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    job["spec"].as_object_mut().expect("an object").remove("template");
    assert_eq!(
        job["spec"],
        json!({
            "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "1-2"}},
        })
    );
}

#[test]
fn what_is_wrong_with_a_job() {
    let kind = strategy("batch", "Job");
    let restart = "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"";
    assert_eq!(
        wrong(kind, json!({"spec": {"template": template("Always")}})),
        restart
    );
    let spec = json!({"template": template("Sometimes"), "completions": -1});
    assert_eq!(
        wrong(kind, json!({"spec": spec})),
        "spec.completions: Invalid value: -1: must be greater than or equal to 0; spec.template.spec.restartPolicy: \
         Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"; \
         spec.template.spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Never\", \"OnFailure\""
    );
    let spec = json!({"template": template("Never"), "completionMode": "Indexed"});
    assert_eq!(
        wrong(kind, json!({"spec": spec})),
        "",
        "a Job with neither number completes once"
    );
    let spec = json!({"template": template("Never"), "completionMode": "Indexed", "parallelism": 2});
    assert_eq!(
        wrong(kind, json!({"spec": spec})),
        "spec.completions: Required value: when completion mode is Indexed"
    );
}

#[test]
fn what_an_update_of_a_job_may_change() {
    let kind = strategy("batch", "Job");
    let mut old = job();
    create(kind, &mut old);
    let mut new = old.clone();
    new["spec"]["parallelism"] = json!(3);
    new["spec"]["suspend"] = json!(true);
    assert_eq!(update(kind, &mut new, &old), "");
    new["spec"]["completions"] = json!(2);
    new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    let errors = update(kind, &mut new, &old);
    assert!(errors.starts_with(
        "spec.completions: Invalid value: 2: field is immutable; spec.template: Invalid value: {"
    ));
    assert!(errors.ends_with("}: field is immutable"));

    let mut suspended = old.clone();
    suspended["spec"]["suspend"] = json!(true);
    let mut moved = suspended.clone();
    moved["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    assert_eq!(update(kind, &mut moved, &suspended), "", "nothing runs yet");
}

#[test]
fn rows_of_jobs() {
    let kind = strategy("batch", "Job");
    let mut job = job();
    create(kind, &mut job);
    let uid = "batch.kubernetes.io/controller-uid=1-2";
    assert_eq!(
        row(kind, &job),
        json!(["pi", "Running", "0/1", "", "5m", "pi", "perl:5.34", uid])
    );
    job["status"] = json!({
        "succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:05Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    });
    assert_eq!(
        row(kind, &job),
        json!(["pi", "Complete", "1/1", "65s", "5m", "pi", "perl:5.34", uid])
    );
    job["spec"]
        .as_object_mut()
        .expect("an object")
        .remove("completions");
    job["spec"]["parallelism"] = json!(3);
    assert_eq!(row(kind, &job)[2], "1/1 of 3");
}

#[test]
fn a_cron_job() {
    let kind = strategy("batch", "CronJob");
    let template = template("OnFailure");
    let spec = json!({"schedule": "*/1 * * * *", "jobTemplate": {"spec": {"template": template}}});
    let mut cron = named(kind, "hello", json!({"spec": spec}));
    assert_eq!(create(kind, &mut cron), "");
    assert_eq!(cron["spec"]["concurrencyPolicy"], "Allow");
    assert_eq!(cron["spec"]["successfulJobsHistoryLimit"], 3);
    assert_eq!(cron["spec"]["failedJobsHistoryLimit"], 1);
    assert_eq!(cron["spec"]["suspend"], false);
    let job = &cron["spec"]["jobTemplate"]["spec"];
    assert!(job.get("backoffLimit").is_none(), "Jobs get their own defaults");
    assert_eq!(
        row(kind, &cron),
        json!([
            "hello",
            "*/1 * * * *",
            "<none>",
            "False",
            0,
            "<none>",
            "5m",
            "pi",
            "perl:5.34",
            "<none>"
        ])
    );
    let spec = json!({"schedule": "* * * *", "concurrencyPolicy": "x", "timeZone": "Local", "jobTemplate": {"spec": {"template": template}}});
    assert_eq!(
        wrong(kind, json!({"spec": spec})),
        "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]; spec.timeZone: \
         Invalid value: \"Local\": timeZone must be an explicit time zone as defined in \
         https://www.iana.org/time-zones; spec.concurrencyPolicy: Unsupported value: \"x\": supported values: \
         \"Allow\", \"Forbid\", \"Replace\""
    );
}
