//! Lease. Upstream: `pkg/apis/coordination`, `pkg/registry/coordination/lease`.

use crate::access::Read;
use crate::at::{At, NEGATIVE};
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use serde_json::Value;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Holder"), AGE],
        cells: |lease, now| {
            let holder = lease.sub("spec").text("holderIdentity");
            vec![lease.name().into(), holder.into(), age(lease, now)]
        },
    },
    check,
    ..Kind::new(Facts {
        create_on_update: true,
        unconditional_update: false,
        ..Facts::NAMESPACED_DATA
    })
};

fn check(lease: &Value, errors: &mut Errors) {
    let spec = At::top(lease, "spec");
    let duration = spec.child("leaseDurationSeconds");
    if duration.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.push(duration.invalid("must be greater than 0"));
    }
    let transitions = spec.child("leaseTransitions");
    if transitions.as_i64().is_some_and(|count| count < 0) {
        errors.push(transitions.invalid(NEGATIVE));
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        let holder = spec.child("preferredHolder");
        errors.push(holder.forbidden("may only be specified if `strategy` is defined"));
    }
}
