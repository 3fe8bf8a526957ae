//! The vocabulary of the Kubernetes API that knows no kind: names, versions, selectors, quantities,
//! field errors, `Status`, patches. Pure: no IO, no clock. Upstream: `k8s.io/apimachinery`.

pub mod balancing;
pub mod cidr;
pub mod field;
pub mod fields;
pub mod gvk;
pub mod labels;
pub mod names;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod status;
pub mod timestamp;
pub mod uid;
pub mod well_known_labels;

/// The release of Kubernetes whose API this is, as servers and nodes report it.
pub const KUBERNETES_VERSION: &str = "v1.36.2";

pub use field::{FieldError, FieldPath};
pub use fields::FieldSelector;
pub use gvk::{GroupResource, GroupVersionKind, GroupVersionResource};
pub use labels::Selector;
pub use quantity::Quantity;
pub use status::{Status, StatusCause, StatusDetails};
pub use uid::Uid;
