//! A step of the story, as the node's API hands it out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that happened to a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub part: Part,
    /// The node where it happened; none for what is the whole cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What.
    pub text: String,
    /// The revision of a write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Who does something for a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// A write is durable.
    ApiServer,
    /// The node's proxy has seen it.
    ServiceProxy,
    /// The kernel has the rules.
    Kernel,
    /// The zone has the names.
    ClusterDns,
    /// Somebody connects.
    FirstPacket,
}

impl Part {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "API server",
            Self::ServiceProxy => "service proxy",
            Self::Kernel => "kernel",
            Self::ClusterDns => "cluster DNS",
            Self::FirstPacket => "first packet",
        }
    }
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// In no order.
    pub steps: Vec<Step>,
}
