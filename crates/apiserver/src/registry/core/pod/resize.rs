//! `pods/NAME/resize`: other resources for running containers.

use serde_json::Value;

/// Takes over the resources and resize policies of containers.
pub(crate) fn take(wanted: &Value, into: &mut Value) {
    for list in ["containers", "initContainers"] {
        let Some(containers) = into["spec"].get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let wanted = wanted["spec"][list].as_array().into_iter().flatten();
            if let Some(wanted) = wanted
                .into_iter()
                .find(|other| other["name"] == container["name"])
            {
                for field in ["resources", "resizePolicy"] {
                    if let Some(value) = wanted.get(field) {
                        container[field] = value.clone();
                    }
                }
            }
        }
    }
}
