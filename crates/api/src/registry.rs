//! Which strategy a kind has. Upstream: the storage constructors under `pkg/registry`.

use crate::strategy::{Facts, Kind};

static NAMESPACED: Kind = Kind::new(Facts::NAMESPACED);

/// The strategy of a kind.
pub(crate) fn kind(_group: &str, _kind: &str) -> &'static Kind {
    &NAMESPACED
}
