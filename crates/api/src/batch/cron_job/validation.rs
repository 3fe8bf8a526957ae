//! Validation of CronJobs. Upstream: `validateCronJobSpec`.

use super::schedule;
use crate::access::Read;
use crate::at::At;
use crate::batch::job;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use coracle_meta::object::ObjectExt;
use serde_json::Value;

/// Names of Jobs get eleven characters more.
const NAME_MAX: usize = 52;

pub(super) fn check(cron: &Value, errors: &mut Errors) {
    validate_spec(cron, None, errors);
    if cron.name().len() > NAME_MAX {
        let name = At::top(cron, "metadata").child("name");
        errors.push(name.invalid("must be no more than 52 characters"));
    }
}

pub(super) fn check_update(cron: &Value, old: &Value, errors: &mut Errors) {
    validate_spec(cron, Some(old.sub("spec")), errors);
}

fn validate_spec(cron: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::top(cron, "spec");
    if spec.require("schedule", errors) {
        let had_zone = old.is_some_and(|old| old.text("schedule").contains("TZ"));
        validate_schedule(&spec, had_zone, errors);
    }
    spec.not_negative("startingDeadlineSeconds", errors);
    if old.is_none_or(|old| old.sub("timeZone") != spec.sub("timeZone")) {
        validate_time_zone(&spec.child("timeZone"), errors);
    }
    spec.require_one_of("concurrencyPolicy", &["Allow", "Forbid", "Replace"], errors);
    let template = spec.child("jobTemplate").child("spec");
    job::validate_job_spec(&template, errors);
    if let Some(selector) = template.present("selector") {
        errors.push(selector.invalid("`selector` will be auto-generated"));
    }
    if template.flag("manualSelector") {
        let manual = template.child("manualSelector");
        errors.push(manual.not_supported(&["false", "nil"]));
    }
    spec.none_negative(&["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], errors);
}

fn validate_schedule(spec: &At<'_>, had_zone: bool, errors: &mut Errors) {
    let at = spec.child("schedule");
    if let Err(reason) = schedule::validate(at.as_text()) {
        errors.push(at.invalid(&reason));
    }
    let has_zone = at.as_text().contains("TZ");
    if has_zone && had_zone && spec.has("timeZone") {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.push(at.invalid(detail));
    } else if has_zone && !had_zone {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(at.invalid(detail));
    }
}

/// By its form only: which zones there are is not known here.
fn validate_time_zone(zone: &At<'_>, errors: &mut Errors) {
    if zone.is_null() {
        return;
    }
    let text = zone.as_text();
    if text.is_empty() {
        let detail = "timeZone must be nil or non-empty string";
        errors.push(FieldError::invalid(&zone.path, "", detail));
        return;
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let is_part = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(fits)
    };
    if !text.split('/').all(is_part) {
        errors.push(zone.invalid(&format!("unknown time zone {text}")));
    } else if text.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(zone.invalid(detail));
    }
}
