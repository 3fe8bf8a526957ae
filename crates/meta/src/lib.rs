//! The vocabulary of the Kubernetes API that knows no kind: names, versions, selectors, quantities,
//! field errors, `Status`, patches. Pure: no IO, no clock. Upstream: `k8s.io/apimachinery`.

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

pub use field::{FieldError, FieldPath};
pub use fields::FieldSelector;
pub use gvk::{GroupResource, GroupVersionKind, GroupVersionResource};
pub use labels::Selector;
pub use quantity::Quantity;
pub use status::{Status, StatusCause, StatusDetails};
pub use uid::Uid;
