//! ClusterRoleBinding. Upstream: `pkg/apis/rbac`, `pkg/registry/rbac/clusterrolebinding`.

use crate::rbac::FACTS;
use crate::rbac::role_binding::{TABLE, default, validate, validate_role_stays};
use crate::strategy::{Facts, Kind};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TABLE,
    default,
    check: |binding, errors| validate(binding, false, errors),
    check_update: Some(|binding, old, errors| {
        validate(binding, false, errors);
        validate_role_stays(binding, old, errors);
    }),
    ..Kind::new(Facts {
        namespaced: false,
        ..FACTS
    })
};
