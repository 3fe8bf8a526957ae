//! The files of ConfigMaps, Secrets and the downward API in volumes. Upstream: `pkg/volume/configmap`, `secret`,
//! `downwardapi`, `projected`. Pure.

use super::atomic_writer::{File, Payload};
use coracle_pods::env::downward_api;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};
use std::collections::BTreeMap;

/// A source that may be selected from and may be missing.
pub struct Selection<'a> {
    /// Keys to show, and where; all if absent.
    pub items: Option<&'a Vec<KeyToPath>>,
    /// Permission bits of files without their own.
    pub default_mode: u32,
    /// Whether it is fine that the object or a key does not exist.
    pub optional: bool,
}

/// The files of a ConfigMap.
pub fn config_map(
    object: Option<&ConfigMap>,
    name: &str,
    selection: &Selection<'_>,
) -> Result<Payload, String> {
    let Some(object) = object else {
        return missing(selection, format!("configmap {name:?} not found"));
    };
    let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
    data.extend(
        object
            .data
            .iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_bytes())),
    );
    data.extend(
        object
            .binary_data
            .iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.0.as_slice())),
    );
    select(&data, selection)
}

/// The files of a Secret.
pub fn secret(object: Option<&Secret>, name: &str, selection: &Selection<'_>) -> Result<Payload, String> {
    let Some(object) = object else {
        return missing(selection, format!("secret {name:?} not found"));
    };
    let data = object.data.iter().flatten();
    select(
        &data.map(|(k, v)| (k.as_str(), v.0.as_slice())).collect(),
        selection,
    )
}

/// The files of the downward API.
pub fn downward(
    pod: &Pod,
    items: Option<&Vec<DownwardAPIVolumeFile>>,
    default_mode: u32,
    context: &downward_api::Context<'_>,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items.into_iter().flatten() {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward_api::field(pod, &field.field_path, context)?,
            (None, Some(selector)) => downward_api::resource(pod, None, selector, context)?,
            (None, None) => String::new(),
        };
        let file = File {
            mode: item.mode.map_or(default_mode, mode),
            data: value.into_bytes(),
        };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}

/// The permission bits that the API calls a mode.
pub fn mode(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0) & 0o777
}

fn missing(selection: &Selection<'_>, message: String) -> Result<Payload, String> {
    if selection.optional {
        Ok(Payload::new())
    } else {
        Err(message)
    }
}

fn select(data: &BTreeMap<&str, &[u8]>, selection: &Selection<'_>) -> Result<Payload, String> {
    let file = |data: &[u8], mode| File {
        mode,
        data: data.to_vec(),
    };
    let Some(items) = selection.items else {
        let all = data
            .iter()
            .map(|(key, data)| ((*key).to_owned(), file(data, selection.default_mode)));
        return Ok(all.collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(data) => {
                let mode = item.mode.map_or(selection.default_mode, mode);
                payload.insert(item.path.clone(), file(data, mode));
            }
            None if selection.optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn keys_are_selected_and_what_is_missing_is_named() {
        let map: ConfigMap =
            from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}})).expect("map");
        let all = Selection {
            items: None,
            default_mode: 0o644,
            optional: false,
        };
        let payload = config_map(Some(&map), "m", &all).expect("files");
        assert_eq!(payload.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(payload["c"].data, [0, 1]);
        assert_eq!(
            config_map(None, "m", &all),
            Err("configmap \"m\" not found".into())
        );

        let items: Vec<KeyToPath> =
            from_value(json!([{"key": "b", "path": "dir/bee", "mode": 256}, {"key": "x", "path": "x"}]))
                .expect("items");
        let mut some = Selection {
            items: Some(&items),
            ..all
        };
        assert_eq!(
            config_map(Some(&map), "m", &some),
            Err("references non-existent config key: x".into())
        );
        some.optional = true;
        let payload = config_map(Some(&map), "m", &some).expect("files");
        assert_eq!(payload.keys().collect::<Vec<_>>(), ["dir/bee"]);
        assert_eq!(payload["dir/bee"].mode, 0o400);
        assert_eq!(config_map(None, "m", &some), Ok(Payload::new()));
    }
}
