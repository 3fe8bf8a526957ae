//! Advice about volumes: sources that are gone, files that overwrite each other.

use crate::access::Read;
use crate::at::At;
use crate::core::persistent_volume_claim;
use serde_json::Value;
use std::fmt;

/// Sources whose drivers have left Kubernetes: the field, how upstream names it, what it says.
const REMOVED_SOURCES: [(&str, &str, &str); 9] = [
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "flocker",
        "flocker",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "quobyte",
        "quobyte",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

pub(super) fn warn(spec: &At<'_>, warnings: &mut Vec<String>) {
    for volume in spec.each("volumes") {
        for (field, name, message) in REMOVED_SOURCES {
            if volume.has(field) {
                warnings.push(format!("{}: {message}", volume.path.child(name)));
            }
        }
        let template = volume.child("ephemeral").child("volumeClaimTemplate");
        persistent_volume_claim::warn_of_spec(&template.child("spec"), warnings);
    }
    for volume in spec.list("volumes") {
        overlapping_files(volume, warnings);
    }
}

/// A file of a volume and which source puts it there; no source if the volume has but one.
#[derive(Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn new(path: &str, source: &str) -> Self {
        Self {
            path: path.trim_end_matches('/').to_owned(),
            source: source.to_owned(),
        }
    }

    /// Whether one of them is where the other, or a directory above it, is to be.
    fn overlaps(&self, other: &Self) -> bool {
        if self.path.is_empty() || other.path.is_empty() {
            return false;
        }
        let (this, other) = (format!("{}/", self.path), format!("{}/", other.path));
        this.starts_with(&other) || other.starts_with(&this)
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.path)?;
        if self.source.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.source)
    }
}

fn overlapping_files(volume: &Value, warnings: &mut Vec<String>) {
    let name = volume.text("name");
    let config_map = volume.sub("configMap");
    let secret = volume.sub("secret");
    let of_config_map = format!("ConfigMap {:?}", config_map.text("name"));
    let of_secret = format!("Secret {:?}", secret.text("secretName"));
    let single = [
        (of_config_map, config_map),
        (of_secret, secret),
        ("DownwardAPI".to_owned(), volume.sub("downwardAPI")),
    ];
    for (what, source) in single {
        warn_of_overlaps(name, &what, items(source, ""), warnings);
    }
    let mut files = Vec::new();
    for source in volume.sub("projected").list("sources") {
        if source.as_object().is_none_or(serde_json::Map::is_empty) {
            warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
        }
        files.extend(projected_files(source));
    }
    warn_of_overlaps(name, "Projected", files, warnings);
}

fn warn_of_overlaps(volume: &str, what: &str, files: Vec<File>, warnings: &mut Vec<String>) {
    for (index, file) in files.iter().enumerate() {
        for other in files.iter().take(index).filter(|other| file.overlaps(other)) {
            warnings.push(format!(
                "volume {volume:?} ({what}): overlapping paths: {file} with {other}"
            ));
        }
    }
}

/// The files that a source lists.
fn items(source: &Value, name: &str) -> Vec<File> {
    let items = source.list("items").iter();
    items.map(|item| File::new(item.text("path"), name)).collect()
}

fn projected_files(source: &Value) -> Vec<File> {
    let bundle = source.sub("clusterTrustBundle");
    let certificate = source.sub("podCertificate");
    if let Some(config_map) = source.field("configMap") {
        items(config_map, &format!("ConfigMap {:?}", config_map.text("name")))
    } else if let Some(secret) = source.field("secret") {
        items(secret, &format!("Secret {:?}", secret.text("name")))
    } else if let Some(downward) = source.field("downwardAPI") {
        items(downward, "DownwardAPI")
    } else if let Some(token) = source.field("serviceAccountToken") {
        vec![File::new(token.text("path"), "ServiceAccountToken")]
    } else if bundle.is_object() {
        let name = bundle.field("name").unwrap_or(bundle.sub("signerName"));
        let name = format!("ClusterTrustBundle {:?}", name.as_str().unwrap_or_default());
        vec![File::new(bundle.text("path"), &name)]
    } else {
        let parts = [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ];
        let parts = parts.iter().filter(|(key, _)| certificate.has(key));
        parts
            .map(|(key, name)| File::new(certificate.text(key), name))
            .collect()
    }
}
