//! A node that has the images already is better; big images count more, rare ones less.
//! Upstream: `plugins/imagelocality`.

use super::{MAX_NODE_SCORE, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use std::collections::HashMap;

const MEBIBYTE: i64 = 1024 * 1024;
/// Below this an image is pulled so fast that it does not matter.
const SMALLEST: i64 = 23 * MEBIBYTE;
/// Above this a container's image counts no more.
const LARGEST: i64 = 1000 * MEBIBYTE;

pub(super) struct ImageLocality {
    /// The images of the pod, by normalised name, each with the nodes that have it.
    images: Vec<(String, i64)>,
    containers: i64,
    nodes: i64,
}

impl ImageLocality {
    pub(super) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let spec = pod.spec();
        let containers = spec.into_iter().flat_map(|spec| {
            let init = spec.init_containers.iter().flatten();
            init.chain(&spec.containers)
        });
        let wanted: Vec<String> = containers
            .filter_map(|container| container.image.as_deref().map(normalised))
            .collect();
        let mut holders: HashMap<String, i64> = HashMap::new();
        let mut nodes = 0;
        for node in snapshot.nodes() {
            nodes += 1;
            for image in &wanted {
                if size_on(node, image).is_some() {
                    *holders.entry(image.clone()).or_default() += 1;
                }
            }
        }
        Self {
            containers: i64::try_from(wanted.len()).unwrap_or(i64::MAX),
            images: wanted
                .into_iter()
                .map(|image| {
                    let count = holders.get(&image).copied().unwrap_or_default();
                    (image, count)
                })
                .collect(),
            nodes,
        }
    }
}

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let largest = LARGEST * self.containers;
        if largest <= SMALLEST || self.nodes == 0 {
            return 0;
        }
        let sizes = self.images.iter().filter_map(|(image, holders)| {
            // Only nodes that nearly all have an image get its full size: one node must not attract everything.
            size_on(node, image).map(|size| size * holders / self.nodes)
        });
        let sum = sizes.sum::<i64>().clamp(SMALLEST, largest);
        MAX_NODE_SCORE * (sum - SMALLEST) / (largest - SMALLEST)
    }
}

fn size_on(node: &NodeInfo, image: &str) -> Option<i64> {
    let images = node.node()?.status.as_ref()?.images.as_ref()?;
    let found = images
        .iter()
        .find(|held| held.names.iter().flatten().any(|name| name == image))?;
    found.size_bytes
}

/// Names without a tag mean `latest`.
fn normalised(image: &str) -> String {
    match (image.rfind(':'), image.rfind('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| colon > slash) => image.to_owned(),
        _ => format!("{image}:latest"),
    }
}
