//! PodTemplate. Upstream: `pkg/apis/core`, `pkg/registry/core/podtemplate`.

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::pod_spec;
use crate::strategy::{Facts, Kind};
use crate::table::{self, NAME, TableSpec, text};
use crate::warnings::is_new_generation;
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Containers"), text("Images"), text("Pod Labels")],
        cells: |object, _| {
            let template = object.sub("template");
            let [names, images] = table::containers(template);
            let labels = table::labels(template.sub("metadata").sub("labels"));
            vec![object.name().into(), names, images, labels]
        },
    },
    default: |object| pod_spec::default_template(object.object("template")),
    check: |object, errors| pod_spec::validate_template(&At::top(object, "template"), errors),
    warnings: |object, old| {
        let mut warnings = Vec::new();
        if is_new_generation(object, old) {
            pod_spec::warnings::warn(&At::top(object, "template"), &mut warnings);
        }
        warnings
    },
    ..Kind::new(Facts {
        status: false,
        ..Facts::NAMESPACED
    })
};
