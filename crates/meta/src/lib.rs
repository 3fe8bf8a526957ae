//! The vocabulary of the Kubernetes API that knows no kind: names, versions, selectors, quantities,
//! field errors, `Status`, patches. Pure: no IO, no clock. Upstream: `k8s.io/apimachinery`.

pub mod field;
pub mod gvk;
pub mod object;
pub mod status;

pub use field::{FieldError, FieldPath};
pub use gvk::{GroupResource, GroupVersionKind, GroupVersionResource};
pub use status::{Status, StatusCause, StatusDetails};
