//! Times as the API keeps them: `metav1.Time` has whole seconds, and a status with fractions would differ from itself
//! once it is stored.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The second in which a moment is.
pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("the seconds of a timestamp are one")
}

/// The same for a typed object.
pub(crate) fn wire_time(time: Timestamp) -> Time {
    Time(seconds(time))
}
