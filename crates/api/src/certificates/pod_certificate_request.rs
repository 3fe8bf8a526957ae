//! PodCertificateRequest. Upstream: `pkg/registry/certificates/podcertificaterequest`.

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{NAME, TableSpec, labels, text};
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("PodName"),
            text("ServiceAccountName"),
            text("NodeName"),
            text("SignerName"),
            text("State"),
            text("UnverifiedUserAnnotations"),
        ],
        cells: |request, _| {
            let spec = request.sub("spec");
            let conditions = request.sub("status").list("conditions");
            let state = conditions
                .iter()
                .map(|condition| condition.text("type"))
                .rfind(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
            vec![
                request.name().into(),
                spec.text("podName").into(),
                spec.text("serviceAccountName").into(),
                spec.text("nodeName").into(),
                spec.text("signerName").into(),
                state.unwrap_or("Pending").into(),
                labels(spec.sub("unverifiedUserAnnotations")),
            ]
        },
    },
    ..Kind::new(Facts {
        generation: false,
        unconditional_update: false,
        ..Facts::NAMESPACED
    })
};
