//! ClusterTrustBundle. Upstream: `pkg/registry/certificates/clustertrustbundle`.

use crate::access::Read;
use crate::strategy::{Facts, Kind, NameRule};
use crate::table::{NAME, TableSpec, or_none, text};
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("SignerName")],
        cells: |bundle, _| {
            let signer = bundle.sub("spec").text("signerName");
            vec![bundle.name().into(), or_none(signer)]
        },
    },
    selectable_fields: |bundle| {
        let signer = bundle.sub("spec").text("signerName").to_owned();
        vec![("spec.signerName", signer)]
    },
    ..Kind::new(Facts {
        name: NameRule::PathSegment,
        unconditional_update: false,
        ..Facts::CLUSTER_DATA
    })
};
